"""Deletion and insertion: right for a model whose reasons are known, the same cells for every method, honest about chance."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_effvid import (
    EffVidVideoProcessor,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    load_video_dataset,
)
from hf_effvid.evaluation.faithfulness import Masking, _deletion_and_insertion, hidden_cells, score_explanations
from hf_effvid.evaluation.faithfulness_report import INSERTION, KINDS, FaithfulnessReport
from hf_effvid.evaluation.provenance import Provenance
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.evaluation.saliency import (
    CENTRE,
    GRAD_CAM,
    METHODS,
    RANDOM,
    SPATIAL,
    TEMPORAL,
    centre_prior,
    grad_cam,
    saliency_maps,
)
from hf_effvid.explanation import NoModulatorsError

from .conftest import CLASSES, tiny_videomae


class BrightCell(torch.nn.Module):
    """Says class 0 as surely as one known cell, frame 1 in the upper left quarter, is bright."""

    config = type("Config", (), {"problem_type": None})()

    def forward(self, pixel_values):
        evidence = pixel_values[:, 1, :, :8, :8].mean((1, 2, 3))
        return type("Output", (), {"logits": torch.stack([20 * evidence - 10, -20 * evidence + 10], dim=1)})()


def bright_clip():
    clip = torch.zeros(1, 4, 3, 16, 16)
    clip[:, 1, :, :8, :8] = 1.0
    return clip


def areas(saliency, num_steps=16):
    hidden = hidden_cells(saliency, num_steps, torch.Generator().manual_seed(0))
    curves = _deletion_and_insertion(BrightCell(), bright_clip(), torch.zeros(1, 4, 3, 16, 16), hidden, 0, 5)
    return (curves[:, 1:] + curves[:, :-1]).mean(1) / 2


def test_the_right_map_wins_and_the_wrong_one_loses():
    right = torch.zeros(4, 2, 2)
    right[1, 0, 0] = 1.0
    deletion, insertion = areas(right)
    assert deletion == pytest.approx(0.5 / 16, abs=1e-3) and insertion == pytest.approx(1 - 0.5 / 16, abs=1e-3)
    deletion, insertion = areas(-right)
    assert deletion == pytest.approx(1 - 0.5 / 16, abs=1e-3) and insertion == pytest.approx(0.5 / 16, abs=1e-3)
    chance = np.mean(
        [areas(torch.rand(4, 2, 2, generator=torch.Generator().manual_seed(s))) for s in range(60)], axis=0
    )
    assert chance == pytest.approx([0.5, 0.5], abs=0.12)


@given(st.integers(0, 2**31), st.integers(1, 20), st.tuples(*[st.integers(1, 5)] * 3))
def test_cells_are_hidden_in_order_and_all_in_the_end(seed, num_steps, grid):
    generator = torch.Generator().manual_seed(seed)
    saliency = torch.randint(0, 4, grid, generator=generator).float()
    hidden = hidden_cells(saliency, num_steps, generator)
    counts = hidden.flatten(1).sum(1)
    assert hidden.shape == (num_steps + 1, *grid) and counts[0] == 0 and counts[-1] == saliency.numel()
    assert bool((hidden[1:] | ~hidden[:-1]).all()), "what is hidden stays hidden"
    for of_step in hidden[1:-1]:
        if of_step.any() and not of_step.all():
            assert saliency[of_step].min() >= saliency[~of_step].max()


def test_equal_cells_are_ordered_by_chance():
    ties = torch.Generator().manual_seed(0)
    first = torch.stack([hidden_cells(torch.zeros(2, 3, 3), 18, ties)[1] for _ in range(60)]).float().mean(0)
    assert first.max() < 0.3


@pytest.mark.parametrize("fill", ["colour", "still", "blur"])
def test_fills_remove_what_they_say(fill):
    clip = torch.rand(1, 4, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    filled = Masking(fill).filled(clip)
    assert filled.shape == clip.shape
    if fill == "colour":
        assert filled.std((1, 3, 4)).max() < 1e-6
    assert (filled.std(1).max() < 1e-6) == (fill != "blur")
    assert filled.mean().item() == pytest.approx(clip.mean().item(), abs=2e-2)
    with pytest.raises(ValueError, match="colour, still, blur"):
        Masking("black")


def tiny(**overrides):
    torch.manual_seed(0)
    fields = {
        "embed_dim": 8, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3], "initialization": "fan_in",
        "id2label": dict(enumerate(CLASSES)), "label2id": {name: index for index, name in enumerate(CLASSES)},
    }  # fmt: skip
    return VideoFocalNetForVideoClassification(VideoFocalNetConfig(**{**fields, **overrides})).eval()


def test_grad_cam_is_the_weighted_sum_of_the_last_features():
    model, clip = tiny(), torch.randn(1, 4, 3, 32, 48)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    cam = grad_cam(model, clip, target=2)
    features = model(clip, output_hidden_states=True).hidden_states[-1].detach().requires_grad_(True)
    model.classifier(model.video_focalnet.layernorm(features).mean(1))[0, 2].backward()
    expected = (features[0] @ features.grad[0].mean(0)).clamp_min(0).reshape(4, 4, 6)
    torch.testing.assert_close(cam, expected.detach())
    assert not torch.equal(cam, grad_cam(model, clip, target=1))


def test_all_maps_share_one_grid():
    model, clip = tiny(), torch.randn(1, 4, 3, 32, 48)
    for block in (0, 1):
        maps = saliency_maps(model, clip, target=0, block=block, seeds=(1, 2))
        assert tuple(maps) == METHODS and len(maps[RANDOM]) == 2
        assert {one.shape for of_method in maps.values() for one in of_method} == {(4, 4, 6)}
    assert not torch.equal(*maps[RANDOM])
    assert TEMPORAL not in saliency_maps(tiny(temporal_encoding="none"), clip, target=0)
    prior = centre_prior((2, 5, 5))
    assert (
        prior[:, 2, 2].min() == prior.max() and torch.equal(prior, prior.flip(1)) and torch.equal(prior[0], prior[1])
    )


@pytest.fixture(scope="module")
def reports(motion_folder):
    processor = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32)
    rows = [
        *load_video_dataset(str(motion_folder), split="test").select(range(3)),
        {"video": "no_such.mp4", "label": 0},
    ]
    options = {"num_steps": 4, "random_seeds": 2, "dataset_name": "motions", "split": "test", "progress": False}
    return [
        score_explanations(tiny(initializer_range=0.02 + 0.01 * s), rows, processor, seed=s, **options)
        for s in range(2)
    ]


def test_a_report_states_everything(reports, tmp_path):
    report = reports[0]
    assert (report.n, report.num_failed, report.methods) == (3, 1, list(METHODS))
    assert all(curves.shape == (3, 2, 5) for curves in report.curves.values())
    for curves in report.curves.values():
        # nothing hidden, and everything shown: the same clip for every method
        np.testing.assert_allclose(curves[:, 0, 0], report.curves[RANDOM][:, 0, 0], atol=1e-6)
        np.testing.assert_allclose(curves[:, 1, -1], curves[:, 0, 0], atol=1e-6)
        np.testing.assert_allclose(curves[:, 1, 0], curves[:, 0, -1], atol=1e-6)
    entries = report.to_result_entries()
    ResultsFile(entries).save(tmp_path / "results.json")
    first = ResultsFile.load(tmp_path / "results.json").results[0]
    assert first.variant == f"{SPATIAL}, hidden cells: colour" and first.num_failed == 1 and first.provenance.seed == 0
    assert [metric.name for metric in first.metrics[:4]] == [*KINDS, f"insertion_auc minus {RANDOM}"]
    insertion, deletion, gain = (metric.value for metric in first.metrics[:3])
    assert gain == pytest.approx(insertion - deletion)
    assert all(metric.n == 3 and metric.interval for entry in entries for metric in entry.metrics)
    by_method = {entry.variant.split(", hidden")[0]: len(entry.metrics) for entry in entries}
    assert (by_method[RANDOM], by_method[CENTRE], by_method[GRAD_CAM], by_method[TEMPORAL]) == (3, 6, 9, 12)
    assert json.dumps(report.to_dict(), allow_nan=False) and "against centre prior" in report.to_text()
    assert np.asarray(Image.open(report.plot(tmp_path / "curves.png")).convert("RGB")).std() > 10


def test_seeds_are_averaged_video_by_video(reports):
    mean = FaithfulnessReport.mean_of(reports)
    np.testing.assert_allclose(mean.areas[SPATIAL], (reports[0].areas[SPATIAL] + reports[1].areas[SPATIAL]) / 2)
    assert "2 training seeds" in mean.to_result_entries()[0].notes[-1] and "2 training seeds" in mean.to_text()
    other = FaithfulnessReport(**{**vars_of(reports[1]), "sources": ["a", "b", "c"]})
    with pytest.raises(ValueError, match="different sources"):
        FaithfulnessReport.mean_of([reports[0], other])


def vars_of(report):
    return {name: getattr(report, name) for name in FaithfulnessReport.__dataclass_fields__}


@pytest.mark.parametrize(
    ("lead", "verdicts"),
    [
        ([0.2, 0.2], ["better", "worse", "no difference shown"]),
        ([-0.2, 0.2], ["better", "better", "better"]),
        ([0.2, -0.2], ["worse", "worse", "worse"]),
        ([0.0, 0.0], ["no difference shown"] * 3),
    ],
)
def test_the_verdict_follows_the_interval_of_the_paired_difference(lead, verdicts):
    """`lead` is how far the curves of deletion and insertion lie above those of chance."""
    rng = np.random.default_rng(0)
    chance = rng.random((40, 2, 5))
    ahead = chance + np.array(lead)[None, :, None] + 0.1 * rng.standard_normal((40, 2, 1))
    report = FaithfulnessReport(
        "m", "d", "test", [str(i) for i in range(40)], {SPATIAL: ahead, RANDOM: chance}, 0, {"fill": "colour"},
        Provenance("test", date="2026-11-20"),
    )  # fmt: skip
    assert [report.verdict(SPATIAL, RANDOM, kind) for kind in KINDS] == verdicts
    assert report.difference(SPATIAL, RANDOM, INSERTION).value == pytest.approx(lead[1], abs=0.05)


def test_what_cannot_be_scored_is_refused(motion_folder, processor):
    with pytest.raises(NoModulatorsError, match="videomae"):
        score_explanations(tiny_videomae(CLASSES), [], processor)
    with pytest.raises(ValueError, match="1 could not be read"):
        score_explanations(tiny(), [{"video": "no_such.mp4", "label": 0}], processor, progress=False)
