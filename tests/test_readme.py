"""What README.md and docs/ show is true: commands and options exist, links lead somewhere, blocks run, tables are those of the results files."""

import ast
import importlib.util
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import typer

import hf_effvid
from hf_effvid.cli import app
from hf_effvid.evaluation.results import Cost, Metric, Provenance, ResultEntry, ResultsFile
from hf_effvid.training.recipe import load_recipe


ROOT = Path(__file__).resolve().parents[1]


def script(path):
    """A script outside the package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fill_readme = script(ROOT / "model_cards" / "fill_readme.py")
quickstart = script(ROOT / "examples" / "quickstart.py")

# pages whose blocks run, and the others, whose commands and links are checked all the same
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
TEXTS = sorted([*PAGES, ROOT / "CONTRIBUTING.md", *ROOT.glob("[a-z]*/README.md")])
COMPILED_ONLY = {
    "parity.md": "converts the authors' checkpoint, 200 MB which we may not pass on; tests/convert converts small ones",
    "image_initialisation.md": "starts from microsoft/focalnet-tiny on the Hub; tests/convert starts from random image models",
    "export.md": "needs an exported folder; tests/export/test_docs_example.py runs both blocks in one",
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def code_lines(text):
    """Lines of fenced or indented code that is not Python."""
    text = fill_readme.PYTHON_BLOCK.sub("", text)
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    indented = "\n".join(re.findall(r"^ {4,}(\S.*)$", outside, re.MULTILINE))
    lines = "\n".join([*fenced, indented]).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&")]


def inline_code(text):
    """Code between backticks in running text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(lines, program):
    """Argument lists of the lines that start with `program`."""
    return [shlex.split(line, comments=True)[1:] for line in lines if line.split()[:1] == [program]]


def effvid_problem(arguments, whole=True):
    """What is wrong with this command line, None when nothing is. Running text may name a command or an option alone."""
    group = typer.main.get_command(app)
    if not whole:
        path = [group]
        for word in arguments:
            found = getattr(path[-1], "commands", {}).get(word)
            path += [found] if found else []
        known = {name for one in path for p in one.params for name in p.opts}
        unknown = {a for a in arguments if a.startswith("--")} - known - {"--help"}
        return f"no such {unknown}" if unknown or not (path[1:] or arguments[0] in known) else None
    try:  # typer brings its own click or uses the installed one: its errors have one method in common
        context, rest = group.make_context("effvid", list(arguments)), list(arguments)
        while hasattr(group, "commands") and rest and not rest[0].startswith("-"):
            name, group, rest = group.resolve_command(context, rest)
            context = group.make_context(name, list(rest), parent=context)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return error.format_message()
    return None


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_effvid_commands_are_real(path):
    text = path.read_text(encoding="utf-8")
    found = [(arguments, effvid_problem(arguments)) for arguments in commands(code_lines(text), "effvid")]
    named = [arguments for arguments in commands(inline_code(text), "effvid") if arguments]
    found += [(arguments, effvid_problem(arguments, whole=False)) for arguments in named]
    assert [(shlex.join(arguments), problem) for arguments, problem in found if problem] == []


def test_commands_of_the_readme_are_found():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    found = {arguments[0] for arguments in commands(code_lines(page), "effvid")}
    assert {"check", "train", "evaluate", "predict", "stage", "verify", "push"} <= found


@pytest.mark.parametrize(
    ("line", "whole", "problem"),
    [
        ("effvid trian x", True, "trian"),
        ("effvid train x -o y --no-such-option", True, "--no-such-option"),
        ("effvid predict x.mp4  # without a model", True, "--model"),
        ("effvid train x -o y --epochs many", True, "--epochs"),
        ("effvid verify --no-such-option", False, "--no-such-option"),
        ("effvid select stduy -m model -d data", True, "stduy"),
        ("effvid select study -m model -d data --no-such-option", True, "--no-such-option"),
        ("effvid select study --no-such-option", False, "--no-such-option"),
        ("effvid trian", False, "no such"),
        ("effvid train x -o y --epochs 3 --set training.seed=1", True, None),
        ("effvid --version", True, None),
        ("effvid verify --results", False, None),
    ],
)
def test_wrong_commands_are_noticed(line, whole, problem):
    (arguments,) = commands(code_lines(f"    {line}\n"), "effvid")
    found = effvid_problem(arguments, whole)
    assert found is None if problem is None else problem in found


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_make_targets_exist(path):
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    assert "quickstart" in targets
    assert {a[0] for a in commands([*code_lines(text), *inline_code(text)], "make") if a} <= targets


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_and_images_resolve(path):
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    relative = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:", target)]
    missing = sorted({target for target in relative if target and not (path.parent / target).exists()})
    assert not missing, f"{name_of(path)} links to {missing}"


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_paths_that_are_named_exist(path):
    """Also in running text: `tests/test_x.py`, `python -m tests.parity.report`. `*` stands for anything.

    Names with a placeholder, `<name>` or `NAME`, and the arguments of `effvid` are the reader's own files.
    """
    text = re.sub(r"^ *effvid .*$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    folders = "src|tests|examples|docs|model_cards|upload_scripts"
    named = set(re.findall(rf"(?<![\w/.-])((?:{folders})/[\w./*<>-]*[\w/>])", text))
    named |= {module.replace(".", "/") + ".py" for module in re.findall(r"python -m (tests[.\w]+)", text)}
    named = {name for name in named if not re.search(r"<|NAME", name)}
    missing = [name for name in named if not list(ROOT.glob(name.rstrip("/")))]
    assert not missing, f"{name_of(path)} names {missing}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_blocks_compile_and_import_what_exists(path):
    for block in fill_readme.python_blocks(path.read_text(encoding="utf-8")):
        tree = ast.parse(block.code, filename=f"{path.name}, block at line {block.line}")
        imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        exec(compile(ast.Module(imports, []), path.name, "exec"), {})


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_tables_are_those_of_the_results_files(path):
    page = path.read_text(encoding="utf-8")
    assert page == fill_readme.with_tables(page), (
        f"{path.name} states other numbers: python model_cards/fill_readme.py --tables"
    )


def result(model, right, n, *, variant="", seed=None, name="top1", gmacs=None):
    metric = (
        Metric.proportion(name, right, n) if name == "top1" else Metric(name, right, n, (-0.02, 0.08), "bootstrap")
    )
    return ResultEntry(
        task="video-classification",
        model=model,
        dataset="clips",
        split="test",
        metrics=(metric,),
        variant=variant,
        provenance=Provenance("effvid evaluate", seed=seed, date="2026-11-20"),
        cost=Cost(gmacs=gmacs, parameters=1_250_000 if gmacs else None),
    )


def test_tables_of_known_numbers(tmp_path):
    runs = [
        result("small", right, 50, variant="from scratch", seed=s, gmacs=0.5) for s, right in enumerate((40, 42, 38))
    ]
    others = [
        result("small", 20, 50, variant="frames shuffled", seed=0),
        result("small", 0.03, 50, variant="in order against shuffled", name=fill_readme.DIFFERENCE),
        result("baseline: chance", 10, 50),
    ]
    ResultsFile(runs + others).save(tmp_path / "real.json")
    page = "<!-- models: begin -->\nold\n<!-- models: end -->\n\n<!-- results: begin -->\n<!-- results: end -->\n"
    filled = fill_readme.with_tables(page, tmp_path)
    models, results = filled.split("<!-- models: end -->")
    assert "| small | video classification | clips (test) | 80.0% [67.0%, 88.8%] | 50 | 0.5 | 1.25 M |" in models
    assert "old" not in models and "baseline" not in models and "shuffled" not in models
    rows = [line for line in results.splitlines() if line.startswith("| clips")]
    assert rows == [
        "| clips (test) | baseline: chance | 20.0% | [11.2%, 33.0%] | 50 | one run |",
        "| clips (test) | small, from scratch | 80.0% | [67.0%, 88.8%] | 50 | 80.0%, 84.0%, 76.0% |",
        "| clips (test) | small, frames shuffled | 40.0% | [27.6%, 53.8%] | 50 | one run |",
        "| clips (test) | small: in order against shuffled | +3.0 points | [-2.0, +8.0] | 50 |",
    ]
    assert fill_readme.with_tables(filled, tmp_path) == filled


def test_tables_of_one_file_and_of_others(tmp_path):
    quoted = replace(result("theirs", 0, 1), quoted=True, metrics=(Metric("top1", 0.836),), protocol={"num_clips": 4})
    timed = Cost(latency_ms=20.0, batch_size=1, hardware="a machine", dtype="float32", decode_included=False)
    ResultsFile([quoted, result("ours", 30, 50)]).save(tmp_path / "study.json")
    ResultsFile([replace(result("ours", 1, 2), metrics=(), cost=timed)]).save(tmp_path / "bench.json")

    def section(name):
        return fill_readme.with_tables(f"<!-- {name}: begin --><!-- {name}: end -->", tmp_path)

    assert "| theirs | clips (test) | 83.6% | ? x 4 x ? | effvid evaluate |" in section("quoted")
    assert "ours" not in section("quoted") and "ours" not in section("results")
    assert "| ours | 60.0%" in section("results of study")
    assert "| ours | float32 | 1 | 20 |" in section("speed of bench")
    with pytest.raises(fill_readme.PageError, match=r"no nothing\.json"):
        section("speed of nothing")


def test_the_table_of_explanations_states_the_paired_difference(tmp_path):
    areas = {"insertion_auc": 0.4, "deletion_auc": 0.31, "insertion_minus_deletion_auc": 0.09}
    metrics = [Metric(name, value, 20, (value - 0.1, value + 0.1), "bootstrap") for name, value in areas.items()]
    ahead = Metric("insertion_minus_deletion_auc minus random", 0.052, 20, (0.01, 0.1), "bootstrap")
    made = {"task": "video-explanation", "model": "small", "dataset": "clips", "split": "test"}
    provenance = Provenance("score_explanations.py", date="2026-11-20")
    entries = [
        ResultEntry(
            **made, metrics=(*metrics, ahead), variant="spatial modulator, hidden cells: still", provenance=provenance
        ),
        ResultEntry(**made, metrics=tuple(metrics), variant="random, hidden cells: still", provenance=provenance),
    ]
    ResultsFile(entries).save(tmp_path / "scores.json")
    page = "<!-- explanations of scores: begin -->\n<!-- explanations of scores: end -->\n"
    lines = fill_readme.with_tables(page, tmp_path).splitlines()
    assert lines[4] == (
        "| clips (test) | spatial modulator, hidden cells: still | 0.400 [0.300, 0.500] | 0.310 [0.210, 0.410] | "
        "0.090 [-0.010, 0.190] | +0.052 [+0.010, +0.100] | 20 |"
    )
    assert lines[5].endswith("| - | 20 |")


def test_the_table_of_detectors_puts_seeds_in_a_row(tmp_path):
    made = {"task": "temporal-action-detection", "dataset": "streams", "split": "test"}

    def entry(model, variant, value, seed=None, ahead=None):
        metrics = [Metric("average_mAP", value, 12, (value - 0.05, value + 0.05), "bootstrap")]
        metrics += [Metric(f"mAP@{tiou}", value, 12) for tiou in (0.3, 0.4, 0.5, 0.6, 0.7)]
        if ahead is not None:
            metrics.append(Metric("average_mAP minus uniform segments", ahead, 12, (ahead - 0.1, ahead), "bootstrap"))
        provenance = Provenance("real_detection.py", seed=seed, date="2026-11-20")
        return ResultEntry(**made, model=model, variant=variant, metrics=tuple(metrics), provenance=provenance)

    entries = [entry("baseline: uniform segments", "mean of 10 draws", 0.1)]
    entries += [entry("detector", "features", value, seed) for seed, value in enumerate((0.3, 0.4))]
    entries += [entry("detector", "features, mean of 2 seeds", 0.35, ahead=0.25)]
    ResultsFile(entries).save(tmp_path / "d.json")
    lines = fill_readme.with_tables("<!-- detections of d: begin --><!-- detections of d: end -->", tmp_path)
    assert "minus uniform segments | videos |" in lines
    assert (
        "| detector, features, mean of 2 seeds | 35.0 [30.0, 40.0] | 30.0, 40.0 | 35.0 | 35.0 | 35.0 | +25.0 [+15.0, +25.0] | 12 |"
        in lines
    )
    assert "| baseline: uniform segments, mean of 10 draws | 10.0 [5.0, 15.0] | - |" in lines
    assert lines.count("| detector, ") == 1, "single seeds have no row of their own"


def test_the_table_of_a_selection_study_marks_what_is_shown(tmp_path):
    def arm(variant, right, ahead=None):
        metrics = [Metric.proportion("top1", right, 50)]
        if ahead:
            metrics.append(Metric("top1 minus random", sum(ahead) / 2, 50, ahead, "bootstrap"))
        return ResultEntry(
            "token-selection",
            "tiny",
            "clips",
            "test",
            tuple(metrics),
            Provenance("effvid", date="2026-11-20"),
            variant=variant,
        )

    entries = [
        arm("all tokens", 40),
        arm("random, keep 0.5", 30),
        arm("lite, keep 0.5", 38, (0.1, 0.2)),
        arm("random, keep 0.2", 20),
        arm("lite, keep 0.2", 15, (-0.2, -0.05)),
        ResultEntry("token-selection", "tiny", "clips", "test", (Metric("gini", 0.7, 50),), Provenance("effvid", date="2026-11-20"), variant="values of tokens"),
    ]  # fmt: skip
    ResultsFile(entries).save(tmp_path / "study.json")
    lines = fill_readme.with_tables(
        "<!-- selection of study: begin -->\n<!-- selection of study: end -->\n", tmp_path
    ).splitlines()
    assert lines[2] == "tiny on clips (test), n = 50, all tokens: top-1 80.0% [67.0%, 88.8%]."
    assert lines[4] == "| arm | P = 0.5 | P = 0.2 |"
    assert lines[6:8] == ["| random | 60.0 | 40.0 |", "| lite | 76.0 ↑ | 30.0 ↓ |"]


def test_the_table_of_budgets_states_cost_and_differences(tmp_path):
    metrics = (
        Metric.proportion("top1", 40, 50),
        Metric("share on the small budget", 0.5, 50),
        Metric("difference_to_base", -0.02, 50, (-0.05, 0.01), "bootstrap"),
        Metric("difference_to_random", 0.04, 50, (0.01, 0.08), "bootstrap"),
    )
    made = {"task": "token-selection", "model": "tiny", "dataset": "clips", "split": "test"}
    provenance = Provenance("effvid", date="2026-11-20")
    adaptive = ResultEntry(
        **made,
        metrics=metrics,
        variant="LITE++ (probe, keep 0.3 or 0.5)",
        provenance=provenance,
        cost=Cost(gmacs=1.234),
    )
    other = ResultEntry(**made, metrics=metrics[:1], variant="LITE, keep ratio of equal cost", provenance=provenance)
    ResultsFile([adaptive, other]).save(tmp_path / "study.json")
    page = "<!-- budgets of study: begin -->\n<!-- budgets of study: end -->\n"
    lines = fill_readme.with_tables(page, tmp_path).splitlines()
    assert lines[4] == (
        "| LITE++ (probe, keep 0.3 or 0.5) | 50% | 1.23 | 80.0% [67.0%, 88.8%] | -2.0 [-5.0, +1.0] | - | +4.0 [+1.0, +8.0] | 50 |"
    )
    assert lines[5] == ""


def test_outputs_are_written_behind_their_blocks_and_once(tmp_path, capsys):
    page = tmp_path / "page.md"
    marks = "<!-- output: begin -->\n<!-- output: end -->"
    page.write_text(
        f"```python\nx = 2\nprint(x)\n```\n{marks}\n\n```python\ny = x + 1\n```\n\n```python\nprint(y)\n```\n{marks}\n"
        "<!-- models: begin -->\n<!-- models: end -->\n<!-- results: begin -->\n<!-- results: end -->\n"
    )
    (tmp_path / "none").mkdir()
    arguments = ["--page", str(page), "--results", str(tmp_path / "none")]
    assert fill_readme.main([*arguments, "--check"]) == 1
    assert fill_readme.main(arguments) == 0
    assert re.findall(r"```text\n(.*?)\n```", page.read_text()) == ["2", "3"]
    assert fill_readme.main([*arguments, "--check"]) == 0, capsys.readouterr().err
    with pytest.raises(fill_readme.PageError, match="line 2"):
        fill_readme.run_blocks(fill_readme.python_blocks("```python\n1 / 0\n```\n"), "page.md")


@pytest.fixture(scope="module")
def after_quickstart(tmp_path_factory):
    """A folder as `make quickstart` leaves it, with fewer clips and without the training."""
    folder = tmp_path_factory.mktemp("readme")
    data = hf_effvid.make_motion_dataset(
        folder / "quickstart_work" / "motion",
        quickstart.SMOKE_CLIPS_PER_CLASS,
        num_frames=20,
        classes=quickstart.CLASSES,
        progress=False,
    )
    recipe = load_recipe(quickstart.RECIPE)
    config = recipe.build_model_source()
    config.id2label = dict(enumerate(sorted(quickstart.CLASSES)))
    config.label2id = {name: index for index, name in config.id2label.items()}
    hf_effvid.VideoFocalNetForVideoClassification(config).save_pretrained(folder / "model")
    hf_effvid.stage_checkpoint(
        folder / "model",
        folder / "quickstart_work" / "staged" / "video-focalnet-motion-quickstart",
        processor=recipe.build_processor(),
        card=quickstart.CARD,
    )
    (folder / "examples").symlink_to(ROOT / "examples")
    for page in PAGES:
        shutil.copy(page, folder)  # README.md is also the file that is no video
    for name in ("clip.mp4", "clip.webm", "two_hours.mkv"):  # the reader goes by content, and the name says nothing
        shutil.copy(data / "test" / "grows" / "grows_00000.mp4", folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_blocks_run(path, after_quickstart, monkeypatch):
    if path.name in COMPILED_ONLY:
        pytest.skip(COMPILED_ONLY[path.name])
    monkeypatch.chdir(after_quickstart)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    page = path.read_text(encoding="utf-8")
    printed = fill_readme.run_blocks(fill_readme.python_blocks(page), path.name)
    assert fill_readme.with_outputs(page, printed).count("```text\n") >= page.count("<!-- output: begin -->")
