"""The studies in examples/: ablations, memory, cost curves, each in a miniature of the command that its docstring names."""

import pytest

from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.evaluation.results import ResultsFile

from .test_examples import EXAMPLES, run


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, each of which imports torch
def test_ablations(tmp_path):
    """Two variants, one seed, two steps; the second call finds the runs, and a study of another length is not mixed in."""
    clips = tiny_motion_dataset(tmp_path / "motion", size=64, num_frames=20)
    recipe = EXAMPLES / "configs" / "quickstart.yaml"
    command = (EXAMPLES / "ablations.py", tmp_path, clips, "--name", "motion", "--config", recipe, "--variants", "parallel", "joint",
               "--seeds", "0", "--results", "results", "--pictures", "pictures")  # fmt: skip
    printed = run(*command, "--steps", "2")
    assert printed.count(" minutes\n") == 2 and "joint 3-D modulator" in printed
    results = ResultsFile.load(tmp_path / "results" / "ablations-motion.json").results
    assert [entry.variant for entry in results] == [
        "parallel, product, 2 levels (published)",
        "parallel, product, 2 levels (published) against the published design",
        "joint 3-D modulator",
        "joint 3-D modulator against the published design",
    ]
    for entry in results[::2]:
        assert entry.provenance.seed == 0 and entry.metric("top1").n == 4
        assert entry.metric("top1").interval_method == "wilson 95%"
    assert results[0].cost.parameters != results[2].cost.parameters, "the variants are different models"
    difference = results[3].metric("top1 difference, A minus B")
    assert difference.value == pytest.approx(results[2].metric("top1").value - results[0].metric("top1").value)
    assert (
        difference.interval_method == "paired bootstrap over videos 95%" and "2 training steps" in results[3].notes[0]
    )
    assert (tmp_path / "pictures" / "ablations-motion.png").stat().st_size > 10_000
    assert run(*command, "--steps", "2").count("there already") == 2
    with pytest.raises(AssertionError, match="runs of another recipe or length"):
        run(*command, "--steps", "3")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_long_range(tmp_path):
    work = "--models levels-2 kernels-1 --tasks match --seeds 0 --steps 2 --clips 4"
    flags = [*work.split(), "--results", "r.json", "--picture", "p.png"]
    printed = run(EXAMPLES / "long_range.py", tmp_path, *flags)
    assert "match, levels-2, seed 0: 4: " in printed
    results = ResultsFile.load(tmp_path / "r.json").results
    assert [entry.variant for entry in results] == ["2 levels", "1 level, no global context"]
    assert results[0].metric("top1").n == 4 * 8 and results[0].metric("top1 at distance 28").n == 4
    assert (tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_cost_curve(tmp_path):
    flags = ("--frames", "2", "--sides", "32", "--side", "32", "--clip-length", "2", "--rounds", "2")
    printed = run(EXAMPLES / "cost_curve.py", tmp_path, *flags, "--results", "r.json", "--picture", "p.png")
    assert "Video-FocalNet tiny      2 x  32: " in printed
    results = ResultsFile.load(tmp_path / "r.json").results
    assert [entry.model for entry in results] == ["Video-FocalNet tiny, 2x32x32", "VideoMAE small, 2x32x32"]
    assert all(entry.cost.gmacs > 0 and entry.cost.latency_ms > 0 for entry in results)
    assert (tmp_path / "p.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_needles(tmp_path):
    """A host in two steps, and the whole comparison on the committed one, in miniature."""
    printed = run(EXAMPLES / "make_needle_hosts.py", tmp_path, "--steps", "2", "--tasks", "global", "--out", "hosts")
    assert "on 512 new clips, chance 0.125" in printed
    assert {path.name for path in (tmp_path / "hosts" / "global").iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json", "video_preprocessor_config.json",
    }  # fmt: skip
    work = "--tasks needle --seeds 0 --clips 64 --train-clips 64 --epochs 1 --results r.json"
    printed = run(EXAMPLES / "token_selection_needle.py", tmp_path, *work.split())
    assert (
        "random, mean of 5 draws" in printed
        and "oracle mlp_out of block -1, true label, on 64 clips: FAILED" in printed
    )
    results = {entry.variant: entry for entry in ResultsFile.load(tmp_path / "r.json").results}
    assert len(results) == 13
    oracle, random = results["oracle block_out, true label"], results["random tokens, mean of 5 draws"]
    assert oracle.metric("auc of informative tokens").value > 0.75
    assert oracle.metric("top1 at keep 0.1").value > random.metric("top1 at keep 0.1").value + 0.3
    assert results["check of the oracle at block_out"].notes == ("passed",)
    assert results["check of the oracle at mlp_out"].notes[0].startswith("failed: its rank correlation")
