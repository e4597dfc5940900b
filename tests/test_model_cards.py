"""Every card and every results file in model_cards/ is true, complete and consistent with the other."""

import shutil
from pathlib import Path

import pytest

from hf_effvid.evaluation.distillation_arms import CNN_TEACHER, VIT_TEACHER
from hf_effvid.evaluation.results import Metric, Provenance, ResultEntry, ResultsFile
from hf_effvid.hub.card_check import card_problems, card_rows, split_card
from hf_effvid.hub.model_card import TEMPLATE, template_text


FOLDER = Path(__file__).resolve().parents[1] / "model_cards"
TEMPLATE_COPY = FOLDER / "_template.md"


def cards(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.md") if path.name not in ("README.md", "_template.md"))


def folder_problems(folder: Path) -> list[str]:
    """Everything that is wrong in a folder of cards and results."""
    problems = []
    results = {}
    for path in sorted((folder / "results").glob("[!.]*")):
        if path.suffix != ".json":
            problems.append(f"{path.name}: only results files belong here")
            continue
        results[path.stem] = ResultsFile.load(path).results
        # the teachers of a student stand in its file under their own names
        own = [entry for entry in results[path.stem] if entry.protocol.get("arm") not in (VIT_TEACHER, CNN_TEACHER)]
        wrong = sorted({entry.model for entry in own} - {path.stem})
        if (
            wrong and (folder / f"{path.stem}.md").exists()
        ):  # a file without a card belongs to a study of several models
            problems.append(f"{path.name} holds results of {wrong}")
    for path in cards(folder):
        problems += [
            f"{path.name}: {p}" for p in card_problems(path.read_text(encoding="utf-8"), results.get(path.stem, []))
        ]
    return problems


def test_cards_and_results_agree():
    assert folder_problems(FOLDER) == []


def test_the_template_is_the_one_that_ships():
    assert TEMPLATE_COPY.read_text(encoding="utf-8") == template_text(), (
        f"model_cards/_template.md and src/hf_effvid/hub/{TEMPLATE} differ: copy the latter over the former"
    )


def test_measured_results_name_their_code():
    for path in (FOLDER / "results").glob("*.json"):
        for entry in ResultsFile.load(path).results:
            if not entry.quoted:
                assert entry.provenance.commit, f"{path.name}: {entry.dataset} was measured by unknown code"
                assert entry.provenance.versions.get("torch"), f"{path.name}: {entry.dataset}: no versions"


@pytest.fixture
def example(tmp_path):
    """A folder of the same form with one card, to see that the checks above can fail."""
    from hf_effvid import EffVidVideoProcessor, VideoFocalNetConfig
    from hf_effvid.hub.model_card import render_model_card

    entry = ResultEntry(
        task="video-classification",
        model="tennis",
        dataset="clips",
        split="test",
        metrics=(Metric.proportion("top1", 45, 50),),
        provenance=Provenance("effvid evaluate", commit="abc", date="2026-11-20"),
        protocol={"num_frames": 8, "num_clips": 3, "num_crops": 1},
    )
    folder = tmp_path / "model_cards"
    ResultsFile([entry]).save(folder / "results" / "tennis.json")
    text = render_model_card(
        VideoFocalNetConfig(num_labels=2), EffVidVideoProcessor(), repo_id="org/tennis", results=[entry]
    )
    (folder / "tennis.md").write_text(text, encoding="utf-8")
    shutil.copy(TEMPLATE_COPY, folder)
    return folder


def edit(path: Path, old: str, new: str):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_a_good_folder_passes(example):
    assert folder_problems(example) == []
    data, body = split_card((example / "tennis.md").read_text(encoding="utf-8"))
    assert data["license"] == "unknown" and len(card_rows(body)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: edit(f / "tennis.md", "90.0%", "92.0%"), "not in the results file"),
        (lambda f: edit(f / "tennis.md", "value: 0.9\n", "value: 0.92\n"), "claims"),
        (lambda f: edit(f / "results/tennis.json", '"value": 0.9', '"value": 0.8'), "lacks the result"),
        (lambda f: (f / "results/tennis.json").unlink(), "not in the results file"),
        (lambda f: edit(f / "results/tennis.json", '"model": "tennis"', '"model": "golf"'), "results of"),
        (lambda f: edit(f / "tennis.md", "not recorded", "TODO"), "placeholder"),
        (lambda f: edit(f / "tennis.md", "import torch", "import torch ="), "does not compile"),
        (lambda f: edit(f / "tennis.md", "pipeline_tag: video-classification\n", ""), "pipeline_tag"),
        (lambda f: (f / "results" / "notes.txt").write_text("x"), "only results files"),
    ],
)
def test_the_checks_find_what_is_wrong(example, change, message):
    change(example)
    problems = folder_problems(example)
    assert any(message in problem for problem in problems), problems
