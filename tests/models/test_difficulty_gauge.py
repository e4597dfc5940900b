"""A classifier that says how hard a clip is: in its own pixels, at its temperature, and back again from the name that a policy holds."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    VideoMAEVideoProcessor,
    VivitConfig,
    VivitForVideoClassification,
    VivitImageProcessor,
)

import hf_effvid
from hf_effvid import EffVidVideoProcessor, LiteVideoMAEForVideoClassification, VideoDifficultyGauge
from hf_effvid.models.budget_gauges import confidence_of
from hf_effvid.models.difficulty_gauge import GaugeNotAvailableError, clip_size
from hf_effvid.models.pixel_statistics import pixel_statistics
from hf_effvid.models.token_budget import BudgetPolicy
from tests.test_students import small

from .test_adaptive_lite_videomae import tiny_model


PLAIN = {"num_frames": 8, "size": {"shortest_edge": 32}, "crop_size": 32}
HOST = EffVidVideoProcessor(**PLAIN)


def student(folder, family="movinet", **recipe):
    """A small student with a processor, saved."""
    model = small(family)
    with torch.no_grad():
        model.classifier.bias.normal_(generator=torch.Generator().manual_seed(3))
    processor = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 28}, crop_size=24, **recipe)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor


def frames(count=2, size=32, num_frames=8):
    return torch.randint(
        0, 255, (count, num_frames, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def as_host(videos, processor=HOST):
    return torch.stack([processor.transform_clip(one) for one in videos])


# ---- the same pixels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "processor",
    [
        EffVidVideoProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], **PLAIN),
        EffVidVideoProcessor(do_normalize=False, **PLAIN),
        EffVidVideoProcessor(do_rescale=False, do_normalize=False, **PLAIN),
        VideoMAEVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        VivitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
    ],
    ids=["normalised", "zero to one", "bytes", "videomae", "vivit"],
)
def test_the_hosts_clips_become_what_the_gauges_processor_makes_of_the_same_frames(processor):
    model, videos = small("movinet"), frames()
    model.config.num_frames = 8
    gauge = VideoDifficultyGauge(model, processor, HOST)
    if isinstance(processor, VivitImageProcessor):
        wanted = processor([list(one) for one in videos], return_tensors="pt")["pixel_values"]
    elif isinstance(processor, EffVidVideoProcessor):
        wanted = as_host(videos, processor)
    else:
        wanted = processor(list(videos), do_sample_frames=False, return_tensors="pt")["pixel_values"]
    scale = 255 if processor.do_rescale is False else 1
    torch.testing.assert_close(gauge.pixels(as_host(videos)), wanted, rtol=0, atol=1e-4 * scale)
    # and back: a host of that kind, a gauge of ours
    back = VideoDifficultyGauge(model, HOST, processor)
    torch.testing.assert_close(back.pixels(wanted), as_host(videos), rtol=0, atol=1e-4)
    assert len(pixel_statistics(processor)[0]) == 3


def test_other_sizes_and_numbers_of_frames(tmp_path):
    model, processor = student(tmp_path)
    gauge = VideoDifficultyGauge(model, processor, HOST)
    videos = frames()
    pixels = gauge.pixels(as_host(videos))
    assert pixels.shape == (2, 4, 3, 24, 24) and not model.training
    middle = processor.transform_clip(videos[0][[1, 3, 5, 7]], do_center_crop=False, size={"height": 24, "width": 24})
    torch.testing.assert_close(pixels[0], middle, rtol=0, atol=0.02)  # rounded to bytes there
    assert gauge.pixels(as_host(videos[:, :2])).shape[1] == 4  # frames repeat
    # clips of the gauge's own processor pass as they are
    own = torch.randn(2, 4, 3, 24, 24)
    torch.testing.assert_close(VideoDifficultyGauge(model, processor).pixels(own), own, rtol=0, atol=1e-5)


def test_what_a_processor_makes_of_a_picture():
    assert clip_size(EffVidVideoProcessor(crop_size=24), 50, 60) == (24, 24)
    assert clip_size(EffVidVideoProcessor(do_center_crop=False, size={"shortest_edge": 30}), 50, 60) == (30, 36)
    assert clip_size(EffVidVideoProcessor(do_center_crop=False, size={"height": 8, "width": 9}), 50, 60) == (8, 9)
    assert clip_size(EffVidVideoProcessor(do_center_crop=False, do_resize=False), 50, 60) == (50, 60)


# ---- confidence ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(temperature=st.floats(0.1, 10.0))
def test_the_temperature_divides_the_logits(temperature):
    model = small("x3d")
    gauge = VideoDifficultyGauge(model, HOST, HOST, temperature)
    clips = as_host(frames(3))
    expected = (gauge.logits(clips) / temperature).softmax(-1).amax(-1)
    torch.testing.assert_close(gauge(clips), expected)
    torch.testing.assert_close(gauge.with_temperature(1.0)(clips), confidence_of(gauge.logits(clips)))
    assert gauge.temperature == temperature  # a copy was changed
    with pytest.raises(ValueError, match="above 0"):
        VideoDifficultyGauge(model, HOST, temperature=0.0)


@pytest.mark.parametrize("family", ["tsm", "x3d", "movinet"])
def test_every_student(family, tmp_path):
    model, processor = student(tmp_path, family)
    gauge = hf_effvid.VideoDifficultyGauge.from_pretrained(tmp_path, HOST)
    confidence = gauge(as_host(frames()))
    assert (
        confidence.shape == (2,) and confidence.dtype == torch.float32 and ((confidence > 0) & (confidence <= 1)).all()
    )
    videos = list(frames(num_frames=4, size=24))
    with torch.no_grad():
        pixels = processor(videos, return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(gauge.of_videos(videos), confidence_of(model(pixels).logits))


def test_a_transformer_of_another_label_space(tmp_path):
    config = VivitConfig(image_size=16, num_frames=4, tubelet_size=[2, 8, 8], hidden_size=16, num_hidden_layers=1,
                         num_attention_heads=2, intermediate_size=16, num_labels=11)  # fmt: skip
    VivitForVideoClassification(config).save_pretrained(tmp_path)
    VivitImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(tmp_path)
    gauge = VideoDifficultyGauge.from_pretrained(tmp_path, HOST)
    assert gauge.pixels(as_host(frames())).shape == (2, 4, 3, 16, 16)
    model = tiny_model()
    model.set_budget_policy(BudgetPolicy(0.0, 0.5, gauge="model"), gauge=gauge)
    assert model(as_host(frames())).realised_keep_ratio.shape == (2,)


# ---- with a policy -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def calibrated(tmp_path):
    """A host with a gauge at a temperature, both saved."""
    student(tmp_path / "student")
    gauge = VideoDifficultyGauge.from_pretrained(tmp_path / "student", HOST, temperature=0.4)
    clips = as_host(frames(6))
    model = tiny_model()
    middle = float(gauge(clips).median())
    model.set_budget_policy(BudgetPolicy(0.0, middle, gauge="model"), gauge=gauge)
    model.save_pretrained(tmp_path / "host")
    return model, gauge, clips, tmp_path


def test_the_policy_names_the_gauge_and_opens_it_again(calibrated):
    model, gauge, clips, folder = calibrated
    policy = BudgetPolicy(**model.config.budget_policy)
    assert policy.gauge_model == str(folder / "student") and policy.gauge_temperature == 0.4
    assert (policy.host_mean, policy.host_std) == pixel_statistics(HOST)
    assert not [name for name in model.state_dict() if "gauge" in name]
    loaded = LiteVideoMAEForVideoClassification.from_pretrained(folder / "host").eval()
    assert loaded.config.budget_policy == model.config.budget_policy
    expected = model(clips)
    assert 0 < (expected.realised_keep_ratio < 0.4).sum() < 6
    found = loaded(clips)  # asks for it, and so loads it
    torch.testing.assert_close(found.logits, expected.logits)
    assert torch.equal(found.realised_keep_ratio, expected.realised_keep_ratio)
    assert loaded.config.budget_policy == model.config.budget_policy and loaded._budget_gauge.temperature == 0.4
    # the policy decides over the temperature, whatever the gauge that is given has
    again = LiteVideoMAEForVideoClassification.from_pretrained(folder / "host").eval()
    again.set_budget_policy(policy, gauge=gauge.with_temperature(5.0))
    torch.testing.assert_close(again.gauge_confidence(clips), gauge(clips))


def test_a_gauge_in_the_folder_of_the_model(calibrated):
    model, _, clips, folder = calibrated
    (folder / "student").rename(folder / "host" / "gauge")
    model.config.budget_policy["gauge_model"] = "gauge"
    model.config.save_pretrained(folder / "host")
    loaded = LiteVideoMAEForVideoClassification.from_pretrained(folder / "host").eval()
    torch.testing.assert_close(loaded(clips).logits, model(clips).logits)


def test_a_gauge_that_is_gone_is_said_with_what_to_do(calibrated):
    model, gauge, clips, folder = calibrated
    (folder / "student").rename(folder / "moved")
    loaded = LiteVideoMAEForVideoClassification.from_pretrained(folder / "host").eval()
    with pytest.raises(GaugeNotAvailableError, match=r"student.*load_budget_gauge"):
        loaded(clips)
    assert loaded(clips, keep_ratio=0.5).logits.shape == (6, 5)
    loaded.load_budget_gauge(str(folder / "moved"))
    torch.testing.assert_close(loaded(clips).logits, model(clips).logits)
    assert loaded.config.budget_policy["gauge_model"] == str(folder / "moved")
    (folder / "moved" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(GaugeNotAvailableError, match="does not open"):
        VideoDifficultyGauge.from_pretrained(folder / "moved")
    with pytest.raises(GaugeNotAvailableError, match="asks no other classifier"):
        tiny_model().load_budget_gauge()


def test_a_gauge_that_does_not_know_the_hosts_pixels_is_refused(tmp_path):
    student(tmp_path)
    with pytest.raises(ValueError, match="host_processor"):
        tiny_model().set_budget_policy(
            BudgetPolicy(0.1, 0.9, gauge="model"), gauge=VideoDifficultyGauge.from_pretrained(tmp_path)
        )
    for wrong in ({"gauge_temperature": 0.0}, {"host_mean": [0.5] * 3}):
        with pytest.raises(ValueError):
            BudgetPolicy(0.1, 0.9, gauge="model", **wrong)


def test_a_copy_of_the_host_keeps_its_gauge(calibrated):
    model, _, clips, _ = calibrated
    torch.testing.assert_close(copy.deepcopy(model)(clips).logits, model(clips).logits)
