"""The chart of several ways to drop blocks: every line starts at the uncompressed model."""

import pytest

from hf_effvid.evaluation.block_drop_arms_chart import plot_block_drop_arms
from hf_effvid.evaluation.results import Metric


def point(value):
    return Metric("top1", value, 50, (value - 0.1, value + 0.1), "bootstrap over videos 95%")


def test_lines_start_at_the_uncompressed_model(tmp_path):
    curves = {
        "uncompressed": {0: point(0.5)},
        "progressive": {2: point(0.45), 1: point(0.52)},
        "2 at once": {2: point(0.3)},
        "trained on": {0: point(0.55)},
    }
    path = plot_block_drop_arms(curves, tmp_path / "new" / "arms.svg", "top1", 8, "gestures <test> $1$")
    text = path.read_text()
    assert text.count('<g id="line2d_') > 4, "level lines, arms, ticks"
    assert "dropped blocks, of 8" in text and "all blocks, trained on" in text and "gestures &lt;test&gt; $1$" in text
    assert '<g id="FillBetweenPolyCollection_1">' in text, "the band of the first arm"
    assert "FillBetweenPolyCollection_2" not in text


def test_without_the_uncompressed_model_there_is_no_start(tmp_path):
    with pytest.raises(ValueError, match="the uncompressed model among the arms"):
        plot_block_drop_arms({"progressive": {1: point(0.5)}}, tmp_path / "arms.png", "top1", 8)
