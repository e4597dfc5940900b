"""The VideoMAE with twelve blocks in examples/checkpoints and the one with nine: they are what their cards say, and their recipe runs."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import VideoMAEForVideoClassification

import hf_effvid
from hf_effvid.compression import BlockSkip
from hf_effvid.data.synthetic import ALL_MOTION_CLASSES, make_motion_dataset
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.hub.compression_results import step_rows
from hf_effvid.hub.staging import stage_checkpoint
from hf_effvid.hub.verify import verify_checkpoint

from .test_examples import EXAMPLES, run


CHECKPOINTS = {depth: EXAMPLES / "checkpoints" / f"videomae-motion-{depth}" for depth in (12, 9)}
RESULTS = EXAMPLES.parent / "model_cards" / "results"
CLASSES = tuple(name for name in ALL_MOTION_CLASSES if not name.startswith("turns"))
DEPTHS = pytest.mark.parametrize("depth", CHECKPOINTS)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of another seed than those that the models learned from."""
    folder = tmp_path_factory.mktemp("clips")
    make_motion_dataset(folder, {"test": 6}, seed=77, classes=CLASSES, progress=False)
    return hf_effvid.load_video_dataset(str(folder), split="test")


@DEPTHS
def test_the_folder_is_small_and_holds_no_code(depth):
    files = {path.name: path.stat().st_size for path in CHECKPOINTS[depth].iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "video_preprocessor_config.json", "preprocessor_config.json"}  # fmt: skip
    assert files["model.safetensors"] < 2_000_000
    assert "auto_map" not in json.loads((CHECKPOINTS[depth] / "config.json").read_text())


@DEPTHS
def test_it_is_a_videomae_of_transformers_without_a_silent_bias(depth):
    model, info = VideoMAEForVideoClassification.from_pretrained(CHECKPOINTS[depth], output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.config.num_hidden_layers == depth
    biases = [tensor for name, tensor in load_file(CHECKPOINTS[depth] / "model.safetensors").items() if "bias" in name]
    assert biases and all(tensor.any() for tensor in biases), "biases that are zero would hide mistakes in loading"


def test_the_smaller_one_knows_which_blocks_it_has():
    kept = VideoMAEForVideoClassification.from_pretrained(CHECKPOINTS[9]).config.kept_blocks
    rows, metric = step_rows(ResultsFile.load(RESULTS / "videomae-motion-9.json").results)
    gone = {int(row.name) for row in rows[1:]}
    assert metric == "top1" and sorted({*kept, *gone}) == list(range(12)) and len(kept) == 9 and len(gone) == 3


@DEPTHS
def test_it_tells_clips_apart_that_nobody_has_seen(depth, clips):
    report = hf_effvid.evaluate_classifier(str(CHECKPOINTS[depth]), clips, batch_size=48, progress=False)
    assert report.n == 48 and report.top1 > 0.75


def test_no_block_of_the_larger_one_is_idle():
    """All learned from the start: without any of them the logits are others."""
    model = VideoMAEForVideoClassification.from_pretrained(CHECKPOINTS[12]).eval()
    frames = torch.randn(1, 8, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(frames).logits
        for block in range(12):
            with BlockSkip(model, [block]):
                assert (model(frames).logits - whole).abs().max() > 1e-3


def test_the_results_name_the_test_clips_and_every_step():
    base, compressed = (ResultsFile.load(RESULTS / f"{path.name}.json").results for path in CHECKPOINTS.values())
    assert [entry.split for entry in base] == ["test"] and base[0].metric("top1").n == 480
    (own,) = [entry for entry in compressed if entry.task == "video-classification"]
    assert own.metric("top1").n == 480 and "videomae-motion-12" in own.notes[0]
    rows, _ = step_rows(compressed)
    assert [row.num_dropped for row in rows] == [0, 1, 2, 3]
    assert [row.gmacs for row in rows] == sorted((row.gmacs for row in rows), reverse=True)


@pytest.mark.slow
@pytest.mark.timeout(900)
@DEPTHS
def test_staged_it_opens_without_the_package(depth, tmp_path):
    report = verify_checkpoint(stage_checkpoint(str(CHECKPOINTS[depth]), tmp_path / f"videomae-motion-{depth}"))
    assert report.ok and all(check.ok for check in report.checks), report.to_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recipe_runs_and_goes_on(tmp_path):
    flags = ("--smoke", "--work", "work", "--output", "checkpoints", "--cards", "cards", "--pictures", "pictures")
    (tmp_path / "cards").mkdir()
    first = run(EXAMPLES / "make_compressed_model.py", tmp_path, *flags)
    assert first.count("verified") == 2 and "11 of 12 blocks are left" in first
    card = (tmp_path / "cards" / "videomae-motion-9.md").read_text()
    assert (
        "## Blocks left out" in card
        and "license: apache-2.0" in card
        and "base_model: hf-effvid/videomae-motion-12" in card
    )
    assert (tmp_path / "pictures" / "block-drop-motion.png").read_bytes().startswith(b"\x89PNG")
    assert len(ResultsFile.load(tmp_path / "cards" / "results" / "videomae-motion-9.json").results) == 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_first_read_drops_a_block(tmp_path):
    make_motion_dataset(tmp_path / "clips", {"train": 3, "validation": 2}, classes=CLASSES, progress=False)
    flags = ("--data", tmp_path / "clips", "--drop", "1", "--epochs", "0.2")
    printed = run(EXAMPLES / "03_compress_model.py", tmp_path, *flags)
    assert (
        "with all 12 blocks: " in printed and printed.count("without block") == 12 and printed.count("goes first") == 1
    )
    assert "modeling_videomae.VideoMAEForVideoClassification, 11 blocks" in printed
    assert not list(tmp_path.glob("run*")), "the folder of the run is deleted"
