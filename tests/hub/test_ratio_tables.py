from dataclasses import replace

from hf_effvid.evaluation.results import Metric
from hf_effvid.hub.ratio_tables import exports_table, ratios_table

from .test_speed_table import timed


COMPARED = {"baseline": "big", "speedup_interval_method": "x"}
SPEEDS = [
    timed("slow", 100.0, parameters=2_500_000, gmacs=1.5, speedup=2.0, speedup_interval=(1.9, 2.1), **COMPARED),
    timed("big", 200.0, parameters=86_500_000, gmacs=180.0, peak_memory_mb=900.0),
    timed("fast", 1.5, parameters=1_000_000, speedup=133.3, speedup_interval=(120.0, 140.2), **COMPARED),
]


def test_the_baseline_comes_first_and_then_the_fastest():
    lines = ratios_table(SPEEDS)
    assert lines[0] == "One clip per pass, against big:"
    rows = [line for line in lines if line.startswith("| ")][2:]
    assert rows[0] == "| big | 86.5 M | 180 G | 200 (220) | 5 | 900 MB | 1 |"
    assert rows[1] == "| fast | 1 M | not counted | 1.5 (1.65) | 667 | not measured | 133 (120 to 140) |"
    assert rows[2].startswith("| slow |") and rows[2].endswith("| 2 (1.9 to 2.1) |")
    assert lines[-1].startswith("Measured on a machine, 2 threads, 10 interleaved rounds")


def test_one_table_for_each_number_of_clips():
    four = [replace(e, cost=replace(e.cost, batch_size=4)) for e in SPEEDS]
    titles = [line for line in ratios_table([*four, *SPEEDS]) if line.endswith("against big:")]
    assert titles == ["One clip per pass, against big:", "4 clips per pass, against big:"]


def test_exports_show_size_and_distance():
    model = replace(timed("m", 10.0), variant="PyTorch float32, 2 threads", metrics=(Metric("megabytes", 12.04, 1),))
    distance = Metric("max_relative_logit_difference", 2.5e-7, 6), Metric("same_class", 1.0, 6)
    file = timed(
        "m", 5.0, baseline="PyTorch float32", speedup=2.0, speedup_interval=(1.8, 2.2), speedup_interval_method="x"
    )
    file = replace(file, variant="ONNX float32, 2 threads", metrics=(Metric("megabytes", 12.1, 1), *distance))
    rows = [line for line in exports_table([model, file]) if line.startswith("| m ")]
    assert rows == [
        "| m | PyTorch float32 | 12 | 10 (11) | 1 |  |  |",
        "| m | ONNX float32 | 12.1 | 5 (5.5) | 2 (1.8 to 2.2) | 2.5e-07 | 6 of 6 |",
    ]
