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

from ..evaluation.classification import evaluate_classifier
from ..host_loading import CheckpointNotFound, why_not_found
from ..host_processing import clip_shape
from .card_check import card_problems
from .claims import Claim, claims_of_card, claims_of_results, find_claim
from .probe_clips import write_probe_clips
from .reference import ReferenceLogits, reference_logits, reference_path, reference_pixels
from .result_table import metric_label
from .stage_files import StageError, list_staged_files
from .staging import load_results


# float32 on two machines, or with two thread counts, differs in the last digits; wrong weights differ in the first
_RELATIVE_TOLERANCE = 1e-4


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
        measured: claimed and measured accuracy, when videos were given: `metric` (`"top1"` or `"mAP"`), `measured`, `n`,
            `interval`, `failed`, and `claimed`, `claimed_n`, `claimed_interval` where there is a claim.
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
    saves everything again. Its logits are compared with the original's. The card is read, and with `videos` the accuracy
    it claims is measured anew. For a folder nothing is fetched from the network.

    The code that a checkpoint ships is *executed*, in a process without any isolation: verify only what you would load.

    Args:
        folder_or_repo: the checkpoint.
        videos: rows with a video and a label (see `evaluate_classifier`) to re-check the recorded accuracy on.
        reference_logits: what the original answered, or a file of it; default: what staging left beside the folder, else
            the answer of this process, with the package.
        results: results the card must agree with: `ResultsFile`, path or list. Without them the accuracy that the card
            itself claims is the one to check.
        revision: branch, tag or commit of a Hub repository.
        trust_remote_code: let the new interpreter run the checkpoint's code; without it only checkpoints of stock
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
    expected = _expected_logits(report, folder, reference_logits)
    with tempfile.TemporaryDirectory(prefix="effvid-verify-") as work:
        answer = _ask_fresh_process(
            folder if is_local else source,
            None if is_local else revision,
            expected,
            Path(work),
            trust_remote_code,
            timeout,
        )
    _record_steps(report, answer, code={path.name for path in folder.glob("*.py")})
    _compare_logits(report, answer, expected)
    if videos is not None:
        options = {"max_videos": max_videos, "batch_size": batch_size, "progress": progress}
        options["trust_remote_code"] = trust_remote_code
        claims = _claims(folder, results)
        _measure(report, folder, _spread(videos, max_videos), claims, dataset_name, split, options)
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
    return reference_logits(model, (1, *clip_shape(model.config, processor)))


def _ask_fresh_process(source, revision, expected, work: Path, trust_remote_code: bool, timeout: float) -> dict:
    """Runs `fresh_process.py` in a new interpreter and returns its answer."""
    from safetensors.torch import save_file

    is_adapter = isinstance(source, Path) and (source / "adapter_config.json").is_file()
    steps = ["package_is_absent", "load", "processor", "pipeline", "resave"]
    if not is_adapter:  # an adapter belongs to the head's class, the base class alone cannot take it
        steps.append("load_base")
    if expected is not None:
        steps.append("logits")
        save_file({"pixel_values": reference_pixels(expected.shape, expected.seed)}, work / "pixels.safetensors")
    request = {
        "source": str(Path(source).resolve()) if isinstance(source, Path) else source,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "steps": steps,
        "pixels": str(work / "pixels.safetensors"),
        "clips": [str(path) for path in write_probe_clips(work)],
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


def _record_steps(report: VerifyReport, answer: dict, code: set[str]) -> None:
    names = {
        "package_is_absent": "fresh interpreter without hf_effvid",
        "load": "AutoModelForVideoClassification",
        "load_base": "AutoModel",
        "processor": "AutoVideoProcessor",
        "pipeline": 'pipeline("video-classification")',
        "resave": "saved again",
    }
    for step, name in names.items():
        outcome = answer["steps"].get(step)
        if outcome is None:  # not every step makes sense for an adapter
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
    if step == "processor":
        return f"{outcome['class']}, {'x'.join(map(str, outcome['shape']))}"
    if step == "pipeline":
        best = outcome["answers"][0][0]
        return f"{len(outcome['answers'])} clips, the first is {best['label']!r} ({best['score']:.2f})"
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
                "logits equal the original's", False, f"{len(found[0])} classes instead of {len(expected.logits[0])}"
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


def _claims(folder: Path, results) -> list[Claim]:
    """From the results given, else from the card."""
    if results is not None:
        return claims_of_results(load_results(results))
    card = folder / "README.md"
    return claims_of_card(card.read_text(encoding="utf-8")) if card.is_file() else []


def _measure(report: VerifyReport, folder: Path, videos, claims: list[Claim], dataset_name, split, options) -> None:
    """Claimed against measured accuracy: the claim stands unless the two intervals exclude each other."""
    name = "recorded accuracy"
    claim = None
    if claims:
        try:
            claim = find_claim(claims, dataset_name, split)
        except LookupError as error:
            report.checks.append(Check(name, False, str(error)))
            return
        # the views of the claim, which may differ from the recipe's
        views = {"num_clips": claim.num_clips, "num_crops": claim.num_crops}
        options = {**options, **{key: count for key, count in views.items() if count is not None}}
    outcome = evaluate_classifier(str(folder), videos, **options)
    found = outcome.metric(claim.metric) if claim else next(iter(outcome.metrics), None)
    if found is None:
        wanted = metric_label(claim.metric) if claim else "accuracy"
        report.checks.append(Check(name, False, f"these videos and this model give no {wanted}"))
        return
    low, high = found.interval
    failed = len(outcome.failures)
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


def _spread(videos, limit: int | None):
    """So many videos, spread evenly: data sets are sorted by class, and the first ones would all be of one.

    Streams cannot be indexed; of them the first ones are taken.
    """
    if limit is None or not hasattr(videos, "__len__") or len(videos) <= limit:
        return videos
    indices = [(2 * number + 1) * len(videos) // (2 * limit) for number in range(limit)]
    return videos.select(indices) if hasattr(videos, "select") else [videos[index] for index in indices]
