"""Checks a checkpoint from the outside: does it load, answer as the original, and does its card tell the truth?"""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ..host_loading import CheckpointNotFound, why_not_found
from .card_check import card_problems
from .claims import Claim, claims_of_card, claims_of_results, find_claim
from .published_task import Probes, PublishedTask
from .published_tasks import task_of, task_of_checkpoint
from .reference import ReferenceLogits, reference_logits, reference_path, reference_pixels
from .result_table import metric_label
from .stage_files import StageError, list_staged_files
from .staging import load_results


# float32 on two machines, or with two thread counts, differs in the last digits; wrong weights differ in the first
_RELATIVE_TOLERANCE = 1e-4
_SECONDS, _SCORE = 1e-2, 1e-3  # how far a detection may lie from the same one elsewhere
_MAX_ANSWERS = 20  # of a pipeline, per file; where more are compared, the next ones may have changed places


@dataclass
class Check:
    """One question and its answer.

    Attributes:
        name: what was asked.
        ok: True, False, or None when it could not be asked (the detail says why).
        detail: what was found.
    """

    name: str
    ok: bool | None
    detail: str = ""


@dataclass
class VerifyReport:
    """Every check of one checkpoint.

    Attributes:
        source: folder or Hub id.
        checks: in the order in which they ran.
        measured: claimed and measured accuracy, when videos were given: `metric` (`"top1"`, `"mAP"` or `"average_mAP"`),
            `measured`, `n`, `interval`, `failed`, and `claimed`, `claimed_n`, `claimed_interval` where there is a claim.
    """

    source: str
    checks: list[Check] = field(default_factory=list)
    measured: dict | None = None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.ok is not False for check in self.checks)

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def to_text(self) -> str:
        """One line per check."""
        marks = {True: "ok     ", False: "FAILED ", None: "skipped"}
        lines = [
            f"{marks[check.ok]} {check.name}" + (f": {check.detail}" if check.detail else "") for check in self.checks
        ]
        skipped = sum(check.ok is None for check in self.checks)
        verdict = "verified" if self.ok else "NOT verified"
        if skipped:
            verdict += f" ({skipped} check{'s' if skipped > 1 else ''} skipped)"
        return "\n".join([self.source, *lines, verdict])


def verify_checkpoint(
    folder_or_repo: str | os.PathLike,
    videos=None,
    reference_logits: ReferenceLogits | str | os.PathLike | None = None,
    *,
    results=None,
    revision: str | None = None,
    trust_remote_code: bool = True,
    dataset_name: str | None = None,
    split: str | None = None,
    max_videos: int | None = None,
    timeout: float = 900.0,
    batch_size: int = 4,
    progress: bool = True,
) -> VerifyReport:
    """Checks a staged folder, or a repository on the Hub.

    A new interpreter that cannot import hf_effvid loads the model (every weight must fit), its base, the processor and the
    stock `pipeline("video-classification")`, classifies generated clips (also one that is too short, also in a batch) and
    saves everything again. A detector runs through `pipeline("temporal-action-detection")`, and finds what it finds with
    the package. Outputs are compared with the original's. The card is read, and with `videos` the accuracy it claims is
    measured anew. For a folder nothing is fetched from the network.

    The code that a checkpoint ships is *executed*, in a process without any isolation: verify only what you would load.

    Args:
        folder_or_repo: the checkpoint.
        videos: to re-check the recorded accuracy on: rows with a video and a label (see `evaluate_classifier`); for a detector
            annotations, or what `load_detection_annotations` reads.
        reference_logits: what the original answered, or a file of it; default: what staging left beside the folder, else
            the answer of this process, with the package.
        results: results the card must agree with: `ResultsFile`, path or list. Without them the accuracy that the card
            itself claims is the one to check.
        revision: branch, tag or commit of a Hub repository.
        trust_remote_code: let the new interpreter run the checkpoint's code; without it only classifiers of stock
            architectures load.
        dataset_name, split: which claim the videos belong to. May be left out where there is only one; a measurement that
            no claim or more than one fits is a failed check.
        max_videos: measure on so many videos, spread evenly over the data set (the first ones of a stream).
        timeout: seconds the new interpreter may take.
        batch_size: views per forward pass when measuring.
        progress: show a progress bar when measuring.

    Returns:
        The report; `report.ok` says whether everything that could be checked holds.

    Raises:
        CheckpointNotFound, OSError: there is no such folder or repository, or it cannot be fetched.
    """
    source = os.fspath(folder_or_repo)
    report = VerifyReport(source if revision is None else f"{source}@{revision}")
    folder = Path(source) if Path(source).is_dir() else _download(source, revision)
    is_local = Path(source).is_dir()
    _check_files(report, folder, is_local)
    _check_card(report, folder, results)
    task = task_of_checkpoint(str(folder))
    expected = _expected_logits(report, folder, reference_logits)
    with tempfile.TemporaryDirectory(prefix="effvid-verify-") as work:
        probes = task.write_probes(folder, Path(work))
        answer = _ask_fresh_process(
            folder if is_local else source,
            None if is_local else revision,
            expected,
            task,
            probes,
            Path(work),
            trust_remote_code,
            timeout,
        )
        _record_steps(report, answer, task, code={path.name for path in folder.glob("*.py")})
        _compare_logits(report, answer, expected)
        _compare_detections(report, answer, task, folder, probes)
    if videos is not None:
        options = {"max_videos": max_videos, "batch_size": batch_size, "progress": progress}
        options["trust_remote_code"] = trust_remote_code
        _measure(report, task, folder, videos, _claims(folder, results), dataset_name, split, options)
    return report


def _download(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    missing = why_not_found(repo_id, revision)
    if missing is not None:
        raise CheckpointNotFound(missing)
    return Path(snapshot_download(repo_id, revision=revision))


def _check_files(report: VerifyReport, folder: Path, is_local: bool) -> None:
    if not is_local:
        # the cache holds links, and the Hub adds .gitattributes: copy what counts, then look at that
        with tempfile.TemporaryDirectory() as copy:
            for path in folder.iterdir():
                if path.is_file() and path.name != ".gitattributes":
                    shutil.copyfile(path, Path(copy) / path.name)
                    (Path(copy) / path.name).chmod(0o644)
            _check_files(report, Path(copy), True)
        return
    try:
        files = list_staged_files(folder)
    except StageError as error:
        report.checks.append(Check("files", False, str(error)))
        return
    size = sum(file.size for file in files) / 1e6
    report.checks.append(Check("files", True, f"{len(files)} files, {size:.1f} MB, nothing else"))


def _check_card(report: VerifyReport, folder: Path, results) -> None:
    card = folder / "README.md"
    if not card.is_file():
        report.checks.append(Check("card", False, "there is no README.md"))
        return
    entries = load_results(results) if results is not None else None
    problems = card_problems(card.read_text(encoding="utf-8"), entries)
    agreed = "agrees with itself" if entries is None else f"agrees with {len(entries)} results"
    report.checks.append(Check("card", not problems, "; ".join(problems) or agreed))


def _expected_logits(report: VerifyReport, folder: Path, given) -> ReferenceLogits | None:
    if isinstance(given, ReferenceLogits):
        return given
    path = given if given is not None else reference_path(folder)
    if given is not None or path.is_file():
        return ReferenceLogits.load(path)
    try:
        return _own_logits(folder)
    except Exception as error:  # whatever a broken checkpoint raises here is reported by the fresh process as well
        report.checks.append(
            Check("reference logits", None, f"none recorded, and this process cannot load it: {error}")
        )
        return None


def _own_logits(folder: Path) -> ReferenceLogits:
    """What the installed package answers, where nobody recorded the original's answer."""
    from .staging import load_checkpoint

    model, processor = load_checkpoint(folder)
    task = task_of(model.config)
    asked = task.reference_input(model.config, processor)
    return reference_logits(model, asked.shape, input_name=asked.name, outputs=task.outputs)


def _ask_fresh_process(
    source,
    revision,
    expected,
    task: PublishedTask,
    probes: Probes,
    work: Path,
    trust_remote_code: bool,
    timeout: float,
) -> dict:
    """Runs `fresh_process.py` in a new interpreter and returns its answer."""
    from safetensors.torch import save_file

    is_adapter = isinstance(source, Path) and (source / "adapter_config.json").is_file()
    # an adapter belongs to the head's class, the base class alone cannot take it
    steps = [step for step in task.steps if not (is_adapter and step == "load_base")]
    if expected is not None:
        steps.append("logits")
        save_file({"input": reference_pixels(expected.shape, expected.seed)}, work / "reference.safetensors")
    request = {
        "source": str(Path(source).resolve()) if isinstance(source, Path) else source,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "steps": steps,
        "auto_class": task.auto_class,
        "reference": str(work / "reference.safetensors"),
        "input_name": expected.input_name if expected else None,
        "outputs": expected.outputs if expected else None,
        "probes": probes.files,
        "probe_options": probes.options,
        "top_k": _MAX_ANSWERS,
    }
    (work / "request.json").write_text(json.dumps(request), encoding="utf-8")
    # run as a copy: a program's own folder comes first on its path, and ours is full of modules
    program = shutil.copy(Path(__file__).with_name("fresh_process.py"), work / "fresh_process.py")
    environment = {**os.environ, "HF_MODULES_CACHE": str(work / "modules"), "PYTHONSAFEPATH": "1"}
    if isinstance(source, Path) and not is_adapter:  # an adapter's base model may have to be fetched
        environment.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    command = [sys.executable, str(program), str(work / "request.json"), str(work / "answer.json")]
    try:
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=timeout)
        outcome = f"exit status {done.returncode}: {done.stderr.strip()[-2000:]}"
    except subprocess.TimeoutExpired:
        outcome = f"no answer within {timeout:.0f} s"
    answer_path = work / "answer.json"
    answer = json.loads(answer_path.read_text(encoding="utf-8")) if answer_path.is_file() else {"steps": {}}
    for step in steps:
        answer["steps"].setdefault(step, {"ok": False, "error": f"the interpreter ended before ({outcome})"})
    return answer


def _record_steps(report: VerifyReport, answer: dict, task: PublishedTask, code: set[str]) -> None:
    names = {
        "package_is_absent": "fresh interpreter without hf_effvid",
        "load": task.auto_class,
        "load_base": "AutoModel",
        "processor": "AutoVideoProcessor",
        "feature_processor": "AutoVideoProcessor",
        "classify": f'pipeline("{task.name}")',
        "detect": f'pipeline("{task.name}")',
        "resave": "saved again",
    }
    for step, name in names.items():
        outcome = answer["steps"].get(step)
        if outcome is None:  # not every step makes sense for every task, or for an adapter
            continue
        lost = sorted(code - set(outcome.get("files", code)))
        if lost:
            outcome = {
                "ok": False,
                "error": f"the code files {', '.join(lost)} are lost when the model is saved again",
            }
        detail = outcome.get("error") or _describe(step, outcome)
        report.checks.append(Check(name, outcome["ok"], detail))


def _describe(step: str, outcome: dict) -> str:
    if step == "load":
        return f"{outcome['class']}, {outcome['parameters']:,} parameters, every weight fits"
    if step in ("processor", "feature_processor"):
        return f"{outcome['class']}, {'x'.join(map(str, outcome['shape']))}"
    if step == "classify":
        best = outcome["answers"][0][0]
        return f"{len(outcome['answers'])} clips, the first is {best['label']!r} ({best['score']:.2f})"
    if step == "detect":
        return f"{len(outcome['answers'])} files, {sum(map(len, outcome['answers']))} detections"
    if step == "resave":
        return f"{len(outcome['files'])} files"
    return outcome.get("class", "")


def _compare_logits(report: VerifyReport, answer: dict, expected: ReferenceLogits | None) -> None:
    if expected is None:
        return
    outcome = answer["steps"]["logits"]
    if not outcome["ok"]:
        report.checks.append(Check("logits equal the original's", False, outcome["error"]))
        return
    found = outcome["logits"]
    if [len(row) for row in found] != [len(row) for row in expected.logits]:
        report.checks.append(
            Check(
                "logits equal the original's",
                False,
                f"{len(found)} x {len(found[0])} numbers instead of {len(expected.logits)} x {len(expected.logits[0])}",
            )
        )
        return
    pairs = [
        (a, b) for row, other in zip(found, expected.logits, strict=True) for a, b in zip(row, other, strict=True)
    ]
    difference = max(abs(a - b) for a, b in pairs)
    # relative to the logits: an untrained head answers with 0.01, where an absolute tolerance would let anything pass
    scale = max(1e-3, *(abs(b) for _, b in pairs))
    # written so that a NaN on either side fails
    ok = difference <= _RELATIVE_TOLERANCE * scale and all(a == a for a, _ in pairs)
    report.checks.append(
        Check("logits equal the original's", ok, f"largest difference {difference:.2g} at a scale of {scale:.3g}")
    )


def _compare_detections(report: VerifyReport, answer: dict, task: PublishedTask, folder: Path, probes: Probes) -> None:
    """A stranger finds the same actions at the same times as somebody with the package."""
    outcome = answer["steps"].get("detect")
    if outcome is None or not outcome["ok"]:
        return
    name = "detections equal the package's"
    try:
        ours = task.own_answers(folder, probes)
    except Exception as error:  # the package may be older than the checkpoint
        report.checks.append(Check(name, None, f"this process cannot run it: {error}"))
        return
    pairs = list(zip(outcome["answers"], ours, strict=True))
    lost = [found for theirs, own in pairs for found in theirs if not any(_is_same(found, other) for other in own)]
    count = sum(len(theirs) for theirs, _ in pairs)
    # fewer than asked for: then all there are
    few = any(len(theirs) < min(len(own), _MAX_ANSWERS) for theirs, own in pairs)
    detail = f"{count} detections in {len(pairs)} files"
    if lost or few:
        detail = (
            f"{len(lost)} of {count} are not among those of this process, such as {lost[:1]}"
            if lost
            else "some are missing"
        )
    report.checks.append(Check(name, not lost and not few, detail))


def _is_same(one: dict, other: dict) -> bool:
    close = all(abs(one[key] - other[key]) <= _SECONDS for key in ("start", "end"))
    return one["label"] == other["label"] and close and abs(one["score"] - other["score"]) <= _SCORE


def _claims(folder: Path, results) -> list[Claim]:
    """From the results given, else from the card."""
    if results is not None:
        return claims_of_results(load_results(results))
    card = folder / "README.md"
    return claims_of_card(card.read_text(encoding="utf-8")) if card.is_file() else []


def _measure(
    report: VerifyReport, task: PublishedTask, folder: Path, videos, claims: list[Claim], dataset_name, split, options
) -> None:
    """Claimed against measured accuracy: the claim stands unless the two intervals exclude each other."""
    name = "recorded accuracy"
    claim = None
    if claims:
        try:
            claim = find_claim(claims, dataset_name, split)
        except LookupError as error:
            report.checks.append(Check(name, False, str(error)))
            return
    outcome = task.measure(folder, videos, split=split, claim=claim, **options)
    wanted = claim.metric if claim else outcome.metrics[0].name if outcome.metrics else None
    found = next((metric for metric in outcome.metrics if metric.name == wanted), None)
    if found is None:
        report.checks.append(
            Check(name, False, f"these videos and this model give no {metric_label(wanted) if wanted else 'accuracy'}")
        )
        return
    low, high = found.interval
    failed = outcome.num_failed
    report.measured = {"metric": found.name, "measured": found.value, "n": found.n, "interval": [low, high]}
    report.measured["failed"] = failed
    measured = f"measured {found.value:.1%} [{low:.1%}, {high:.1%}] (n = {found.n})"
    measured += f", {failed} videos could not be read" if failed else ""
    if claim is None:
        report.checks.append(Check(name, None, f"{measured}; the card claims none"))
        return
    bounds = claim.interval or (claim.value, claim.value)
    report.measured.update(claimed=claim.value, claimed_n=claim.n, claimed_interval=list(bounds))
    ok = bounds[0] <= high and low <= bounds[1]
    count = f" (n = {claim.n})" if claim.n is not None else ""
    on = f"{metric_label(claim.metric)} on {claim.dataset} ({claim.split or 'no split named'})"
    report.checks.append(Check(name, ok, f"claimed {claim.value:.1%}{count}, {measured}: {on}"))
