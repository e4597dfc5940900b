"""The card of a model that lost blocks: which, what each cost and gave, whose weights these are and what licence they carry."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import drop_blocks
from hf_effvid.evaluation.results import ResultsError, ResultsFile
from hf_effvid.hub.card_check import card_problems, split_card
from hf_effvid.hub.card_info import CardError, CardInfo
from hf_effvid.hub.compression_results import step_entries, step_rows, steps_table
from hf_effvid.hub.compression_section import PICTURE, base_name, compression_section, with_base
from hf_effvid.hub.model_card import render_model_card
from hf_effvid.hub.selection_results import own_results
from hf_effvid.hub.stage_files import StageError, list_staged_files
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint
from hf_effvid.training.block_drop_measuring import Measured
from hf_effvid.training.block_drop_outcome import CompressionOutcome, CompressionStep

from .tiny_checkpoint import tiny_processor
from .tiny_detector import DETECTORS


TINY = VideoMAEConfig(
    image_size=32, patch_size=16, num_frames=4, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, num_labels=3
)  # fmt: skip
SETTINGS = {
    "order": "progressive",
    "criterion": "metric",
    "recovery": True,
    "tuning": "lora",
    "align": None,
    "teacher": None,
    "blocks": None,
}


def measured(value, difference=None):
    ends = None if difference is None else (difference - 0.01, difference + 0.01)
    return Measured("top1", value, 160, (value - 0.02, value + 0.02), "wilson 95%", 0.3, difference, ends)


def outcome(source="org/twelve", **changes):
    """What a run that dropped block 2 and then block 0 of four left behind."""
    steps = (
        CompressionStep(0, "start", (), (0, 1, 2, 3), measured(0.95), parameters=4000, gmacs=0.4, milliseconds=8.0),
        CompressionStep(1, "drop", (2,), (0, 1, 3), measured(0.945, -0.005), measured(0.9, -0.05), {2: 0.9, 0: 0.8}, 0.95, 3100, 0.3, 6.1, 1.31, (1.25, 1.36)),
        CompressionStep(2, "drop", (0,), (1, 3), measured(0.9, -0.05), measured(0.5, -0.45), {0: 0.5}, 0.945, 2200, 0.2, 4.2, 1.9, (1.8, 2.0)),
    )  # fmt: skip
    provenance = {
        "command": "effvid compress org/twelve --drop 2",
        "commit": "0" * 40,
        "date": "2026-11-20",
        "hardware": "a machine",
    }
    made = CompressionOutcome(
        folder="run", model_type="videomae", source=source, weights="0" * 64, depth=4, settings=SETTINGS, training={},
        data={"name": "generated motions", "held_out": 160}, metric="top1", steps=steps, final=2, stopped="two blocks are gone", provenance=provenance,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.fixture
def run(tmp_path):
    """A model without blocks 0 and 2, none of its biases zero, with the record of its compression beside it."""
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(deepcopy(TINY)).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    drop_blocks(model, [0, 2])
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    tiny_processor(num_clips=1, num_crops=1).save_pretrained(folder)
    outcome().save(folder)
    return folder


def test_the_section_says_what_is_gone_and_what_each_drop_bought():
    text = compression_section(outcome(), TINY)
    assert "2 of the 4 blocks of `org/twelve` are gone: 2, 0, in this order" in text and "Left are 1, 3 " in text
    assert "one at a time the block that matters least, judged by what the model is worth without it" in text
    assert (
        "adapters (LoRA, merged), norms and patch embedding were trained, held to the outputs of the uncompressed model"
        in text
    )
    assert "| 1 | 2 | 94.5" in text and "| 90.0 | -0.5 [-1.5, +0.5] |" in text and "1.31 [1.25, 1.36] |" in text
    assert "160 held-out videos of the data set generated motions, never on its test split" in text
    assert f"]({PICTURE})" in text and "ordinary `videomae`: the class of transformers opens it" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"order": "at_once"}, "Dropped were the blocks that matter least, together, judged by"),
        ({"order": "random"}, "They were drawn at random. After each drop"),
        ({"blocks": [2, 0]}, "They were named by hand"),
        ({"recovery": False}, "Nothing was trained afterwards."),
        ({"tuning": "full"}, "all weights were trained, held"),
        ({"align": []}, "were trained. |were trained."),
        ({"teacher": "dynamic"}, "held to the outputs of the model before each drop"),
        ({"criterion": "discrepancy"}, "how much its output differs from its input"),
    ],
)
def test_the_section_tells_other_ways_apart(changes, said):
    text = compression_section(outcome(settings=SETTINGS | changes), TINY)
    assert any(part in text for part in said.split("|"))


def test_text_of_strangers_stays_text():
    text = compression_section(outcome(data={"name": "<b>clips</b>\n# Owned | x"}, source="`code` | x"), TINY)
    assert "<b>" not in text and "\n# Owned" not in text and "`code`" not in text


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("org/model", "org/model"),
        ("/home/me/run-3/model", "run-3/model"),
        ("/home/me/twelve", "twelve"),
        ("a/b/c", "c"),
    ],
)
def test_paths_of_the_publisher_are_not_told(source, name):
    assert base_name(source) == name


def test_steps_are_results_of_their_own_and_come_back_as_a_table(tmp_path):
    entries = step_entries(outcome(), "nine")
    assert [entry.variant for entry in entries] == ["step 0: none", "step 1: 2", "step 2: 0"]
    again = ResultsFile.load(ResultsFile(entries).save(tmp_path / "nine.json")).results
    assert step_rows(again) == (outcome().rows(), "top1") and steps_table(again) == outcome().table()
    assert own_results(again) == [] and steps_table([]) == ""
    sparse = replace(outcome().steps[-1], kind="relu", activation_sparsity={"before": 0.0, "after": 0.6})
    entry = step_entries(outcome(steps=(*outcome().steps, sparse)), "nine")[-1]
    assert (entry.metric("activation sparsity before").value, entry.metric("activation sparsity after").value) == (
        0.0,
        0.6,
    )
    with pytest.raises(ResultsError):
        step_entries(outcome(provenance={"command": ""}), "nine")


def base_card(folder, **fields):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(f"{name}: {value}" for name, value in fields.items())
    (folder / "README.md").write_text(f"---\n{lines}\n---\n# Base\n")
    return str(folder)


def test_the_licence_of_the_uncompressed_model_is_carried_over(tmp_path):
    base = base_card(tmp_path / "base", license="cc-by-nc-4.0")
    assert with_base(CardInfo(), outcome(base)).license == "cc-by-nc-4.0"
    with pytest.raises(CardError, match=r"'apache-2.0'.*'cc-by-nc-4.0'"):
        with_base(CardInfo(license="apache-2.0"), outcome(base))
    other = base_card(
        tmp_path / "other", license="other", license_name="mine", license_link="https://example.org/mine"
    )
    found = with_base(CardInfo(), outcome(other))
    assert (found.license, found.license_name, found.license_link) == ("other", "mine", "https://example.org/mine")
    assert with_base(CardInfo(license="cc-by-nc-4.0"), outcome(base)).license == "cc-by-nc-4.0"
    assert with_base(CardInfo(), outcome(str(tmp_path / "none"))).license == "unknown"


def test_the_base_model_is_named_where_others_find_it(tmp_path):
    found = with_base(CardInfo(), outcome("org/twelve"))
    assert (found.base_model, found.base_model_relation) == ("org/twelve", "finetune")
    assert with_base(CardInfo(), outcome(str(tmp_path))).base_model is None
    assert with_base(CardInfo(base_model="me/mine"), outcome(str(tmp_path))).base_model_relation == "finetune"


def test_staging_writes_card_record_and_picture_and_it_can_be_staged_again(run, tmp_path):
    staged = stage_checkpoint(run, tmp_path / "nine", card={"license": "apache-2.0"})
    names = {path.name for path in staged.iterdir()}
    assert {"compression.json", PICTURE} <= names and not {"compression.md", "block_drop.svg"} & names
    card = (staged / "README.md").read_text()
    assert "## Blocks left out" in card and card_problems(card, []) == []
    front, _ = split_card(card)
    assert (front["base_model"], front["base_model_relation"], front["license"]) == (
        "org/twelve",
        "finetune",
        "apache-2.0",
    )
    assert "effvid compress org/twelve --drop 2\n" in card and f"Commit: `{'0' * 40}`" in card
    assert CompressionOutcome.load(staged).final_step == outcome().final_step
    again = stage_checkpoint(staged, tmp_path / "again", card={"license": "apache-2.0"})
    assert (again / "README.md").read_text() == card.replace('"nine"', '"again"').replace("# nine", "# again")


def test_nothing_dropped_is_no_compression(run, tmp_path):
    outcome(final=0).save(run)
    staged = stage_checkpoint(run, tmp_path / "all", reference=False)
    assert "compression.json" not in {path.name for path in staged.iterdir()}
    assert "Blocks left out" not in (staged / "README.md").read_text()


def test_a_picture_that_the_card_does_not_show_is_refused(run, tmp_path):
    staged = stage_checkpoint(run, tmp_path / "nine", reference=False)
    (staged / "README.md").write_text((staged / "README.md").read_text().replace(PICTURE, "other.png"))
    with pytest.raises(StageError, match="block_drop.png: the card does not show it"):
        list_staged_files(staged)


def test_the_card_needs_no_results():
    text = render_model_card(TINY, tiny_processor(), repo_id="org/nine", compression=outcome())
    assert "chen2025blockdrop" in text and "tong2022videomae" in text
    assert card_problems(text.replace("](block_drop.png)", "](x)"), []) == []


@pytest.mark.slow
def test_the_staged_model_is_verified_without_the_package(run, tmp_path):
    report = verify_checkpoint(stage_checkpoint(run, tmp_path / "nine"))
    assert report.ok and all(check.ok for check in report.checks), report.to_text()


# name of a detector -> (part that loses a block, how the card calls the blocks)
PARTS = {"pixels": ("backbone", "blocks of its trunk of"), "features": ("detector", "blocks of")}


@pytest.mark.parametrize("name", [pytest.param("pixels", marks=pytest.mark.slow), "features"])
def test_a_detector_that_lost_a_block_is_staged(name, tmp_path):
    part, called = PARTS[name]
    model, processor = DETECTORS[name]()
    drop_blocks(model, [1], part=part)
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    outcome(model_type="actionformer", settings=SETTINGS | {"part": part}).save(folder)
    staged = stage_checkpoint(folder, tmp_path / "fewer", card={"license": "apache-2.0"}, reference=name == "pixels")
    card = (staged / "README.md").read_text()
    assert f"2 of the 4 {called} `org/twelve` are gone" in card and card_problems(card, []) == []
    assert "ordinary `actionformer`, with fewer blocks" in card and "chen2025blockdrop" in card
    if name == "pixels":
        report = verify_checkpoint(staged)
        assert report.ok and all(check.ok for check in report.checks), report.to_text()
