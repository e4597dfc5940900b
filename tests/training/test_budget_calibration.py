"""LITE++ on real files: the probe, the thresholds, the checkpoint and the report."""

import json

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification
from typer.testing import CliRunner

from hf_effvid import EffVidVideoProcessor, LiteVideoMAEForVideoClassification, VideoDifficultyGauge, X3DConfig
from hf_effvid.cli import app
from hf_effvid.compression import BudgetCosts, CalibrationError
from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.evaluation import ResultsFile
from hf_effvid.evaluation.temperature_scaling import fit_temperature
from hf_effvid.models.budget_gauges import BudgetProbe, confidence_of
from hf_effvid.models.difficulty_gauge import GaugeNotAvailableError
from hf_effvid.models.token_budget import BudgetPolicy
from hf_effvid.training.budget_calibration import CALIBRATION_NAME, PUBLISHED_EASY_SHARE, calibrate_budget
from hf_effvid.training.budget_evaluation import evaluate_budget
from hf_effvid.training.budget_measuring import ClipReading, gmacs_at, keep_ratio_of_cost, measure_clips
from hf_effvid.training.budget_probe import fit_budget_probe
from hf_effvid.training.model_setup import open_classifier
from tests.hub.test_selection_section import report
from tests.models.test_adaptive_lite_videomae import tiny_model


CLASSES = ["grows", "moves_left", "moves_up", "shrinks", "turns_clockwise"]
QUIET = ClipReading(batch_size=4, progress=False)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion")
    counts = {"train": 6, "validation": 4, "test": 3}
    return make_motion_dataset(folder, counts, size=40, num_frames=12, classes=CLASSES, progress=False)


@pytest.fixture
def model():
    model = tiny_model()
    model.config.id2label = dict(enumerate(sorted(CLASSES)))
    model.config.label2id = {name: index for index, name in model.config.id2label.items()}
    return model


@pytest.fixture
def processor():
    return EffVidVideoProcessor(num_frames=8, size={"shortest_edge": 36}, crop_size=32, num_clips=2)


# ---- the probe --------------------------------------------------------------------------------------------------------


def test_a_probe_is_the_minimum_of_its_convex_problem():
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=rng).double() * torch.tensor([1.0, 10.0, 0.1, 1.0]) + 3
    features[:, 3] = 7.0  # says nothing
    labels = (features[:, 0] > 3).long() + (features[:, 1] > 3).long()
    probe = fit_budget_probe(features, labels, 3, pooling="mean", weight_decay=0.05)
    assert probe.weight[:, 3].abs().max() == 0
    mean, scale = features.mean(0), features.std(0, correction=0).clamp_min(1e-9)

    def loss(weight, bias):
        logits = features @ (weight / scale).T + bias - (weight / scale) @ mean
        return torch.nn.functional.cross_entropy(logits, labels) + 0.025 * weight.square().sum()

    weight = (probe.weight.double() * scale).detach().requires_grad_()
    bias = (probe.bias.double() + (probe.weight.double() @ mean)).detach().requires_grad_()
    gradients = torch.autograd.grad(loss(weight, bias), (weight, bias))
    assert max(gradient.abs().max() for gradient in gradients) < 1e-4
    logits = torch.nn.functional.linear(features.float(), probe.weight, probe.bias)
    assert (logits.argmax(1) == labels).double().mean() > 0.8
    again = fit_budget_probe(features, labels, 3, pooling="mean", weight_decay=0.05)
    assert torch.equal(again.weight, probe.weight)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(3, 2), [0, 1], r"got \(3, 2\) and \(2,\)"),
        (torch.zeros(0, 2), [], "n above 0"),
        (torch.zeros(2, 2), [0, 3], "labels from 0 to 2, got 0 to 3"),
    ],
)
def test_features_and_labels_that_do_not_fit(features, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_budget_probe(features, labels, 3, pooling="mean")


# ---- measuring --------------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_model_on_each_clip(videos, model, processor):
    from hf_effvid import load_video_dataset

    rows = load_video_dataset(videos, split="validation")
    reading = ClipReading(multi_view=True, batch_size=3, max_videos=3, progress=False)
    answers = measure_clips(model, rows, processor, reading, keep_ratios=(0.3, 0.5), pooling="mean")
    clips = processor([row["video"] for row in rows.select(range(3))], multi_view=True)["pixel_values"]
    with torch.no_grad():
        for ratio in (0.3, 0.5):
            wanted = model(clips, keep_ratio=ratio).logits.unflatten(0, (3, 2))
            np.testing.assert_allclose(answers.logits[ratio], wanted.numpy(), atol=1e-5)
        torch.testing.assert_close(answers.features, model.embed_patches(clips).mean(1), atol=1e-5, rtol=1e-4)
    assert answers.labels.tolist() == [rows.features["label"].names.index("grows")] * 3
    assert answers.views_shape == (2, 8, 3, 32, 32) and not answers.failed
    assert answers.realised == pytest.approx({0.3: 19 / 64, 0.5: 0.5})


def test_costs_are_counted_and_found_again(model):
    shape = (1, 8, 3, 32, 32)
    costs = [gmacs_at(model, shape, ratio) for ratio in (0.2, 0.5, 1.0)]
    assert costs == sorted(costs) and costs[0] > 0
    ratio, gmacs = keep_ratio_of_cost(model, shape, gmacs_at(model, shape, 0.4))
    assert ratio == pytest.approx(0.4, abs=0.02) and gmacs == pytest.approx(gmacs_at(model, shape, 0.4), rel=0.02)
    assert model.config.keep_ratio == 0.5 and model.config.budget_policy is None


# ---- calibration ------------------------------------------------------------------------------------------------------


def test_a_calibrated_probe_from_videos_to_a_hub_folder(tmp_path, videos, model, processor):
    found = calibrate_budget(model, videos, processor=processor, reading=QUIET, hopeless_share=0.1)
    assert found.policy.gauge == "probe" and found.split == "validation"
    assert found.thresholds.n == 20 and found.thresholds.wanted_share == PUBLISHED_EASY_SHARE
    assert found.thresholds.easy_share == pytest.approx(0.5, abs=0.06) and found.thresholds.hopeless_share == 0.1
    assert 0 < found.costs.gauge < found.costs.easy < found.costs.base
    assert found.policy.easy_keep_ratio == 0.3 and 0 <= found.gauge_accuracy <= 1
    assert "GMACs per view" in found.summary() and "10% below" in found.summary()
    found.save(tmp_path)
    saved = json.loads((tmp_path / CALIBRATION_NAME).read_text())
    assert saved["policy"] == found.policy.to_dict() and saved["thresholds"]["n"] == 20
    loaded = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path).eval()
    clips = torch.randn(4, 8, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(clips).logits, model.eval()(clips).logits)
        ratios = found.policy.keep_ratios(confidence_of(model.budget_probe(model.embed_patches(clips))), 0.5)
    assert loaded(clips).realised_keep_ratio.tolist() == pytest.approx([19 / 64 if r == 0.3 else 0.5 for r in ratios])

    report, entries = evaluate_budget(str(tmp_path), videos, reading=QUIET, seed=3, command="here")
    assert report.n == 15 and report.num_views == 1
    assert report.mean_gmacs == pytest.approx(found.costs.mean(report.easy_share))
    assert report.gmacs["fixed"] == pytest.approx(report.mean_gmacs, rel=0.05)
    assert set(report.differences) == {"base", "easy", "fixed", "random"}
    assert {entry.variant for entry in entries} == {
        "LITE++ (probe, keep 0.3 or 0.5)",
        "LITE, keep ratio of equal cost (probe, keep 0.3 or 0.5)",
        "LITE++, budgets at random (probe, keep 0.3 or 0.5)",
    }
    path = ResultsFile(entries).save(tmp_path / "results.json")
    assert ResultsFile.load(path).results[0].protocol["budget_policy"]["gauge"] == "probe"


def test_a_wanted_mean_cost(videos, model, processor):
    base, easy = (gmacs_at(model, (1, 8, 3, 32, 32), ratio) for ratio in (0.5, 0.3))
    wanted = easy + 0.4 * base  # a cascade that runs on with two clips of five
    found = calibrate_budget(model, videos, gauge="cascade", mean_gmacs=wanted, processor=processor, reading=QUIET)
    assert found.costs == BudgetCosts(base, easy, 0.0, cascade=True)
    assert found.thresholds.wanted_share == pytest.approx(0.6)
    assert found.costs.mean(found.thresholds.easy_share) == pytest.approx(wanted, rel=0.05)
    assert model.budget_probe is None and model.config.budget_policy["gauge"] == "cascade"
    with pytest.raises(CalibrationError, match="cannot be reached"):
        calibrate_budget(model, videos, gauge="cascade", mean_gmacs=easy / 2, processor=processor, reading=QUIET)


def test_a_share_that_saves_nothing_is_said_to(videos, model, processor):
    found = calibrate_budget(model, videos, gauge="cascade", share=0.3, processor=processor, reading=QUIET)
    assert "no less than the base budget" in found.summary()


def test_any_callable_as_a_gauge(videos, model, processor):
    found = calibrate_budget(
        model,
        videos,
        gauge=lambda clips: clips.std((1, 2, 3, 4)).sigmoid(),
        share=0.4,
        processor=processor,
        reading=QUIET,
    )
    assert found.policy.gauge == "model" and found.gauge_accuracy is None and found.temperature is None
    assert found.policy.gauge_model is None and found.costs.gauge == 0
    report, _ = evaluate_budget(
        model, videos, split="validation", processor=processor, reading=QUIET, compare_fixed=False
    )
    assert report.easy_share == pytest.approx(found.thresholds.easy_share)
    assert report.accuracy["adaptive"] == pytest.approx(found.held_out["adaptive"])
    assert "fixed" not in report.differences and report.calibration_error is None


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A small X3D that knows the same classes in another order, saved with a processor of its own."""
    from tests.test_students import SMALL

    folder = tmp_path_factory.mktemp("student")
    config = X3DConfig(**SMALL["x3d"], num_frames=4, image_size=24)
    torch.manual_seed(0)
    small = open_classifier(config, CLASSES[::-1]).eval()
    with torch.no_grad():
        small.classifier.weight.mul_(60)
    small.save_pretrained(folder)
    EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 24}, crop_size=24).save_pretrained(folder)
    return folder


def test_a_student_as_gauge(tmp_path, videos, model, processor, student):
    found = calibrate_budget(
        model, videos, gauge=str(student), share=0.4, processor=processor, reading=QUIET, time_rounds=2
    )
    fit, policy = found.temperature, found.policy
    assert policy.gauge_model == str(student) and policy.gauge_temperature == fit.temperature != 1
    assert fit.nll_after < fit.nll_before and fit.n == 20 and found.gauge_accuracy == fit.accuracy
    # classes by name, not by number
    gauge = VideoDifficultyGauge.from_pretrained(student, processor)
    logits, labels = [], []
    for index, name in enumerate(sorted(CLASSES)):
        for path in sorted((videos / "validation" / name).iterdir()):
            logits.append(gauge.logits(processor(path, return_tensors="pt")["pixel_values"]).flip(-1)[0])
            labels.append(CLASSES[index])
    names = sorted(CLASSES)
    again = fit_temperature(torch.stack(logits).numpy(), np.asarray([names.index(name) for name in labels]))
    assert again.temperature == pytest.approx(fit.temperature, rel=1e-4)
    # the thresholds are those of calibrated confidences
    own = gauge.with_temperature(fit.temperature)
    confidence = torch.cat([own(processor(path, return_tensors="pt")["pixel_values"])
                            for path in sorted((videos / "validation").rglob("*.mp4"))])  # fmt: skip
    assert float(policy.is_easy(confidence).float().mean()) == pytest.approx(found.thresholds.easy_share)
    assert "negative log-likelihood" in found.summary() and "ms per clip" in found.summary()
    assert 0 < found.costs.gauge < found.costs.easy
    found.save(tmp_path / "lite")
    saved = json.loads((tmp_path / "lite" / CALIBRATION_NAME).read_text())
    assert saved["temperature"]["temperature"] == fit.temperature and saved["timing"]["rounds"] == 2
    # opens back, gauge included
    report, entries = evaluate_budget(
        str(tmp_path / "lite"), videos, split="validation", reading=QUIET, compare_fixed=False
    )
    assert report.easy_share == pytest.approx(found.thresholds.easy_share)
    assert report.calibration_error == pytest.approx(fit.ece_after, abs=1e-6)
    assert report.calibration_error_before == pytest.approx(fit.ece_before, abs=1e-6)
    assert entries[0].protocol["budget_policy"]["gauge_model"] == str(student)


def test_a_gauge_of_other_classes_has_no_temperature(videos, model, processor, student):
    gauge = VideoDifficultyGauge.from_pretrained(student)
    gauge.model.config.id2label = {index: f"other {index}" for index in range(5)}
    found = calibrate_budget(model, videos, gauge=gauge, share=0.4, processor=processor, reading=QUIET)
    assert found.temperature is None and found.gauge_accuracy is None and found.policy.gauge_temperature == 1
    assert "its classes are not the model's" in found.summary()
    assert found.policy.host_mean == list(processor.image_mean)


def test_a_gauge_that_is_nowhere(videos, model, processor):
    with pytest.raises(GaugeNotAvailableError, match="no/such"):
        calibrate_budget(model, videos, gauge="no/such", processor=processor, reading=QUIET)


def test_without_a_validation_split_the_videos_that_training_holds_out(tmp_path, videos, model, processor):
    import shutil

    shutil.copytree(videos / "train", tmp_path / "train")
    shutil.copytree(videos / "test", tmp_path / "test")
    found = calibrate_budget(model, tmp_path, gauge="cascade", share=0.5, processor=processor, reading=QUIET)
    assert found.split == "train (held out)" and found.thresholds.n == 5
    with pytest.raises(CalibrationError, match="makes? its accuracy meaningless"):
        calibrate_budget(model, tmp_path, gauge="cascade", split="test", processor=processor, reading=QUIET)
    forced = calibrate_budget(
        model, tmp_path, gauge="cascade", share=0.5, split="test", force=True, processor=processor, reading=QUIET
    )
    assert forced.split == "test"


def test_a_model_that_cannot_be_calibrated(videos, model, processor):
    config = VideoMAEConfig(image_size=16, patch_size=8, num_frames=2, hidden_size=8, num_hidden_layers=1,
                            num_attention_heads=1, intermediate_size=8)  # fmt: skip
    with pytest.raises(
        CalibrationError, match="need a model with token selection, got VideoMAEForVideoClassification"
    ):
        calibrate_budget(VideoMAEForVideoClassification(config), videos, processor=processor)
    with pytest.raises(CalibrationError, match="give share or mean_gmacs, not both"):
        calibrate_budget(model, videos, share=0.5, mean_gmacs=1.0, processor=processor)
    with pytest.raises(CalibrationError, match="has no budget policy"):
        evaluate_budget(model, videos, processor=processor)
    model.config.problem_type = "multi_label_classification"
    with pytest.raises(CalibrationError, match="several labels"):
        calibrate_budget(model, videos, processor=processor)


def test_a_policy_set_by_hand_is_evaluated_too(videos, model, processor):
    torch.manual_seed(0)
    model.set_budget_policy(BudgetPolicy(0.0, 0.21), probe=BudgetProbe(32, 5))
    report, _ = evaluate_budget(model, videos, processor=processor, reading=QUIET, compare_fixed=False, num_draws=2)
    assert report.n == 15 and len(report.random_draws) == 2


def test_from_the_command_line(tmp_path, videos, model, processor):
    model.save_pretrained(tmp_path / "lite")
    processor.save_pretrained(tmp_path / "lite")
    report().save(tmp_path / "lite")
    where = [
        "--model",
        str(tmp_path / "lite"),
        "--data",
        str(videos),
        "--output-dir",
        str(tmp_path / "out"),
        "--quiet",
    ]
    options = [
        "--gauge",
        "cascade",
        "--share",
        "0.6",
        "--time-rounds",
        "2",
        "--evaluate-on",
        "test",
        "--results",
        str(tmp_path / "r.json"),
    ]
    done = CliRunner().invoke(app, ["select", "calibrate", *where, *options, "--json"])
    assert done.exit_code == 0, done.output
    shown = json.loads(done.stdout)
    assert shown["calibration"]["policy"]["gauge"] == "cascade" and shown["evaluation"]["n"] == 15
    assert shown["calibration"]["thresholds"]["easy_share"] == pytest.approx(0.6, abs=0.06)
    # what is known of the selector's oracle goes along
    assert (tmp_path / "out" / "token_faithfulness.json").is_file()
    loaded = LiteVideoMAEForVideoClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.budget_policy == shown["calibration"]["policy"]
    assert json.loads((tmp_path / "out" / "budget_evaluation.json").read_text()) == shown["evaluation"]
    assert len(ResultsFile.load(tmp_path / "r.json").results) == 3
    assert shown["calibration"]["timing"]["rounds"] == 2
    refused = CliRunner().invoke(app, ["select", "calibrate", *where, "--gauge", "cascade", "--split", "test"])
    assert isinstance(refused.exception, CalibrationError)
