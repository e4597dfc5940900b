"""Shares of the baseline's time: intervals the right way round, targets, the picture."""

import pytest

from hf_effvid.evaluation.benchmark_measuring import with_speedups
from hf_effvid.evaluation.benchmark_report import BenchmarkReport, Measurement
from hf_effvid.evaluation.benchmark_shares import check_time_shares, plot_time_shares, time_share
from hf_effvid.evaluation.provenance import Provenance


def report(times, batch_size=1):
    """A report whose models took these milliseconds, round by round."""
    measured = [
        Measurement(name, batch_size, "float32", "eager", (4, 3, 8, 8), 1, 2.0, ms[0], ms[0], 1.0, tuple((t,) for t in ms))
        for name, ms in times.items()
    ]  # fmt: skip
    baseline = next(iter(times))
    return BenchmarkReport(
        tuple(with_speedups(measured, baseline)),
        Provenance("test", hardware="a machine", date="2026-11-20"),
        2,
        baseline,
    )


FULL = [100.0, 200.0, 100.0, 100.0, 100.0, 100.0]


def test_the_share_is_paired_and_its_ends_are_in_order():
    found = report({"full": FULL, "half": [42.0, 84.0, 40.0, 45.0, 42.0, 42.0]})
    share = time_share(found.get("half"))
    assert (round(share.value, 6), round(share.low, 6), round(share.high, 6)) == (0.42, 0.40, 0.45)
    assert time_share(found.get("full")) is None


def test_targets_are_met_or_missed():
    times = {"full": FULL, "a": [43.0, 86.0] + [43.0] * 4, "b": [43.1, 86.2] + [43.1] * 4, "c": [90.0] * 6}
    targets = {"full": 0.1, "a": 0.43, "b": 0.43, "unmeasured": 0.1}
    lines, met = check_time_shares(report(times), targets)
    assert not met and [line.rpartition(" ")[2] for line in lines] == ["met", "MISSED"]
    assert lines[0] == "a, batch 1: 0.43 of the time of full (0.43 to 0.43), target 0.43: met"
    assert check_time_shares(report(times), {"a": 0.43})[1]
    assert check_time_shares(report(times, 8), targets, min_batch_size=32) == ([], True)
    assert not check_time_shares(report(times, 32), targets, min_batch_size=32)[1]


def test_the_picture_shows_every_form(tmp_path):
    times = {"full": FULL, "a $x$": [43.0] * 6, "hidden": [1.0] * 6}
    entries = [*report(times).to_result_entries(), *report(times, 8).to_result_entries()]
    path = plot_time_shares(entries, tmp_path / "new" / "shares.png", leave_out=["hidden"])
    assert path.stat().st_size > 5_000
    svg = plot_time_shares(entries, tmp_path / "shares.svg", leave_out=["hidden"]).read_text()
    assert "hidden" not in svg and "time, batch 1, float32, eager" in svg and "time, batch 8" in svg


def test_a_picture_without_ratios_is_refused(tmp_path):
    with pytest.raises(ValueError, match="compared with a baseline"):
        plot_time_shares(report({"full": FULL}).to_result_entries(), tmp_path / "shares.png")
