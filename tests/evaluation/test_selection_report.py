"""The report of a study of token selection: differences, leak, classes, tables, pictures, and what is written to disk."""

import numpy as np
import pytest
import torch

from hf_effvid.evaluation.results import Cost, Provenance, ResultsFile
from hf_effvid.evaluation.selection_charts import plot_study
from hf_effvid.evaluation.selection_classes import class_outcomes, easy_against_hard
from hf_effvid.evaluation.selection_entries import TASK, leak_metrics, result_entries, value_metrics
from hf_effvid.evaluation.selection_masks import ExampleClip, dimmed, frames_of_pixels, kept_mask, plot_clips
from hf_effvid.evaluation.selection_report import ArmResult, SelectionReport, StudyError
from hf_effvid.evaluation.selection_tables import accuracy_table, markdown
from hf_effvid.evaluation.selection_values import TokenValues


NUM_VIDEOS, NUM_CLASSES = 48, 6


def arm(name, kind, keep_ratio, right, draws=1, **fields):
    """Right on the first `right` videos; a mean of draws is right on one more of them in each."""
    top1 = np.mean([np.arange(NUM_VIDEOS) < right + draw for draw in range(draws)], axis=0)
    cost = Cost(
        gmacs=keep_ratio,
        latency_ms=10 * keep_ratio,
        batch_size=1,
        hardware="a machine",
        dtype="float32",
        decode_included=False,
    )
    accuracies = [(right + draw) / NUM_VIDEOS for draw in range(draws)]
    return ArmResult(name, kind, keep_ratio, top1, np.ones(NUM_VIDEOS), accuracies, 10, cost, **fields)


@pytest.fixture
def report():
    rng = np.random.default_rng(0)
    results = [arm("full", "all", 1.0, 40)]
    for ratio in (0.5, 0.2):
        results += [
            arm("random", "score", ratio, 24, draws=5),
            arm("lite", "score", ratio, 38 if ratio == 0.5 else 27),
            arm("attention", "analysis", ratio, 6),
            arm("oracle (true label)", "analysis", ratio, 46),
            arm("oracle (predicted label)", "analysis", ratio, 40),
            arm("oracle (wrong label)", "analysis", ratio, 10, label_hits=0.25),
        ]
    results.append(arm("tome", "merging", 0.5, 30))
    return SelectionReport(
        model_name="tiny",
        dataset_name="clips",
        split="test",
        sources=[f"{index}.mp4" for index in range(NUM_VIDEOS)],
        labels=[index % NUM_CLASSES for index in range(NUM_VIDEOS)],
        class_names=[f"class|{index} $x$" for index in range(NUM_CLASSES)],
        results=results,
        values=[TokenValues.of(i, np.maximum(rng.standard_normal(200), 0)) for i in range(NUM_VIDEOS)],
        protocol={"num_frames": 8},
        provenance=Provenance("effvid select study", commit="abc", date="2026-11-20", versions={"torch": "2"}),
        notes=["a note"],
    )


def test_differences_are_paired_and_judged(report):
    assert report.verdict("lite", 0.5) == "better" and report.verdict("attention", 0.5) == "worse"
    assert report.verdict("lite", 0.2) == "no difference shown" and report.verdict("random", 0.5) == ""
    metric = report.against_random["lite", 0.5]
    assert metric.value == pytest.approx((38 - 26) / 48) and metric.n == NUM_VIDEOS
    assert metric.interval[0] < metric.value < metric.interval[1]
    assert report.top1(report.get("random", 0.5)).value == pytest.approx(26 / 48)
    assert report.top1(report.full).interval_method == "wilson 95%"


def test_entries_are_results_of_the_one_schema(report, tmp_path):
    entries = result_entries(report)
    ResultsFile(entries).save(tmp_path / "results.json")
    loaded = ResultsFile.load(tmp_path / "results.json").results
    assert [e.variant for e in loaded] == [e.variant for e in entries] and {e.task for e in loaded} == {TASK}
    by_variant = {entry.variant: entry for entry in loaded}
    assert by_variant["all tokens"].metric("top1").value == pytest.approx(40 / 48)
    assert by_variant["lite, keep 0.5"].metric("top1 minus random").interval[0] > 0
    assert (
        "50.0%, 52.1%" in by_variant["random, keep 0.5"].notes[0] and by_variant["random, keep 0.5"].cost.gmacs == 0.5
    )
    assert "whole model" in by_variant["attention, keep 0.2"].notes[0]
    assert any("half are zero" in note for note in by_variant["values of tokens"].notes)


def test_the_leak_is_the_gap_between_the_true_and_the_predicted_label(report):
    found = {metric.name: metric for metric in leak_metrics(report)}
    assert found["true minus predicted label, keep 0.5"].value == pytest.approx(6 / 48)
    wrong = found["the same where the full model is wrong, keep 0.5"]
    assert wrong.n == 8 and wrong.value == pytest.approx(6 / 8)
    assert found["says the wrong label it was given, keep 0.5"].value == 0.25
    assert {m.name: round(m.value, 1) for m in value_metrics(report)}["share of exact zeros"] == 0.5


def test_means_of_seeds_keep_the_pairing(report):
    report.selector = {"lite": "told"}
    pooled = SelectionReport.mean_of([report, report])
    assert pooled.selector == {"lite, model 0": "told", "lite, model 1": "told"}
    assert pooled.num_models == 2 and pooled.get("lite", 0.5).draws == [38 / 48, 38 / 48]
    assert "training seeds" in result_entries(pooled)[1].notes[0] and "2 training seeds" in markdown(pooled)
    other = SelectionReport.from_dict({**report.to_dict(), "sources": ["x"] * NUM_VIDEOS})
    with pytest.raises(StudyError, match="sources"):
        SelectionReport.mean_of([report, other])


def test_the_report_survives_the_disk(report, tmp_path):
    again = SelectionReport.load(report.save(tmp_path / "study.json"))
    assert again.to_dict() == report.to_dict() and markdown(again) == markdown(report)


def test_tables_mark_what_is_shown_and_what_is_not(report):
    rows = accuracy_table(report).splitlines()
    assert rows[0] == "| arm | P = 0.5 | P = 0.2 |"
    assert (
        "| lite | 79.2 ↑ | 56.2 |" in rows and "| random | 54.2 | 54.2 |" in rows and "| tome | 62.5 ↑ | - |" in rows
    )
    assert any(row.startswith("| attention * |") and row.count("↓") == 2 for row in rows)
    text = markdown(report)
    assert "0.5 / 5 ms" in text and "## Leak of the oracle's label" in text and "- a note" in text


def test_pictures_are_drawn(report, tmp_path):
    files = plot_study(report, tmp_path)
    assert {f.name for f in files} == {
        f"{n}.{e}" for n in ("accuracy", "token_values", "classes") for e in ("png", "svg")
    }
    assert all(file.stat().st_size > 4000 for file in files)
    assert "oracle (predicted label)" in (tmp_path / "accuracy.svg").read_text()


def test_easy_and_hard_are_decided_on_other_videos():
    labels = np.repeat(np.arange(8), 40)
    rng = np.random.default_rng(0)
    easy = labels < 4
    full = (rng.random(320) < np.where(easy, 0.95, 0.4)).astype(float)
    metric = easy_against_hard(labels, full, np.where(easy, 1.0, 3.0), "cost")
    assert metric.value == -2 and metric.interval == (-2, -2) and metric.n == 8
    # accuracy that is luck alone: decided and measured on the same videos, the easy classes would seem to lose more
    luck = (rng.random(320) < 0.5).astype(float)
    fair = easy_against_hard(labels, luck, luck - 0.5, "loss")
    assert fair.interval[0] < 0 < fair.interval[1]
    assert easy_against_hard(labels[:80], full[:80], full[:80], "two classes") is None
    (first, *_) = class_outcomes(labels, full, 0.5 * full, list("abcdefgh"))
    assert (first.name, first.n) == ("a", 40) and first.loss == pytest.approx(first.full / 2)


def test_masks_fall_on_their_tokens(tmp_path):
    grid, frames = (2, 2, 3), torch.full((4, 3, 16, 24), 100, dtype=torch.uint8)
    mask = kept_mask(torch.tensor([0, 11]), grid)
    drawn = dimmed(frames, mask)
    assert mask.nonzero().tolist() == [[0, 0, 0], [1, 1, 2]]
    assert (drawn[0, :8, :8] == 100).all() and (drawn[0, 8:] > 150).all() and (drawn[1, :8, :8] == 100).all()
    assert (drawn[3, 8:, 16:] == 100).all() and (drawn[2, :8] > 150).all()
    pixels = (frames / 255 - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / 0.25
    assert torch.equal(frames_of_pixels(pixels, [0.5, 0.4, 0.3], [0.25] * 3), frames)
    example = ExampleClip("a $clip", frames, grid, {"oracle": torch.rand(12)}, {"kept": torch.tensor([0, 11])})
    assert plot_clips([example, example], tmp_path / "masks.png").stat().st_size > 3000
    with pytest.raises(ValueError, match="at least one clip"):
        plot_clips([], tmp_path / "none.png")
