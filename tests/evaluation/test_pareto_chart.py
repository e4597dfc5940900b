"""The chart of accuracy against time: who is on the front, and files that can be opened."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_effvid.evaluation.pareto_chart import ParetoPoint, pareto_front, plot_pareto


POINTS = [
    ParetoPoint("small $1 model_a", 5, 0.6, (0.55, 0.65)),
    ParetoPoint("middle", 15, 0.7),
    ParetoPoint("wasteful", 16, 0.65),
    ParetoPoint("large & slow", 90, 0.8, (0.77, 0.83)),
]


def test_front():
    assert [point.name for point in pareto_front(POINTS)] == ["small $1 model_a", "middle", "large & slow"]


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 20)), min_size=1, max_size=15))
def test_a_point_is_on_the_front_exactly_when_nothing_beats_it(rows):
    points = [ParetoPoint(str(number), time, accuracy / 20) for number, (time, accuracy) in enumerate(rows)]
    front = pareto_front(points)
    for point in points:
        better = [
            p
            for p in points
            if (p.milliseconds, -p.accuracy) != (point.milliseconds, -point.accuracy)
            and p.milliseconds <= point.milliseconds
            and p.accuracy >= point.accuracy
        ]
        assert (point in front) == (not better)
    times, accuracies = [p.milliseconds for p in front], [p.accuracy for p in front]
    assert times == sorted(times) and accuracies == sorted(accuracies)


def test_picture_and_vectors(tmp_path):
    png, svg = plot_pareto(
        POINTS, tmp_path / "deep" / "chart.anything", title="T $ <x>", footnote="machine; n = 400", budget_ms=20
    )
    assert png == tmp_path / "deep" / "chart.png" and svg == tmp_path / "deep" / "chart.svg"
    with Image.open(png) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape == (750, 1200, 3)
    for colour in ((0, 114, 178), (213, 94, 0), (140, 140, 140)):  # front, budget, behind
        assert (np.abs(pixels.astype(int) - colour).sum(-1) < 12).any()
    texts = {"".join(node.itertext()).strip() for node in ElementTree.parse(svg).iter() if node.tag.endswith("text")}
    assert {point.name for point in POINTS} <= texts and "20 ms" in texts


def test_equal_charts_are_equal_files(tmp_path):
    first, second = plot_pareto(POINTS, tmp_path / "a"), plot_pareto(POINTS, tmp_path / "b")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


@pytest.mark.parametrize("points", [POINTS[:1], [POINTS[0], POINTS[0]], [ParetoPoint("perfect", 3, 1.0, (1.0, 1.0))]])
def test_few_points(points, tmp_path):
    png, _ = plot_pareto(points, tmp_path / "chart")
    with Image.open(png) as image:
        image.verify()


def test_no_point(tmp_path):
    with pytest.raises(ValueError, match="at least one model"):
        plot_pareto([], tmp_path / "chart")
