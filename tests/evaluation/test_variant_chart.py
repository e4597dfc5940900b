"""The chart of an ablation: it is written, and what it says is text."""

import re

from hf_effvid.evaluation.results import Metric
from hf_effvid.evaluation.variant_chart import VariantRow, plot_variants


def test_every_variant_is_named_in_the_order_given(tmp_path):
    rows = [
        VariantRow("published", [0.7, 0.8], Metric("top1", 0.75, 20, (0.5, 0.9), "bootstrap")),
        VariantRow("no temporal $branch_", [0.1], Metric("top1", 0.1, 20)),
    ]
    path = plot_variants(rows, tmp_path / "new" / "chart.svg", title="Ablations & <more>", chance=0.1)
    text = path.read_text(encoding="utf-8")
    named = re.findall(r"<!-- (.*?) -->", text)
    first = [next(i for i, name in enumerate(named) if part in name) for part in ("published", "no temporal")]
    assert first == sorted(first)
    assert "branch_" in named[first[1]] and any("chance" in name for name in named)
    assert any("more" in name for name in named)


def test_pictures_without_chance_and_interval(tmp_path):
    rows = [VariantRow("only", [], Metric("top1", 0.5, 3))]
    assert plot_variants(rows, tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
