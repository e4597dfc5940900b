"""The detection pipeline: equal to reader, processor and model by hand, from any source, whatever the batch, one bad file at a time."""

import numpy as np
import pytest
import torch

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, ActionFormerProcessor, read_video
from hf_effvid.models.pipeline_temporal_action_detection import TemporalActionDetectionPipeline
from tests.video_corpus.encode import encode
from tests.video_corpus.mp4_edit import set_matrix


QUARTER_TURN = (0, 1, -1, 0)
LABELS = {0: "jump", 1: "run", 2: "throw"}
TRUNK = {
    "model_type": "video_focalnet",
    "embed_dim": 4,
    "depths": [1],
    "focal_levels": [1],
    "focal_windows": [3],
    "num_frames": 4,
    "initialization": "fan_in",
}
HEAD = {"hidden_size": 8, "num_stem_layers": 1, "num_branch_layers": 1, "attention_window": 3, "id2label": LABELS}
FPS, PER_STEP, LENGTH = 5, 2, 8


def make_detector(**config):
    torch.manual_seed(0)
    model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**{**HEAD, **config})).eval()
    for parameter in model.parameters():  # biases, norms and scales too: nothing is right by being zero or one
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    model.classification_head.output.bias.data.add_(3.0)
    return model


def make_pixel_pipeline(recipe=None, config=None, **options):
    model = make_detector(backbone_config=TRUNK, frames_per_step=PER_STEP, **(config or {}))
    grid = {"feature_stride": PER_STEP, "feature_num_frames": PER_STEP, "feature_fps": FPS, "window_length": LENGTH}
    processor = ActionFormerProcessor(size={"shortest_edge": 20}, crop_size=16, **{**grid, **(recipe or {})})
    return TemporalActionDetectionPipeline(model, video_processor=processor, device="cpu", **options)


@pytest.fixture(scope="module")
def pipe():
    return make_pixel_pipeline()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Paths of real files by name."""
    folder = tmp_path_factory.mktemp("videos")
    upright = encode(size=(64, 48), num_frames=75, rate=10, seed=1)
    times = np.cumsum([0.0] + [0.05 if index % 3 else 0.3 for index in range(59)])
    contents = {
        "long.mp4": upright,
        "turned.mp4": set_matrix(upright, QUARTER_TURN),
        "short.mp4": encode(size=(64, 48), num_frames=3, rate=10, seed=3),
        "uneven.mkv": encode("matroska", size=(64, 48), num_frames=60, times=times.tolist(), seed=4),
        "clip.webm": encode("webm", "libvpx", size=(48, 64), num_frames=41, rate=10, seed=5),
        "broken.mp4": b"not a video at all" * 40,
    }
    for name, data in contents.items():
        (folder / name).write_bytes(bytes(data))
    return {name: folder / name for name in contents}


def by_hand(pipe, frames, seconds, fps=FPS, **decisions):
    """Frames (T, 3, H, W) through processor and model, one window at a time."""
    processor, model = pipe.video_processor, pipe.model
    candidates = []
    for window in processor.plan_windows([-(-len(frames) // PER_STEP)], fps=fps):
        part = frames[window.first * PER_STEP : (window.first + window.num_steps) * PER_STEP]
        with torch.no_grad():
            outputs = model(pixel_values=processor.transform_clip(part)[None])
        candidates += processor.decode_windows(outputs, [window])
    found = processor.merge_windows(candidates, durations=[seconds], **decisions)[0]
    return [
        {"label": LABELS[label], "score": score, "start": start, "end": end}
        for label, score, (start, end) in zip(
            found["labels"].tolist(), found["scores"].tolist(), found["segments"].tolist(), strict=True
        )
    ]


def assert_same(found, expected, tolerance=1e-5):
    assert [one["label"] for one in found] == [one["label"] for one in expected]
    for key in ("score", "start", "end"):
        assert [one[key] for one in found] == pytest.approx([one[key] for one in expected], abs=tolerance)


# ---- equal to reader, processor and model by hand --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["long.mp4", "turned.mp4", "short.mp4", "uneven.mkv", "clip.webm"])
def test_equals_reader_processor_and_model_by_hand(pipe, videos, name):
    clip = read_video(videos[name], target_fps=FPS)
    expected = by_hand(pipe, clip.frames, clip.info.duration)
    found = pipe(videos[name])
    assert len(found) > 3
    assert_same(found, expected)
    assert all(set(one) == {"label", "score", "start", "end"} for one in found)
    assert all(type(one[key]) is float for one in found for key in ("score", "start", "end"))
    assert all(0 <= one["start"] <= one["end"] <= clip.info.duration for one in found)
    scores = [one["score"] for one in found]
    assert scores == sorted(scores, reverse=True)
