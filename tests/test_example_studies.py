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
