"""What dropped blocks cost and save, in miniature: the benchmark, the rivals, and what every block changes."""

import importlib.util
import sys

import pytest

from hf_effvid.auto import register
from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.evaluation.results import ResultsFile

from .test_examples import EXAMPLES, run


register()
HOST = EXAMPLES / "checkpoints" / "videomae-motion-12"
CLASSES = (
    "blue_then_green_then_red", "grows", "moves_down", "moves_left", "moves_right", "moves_up", "red_then_green_then_blue",
    "shrinks",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    few = {"train": 2, "validation": 1, "test": 2}
    return make_motion_dataset(tmp_path_factory.mktemp("motion"), clips_per_class=few, classes=CLASSES)


@pytest.fixture
def bench(monkeypatch):
    """The benchmark with a VideoMAE that takes milliseconds."""
    spec = importlib.util.spec_from_file_location("bench_block_drop", EXAMPLES / "bench_block_drop.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    small = {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 96, "num_hidden_layers": 12}
    for name, value in (
        ("SMALL", small),
        ("CLIP", (4, 3, 32, 32)),
        ("NARROW_MLP", {"intermediate_size": 48}),
        ("NARROW_BOTH", {"intermediate_size": 72, "head_dim": 6}),
        ("NARROW_ALL", 21),
    ):
        monkeypatch.setattr(module, name, value)
    return module


@pytest.mark.slow
def test_benchmark(bench, tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch_pruning", reason="the prune extra is not installed")
    results, picture = tmp_path / "speed.json", tmp_path / "speed.png"
    flags = ["--clips", "1", "--rounds", "2", "--threads", "1", "--no-counts", "--check"]
    monkeypatch.setattr(
        sys, "argv", ["bench_block_drop.py", *flags, "--results", str(results), "--picture", str(picture)]
    )
    try:
        bench.main()
        missed = False
    except SystemExit as stop:  # a tiny model on a busy machine need not be in time
        missed = stop.code == 1
    assert ("MISSED" in capsys.readouterr().out) == missed and picture.stat().st_size > 10_000
    gmacs = {entry.model: entry.cost.gmacs for entry in ResultsFile.load(results).results}
    assert len(gmacs) == 8
    blocks = [gmacs[bench.FULL], *(gmacs[bench.dropped_name(number)] for number in range(1, 5))]
    saved = [more - less for more, less in zip(blocks, blocks[1:], strict=False)]
    assert max(saved) == pytest.approx(min(saved)) and saved[0] > 0
    # a quarter of all channels inside the blocks is a quarter of the blocks
    assert gmacs["MLPs 1536 -> 1152, heads 64 -> 48"] == pytest.approx(gmacs[bench.dropped_name(3)])


def test_blocks_go_by_the_numbers_that_they_had_at_first(bench):
    model = bench.drop_originals(bench.drop_originals(bench.trunk(), [7, 10]), [6])
    assert bench.kept_blocks(model) == [0, 1, 2, 3, 4, 5, 8, 9, 11]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rivals(clips, tmp_path):
    pytest.importorskip("torch_pruning", reason="the prune extra is not installed")
    flags = ["--dropped", "1", "2", "--steps", "3", "--score-videos", "2", "--rounds", "2", "--threads", "1"]
    files = ["--results", "rivals.json", "--picture", "rivals.png"]
    run(EXAMPLES / "block_drop_rivals.py", tmp_path, HOST, clips, *flags, *files)
    found = {entry.variant: entry for entry in ResultsFile.load(tmp_path / "rivals.json").results}
    whole = found["uncompressed"]
    assert len(found) == 8 and whole.metric("top1").n == 16 and whole.cost.speedup is None
    assert found["trained on"].cost.gmacs == whole.cost.gmacs
    dropped, pruned = found["blocks: 1 of 12 blocks dropped"], found["channels: MLPs 176, heads 11"]
    assert dropped.cost.gmacs == pytest.approx(pruned.cost.gmacs, rel=0.001)
    assert "an ordinary checkpoint" in dropped.notes and any("cannot be loaded" in note for note in pruned.notes)
    (mlp,) = (entry for name, entry in found.items() if name.startswith("MLPs alone"))
    assert mlp.cost.gmacs == pytest.approx(dropped.cost.gmacs, rel=0.01) and mlp.notes == ("an ordinary checkpoint",)
    (both,) = (entry for name, entry in found.items() if name.startswith("both"))
    assert both.cost.gmacs < dropped.cost.gmacs < whole.cost.gmacs
    assert (tmp_path / "rivals.png").stat().st_size > 10_000


@pytest.mark.slow
def test_discrepancy(clips, tmp_path):
    printed = run(
        EXAMPLES / "block_discrepancy.py", tmp_path, HOST, clips, "--results", "d.json", "--picture", "d.png"
    )
    assert "rank correlation" in printed and (tmp_path / "d.png").stat().st_size > 10_000
    results = ResultsFile.load(tmp_path / "d.json").results
    assert [entry.variant for entry in results] == ["all blocks", *(f"without block {n}" for n in range(12))]
    assert all(entry.metric("top1").n == 8 and entry.split == "validation" for entry in results)
    assert all(-1 <= entry.metric("block_cosine").value <= 1 for entry in results[1:])
