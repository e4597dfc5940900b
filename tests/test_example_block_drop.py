"""The study of dropped blocks in examples/, in miniature: hosts of a few steps on generated clips and streams, every way to drop."""

import os
import sys
from pathlib import Path

import pytest

from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.hub.block_drop_arms import arms_table

from .test_examples import EXAMPLES, run


SHORT = {
    "HOST_STEPS": "2", "STEPS": "1", "DROP": "2", "SEEDS": "0 1", "RESULTS_DIR": "results", "PICTURES": "pictures",
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
}  # fmt: skip
ARMS = ["uncompressed", "trained on", "progressive", "random order", "2 at once", "no recovery"]


def by_arm(path):
    """(arm, dropped blocks, seed or None for the mean) -> entry."""
    entries = ResultsFile.load(path).results
    found = {(e.protocol["arm"], e.protocol["dropped_blocks"], e.provenance.seed): e for e in entries}
    assert len(found) == len(entries)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)  # several processes, each of which imports torch
def test_clips(tmp_path):
    """Two seeds, two blocks; a second call trains nothing and asks no model again."""
    clips = tiny_motion_dataset(tmp_path / "motion", size=64, num_frames=20)
    command = (EXAMPLES / "real_block_drop.sh", tmp_path, clips, "motion", "out")
    printed = run(*command, program="bash", environment=SHORT)
    found = by_arm(tmp_path / "results" / "block-drop-motion.json")
    points = [(arm, dropped) for arm in ARMS[2:] for dropped in ((2,) if "at once" in arm else (1, 2))]
    points += [(arm, 0) for arm in ARMS[:2]]
    assert set(found) == {(*point, seed) for point in points for seed in (0, 1, None)}
    for (arm, dropped, seed), entry in found.items():
        assert entry.metrics[0].name == "top1" and entry.metrics[0].n == 4
        assert entry.cost.gmacs < found["uncompressed", 0, 0].cost.gmacs or not dropped
        if seed is None:
            single = [found[arm, dropped, one].metric("top1").value for one in (0, 1)]
            assert entry.metric("top1").value == pytest.approx(sum(single) / 2)
    mean = found["progressive", 2, None]
    for reference in ("uncompressed", "trained on"):
        gap = mean.metric(f"top1 minus {reference}")
        assert gap.value == pytest.approx(mean.metric("top1").value - found[reference, 0, None].metric("top1").value)
        assert gap.interval_method.startswith("paired bootstrap")
    assert mean.metric("top1 minus random order") is not None
    assert "1 steps of recovery per dropped block" in mean.notes[-1]
    assert (tmp_path / "pictures" / "block-drop-motion.png").stat().st_size > 10_000
    table = arms_table(list(found.values()))
    assert table.count("\n| ") == 2 + len(points) and "n = 4" in table
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")}
    again = run(*command, program="bash", environment=SHORT)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("model.safetensors")} == before
    lines = [line for line in printed.splitlines() if " of 8 blocks dropped" in line]
    assert lines and [line for line in again.splitlines() if " of 8 blocks dropped" in line] == lines


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_streams(tmp_path):
    """Detectors on the trunk of a classifier of the streams' actions."""
    from hf_effvid.data.synthetic_streams import tiny_action_streams

    tiny_action_streams(tmp_path / "streams")
    clips = tiny_motion_dataset(tmp_path / "motion", size=64, num_frames=20)
    short = {**SHORT, "SEEDS": "0", "CLIPS": str(clips), "ARMS": "--arms progressive"}
    run(EXAMPLES / "real_block_drop.sh", tmp_path, "streams", "streams", "out", program="bash", environment=short)
    found = by_arm(tmp_path / "results" / "block-drop-streams.json")
    assert {(arm, dropped) for arm, dropped, _ in found} == {
        ("uncompressed", 0),
        ("progressive", 1),
        ("progressive", 2),
    }
    mean = found["progressive", 2, None]
    assert mean.task == "temporal-action-detection" and mean.metrics[0].name == "average_mAP"
    assert mean.metric("average_mAP minus uncompressed").interval is not None
    assert mean.model == "actionformer-videomae-thin"
