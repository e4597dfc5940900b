"""The detection pipeline: equal to reader, processor and model by hand, from any source, whatever the batch, one bad file at a time."""

import copy
import io
import itertools
import json
import threading
import weakref
from types import SimpleNamespace

import av
import datasets
import numpy as np
import psutil
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import logging

import hf_effvid
from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    ActionFormerProcessor,
    TemporalActionDetectionPipeline,
    VideoError,
    read_video,
)
from hf_effvid.models.clip_backbone import ClipBackbone
from hf_effvid.models.detection_frames import DetectorInputError
from hf_effvid.models.detection_windows import WindowCutter
from hf_effvid.models.time_grid import TimeGrid, window_starts
from hf_effvid.models.video_errors import VideoNotReadable
from hf_effvid.pipelines.feature_extraction import FeatureExtractor
from tests.parity.actionformer_reference import EVALUATIONS, ReferenceCase
from tests.video_corpus.encode import encode, pattern
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
    model = make_detector(**{"backbone_config": TRUNK, "frames_per_step": PER_STEP, **(config or {})})
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


@pytest.mark.parametrize("name", ["turned.mp4", "short.mp4"])
def test_the_own_rate_of_a_file(videos, name):
    pipe = make_pixel_pipeline({"feature_fps": None})
    clip = read_video(videos[name])
    assert_same(pipe(videos[name]), by_hand(pipe, clip.frames, clip.info.duration, fps=clip.info.fps))


def test_a_part_of_a_video(pipe, videos):
    clip = read_video(videos["long.mp4"], target_fps=FPS, start=2.0, end=6.5)
    expected = by_hand(pipe, clip.frames, 4.5)
    shifted = [{**one, "start": one["start"] + 2.0, "end": one["end"] + 2.0} for one in expected]
    assert_same(pipe(videos["long.mp4"], start=2.0, end=6.5), shifted)
    with pytest.raises(VideoError, match="start=50"):
        pipe(videos["long.mp4"], start=50.0)


def test_videos_stretched_to_one_length(videos):
    pipe = make_pixel_pipeline({"resize_length": 6, "window_length": None})
    clip = read_video(videos["long.mp4"], num_frames=6 * PER_STEP)
    plain = make_pixel_pipeline({"window_length": None, "feature_fps": None})
    expected = by_hand(plain, clip.frames, clip.info.duration, fps=6 * PER_STEP / clip.info.duration)
    assert_same(pipe(videos["long.mp4"]), expected)
    in_memory = {"frames": read_video(videos["long.mp4"]).frames, "fps": 10.0}
    assert_same(pipe(in_memory), expected, 1e-4)
    with pytest.raises(ValueError, match="whole"):
        pipe(videos["long.mp4"], window=2.0)


def test_without_windows_in_the_recipe_inputs_are_as_long_as_in_training(videos):
    pipe = make_pixel_pipeline({"window_length": None}, {"max_sequence_length": 5})
    windows = list(pipe.windows(videos["long.mp4"]))
    assert [(window.first, window.num_steps) for window in windows][:3] == [(0, 5), (2, 5), (4, 5)]


def test_padding_to_the_length_that_the_recipe_names(videos):
    pipe = make_pixel_pipeline({"pad_length": LENGTH}, {"mask_after_norm": "nowhere"})
    frames = read_video(videos["short.mp4"], target_fps=FPS).frames
    values = pipe.video_processor.transform_clip(frames)[None]
    missing = LENGTH * PER_STEP - len(frames)
    mask = torch.arange(LENGTH * PER_STEP)[None] < len(frames)
    with torch.no_grad():
        padded = torch.nn.functional.pad(values, (0, 0) * 3 + (0, missing))
        expected = pipe.model(pixel_values=padded, pixel_mask=mask)
        unpadded = pipe.model(pixel_values=values)
    window = next(iter(pipe.windows(videos["short.mp4"])))
    wanted = pipe.video_processor.decode_windows(expected, [window.place])[0]
    for shared in (None, pipe.shared_clips()):
        found = pipe.window_candidates([window], shared=shared)[0]
        torch.testing.assert_close(found.scores, wanted.scores)
    assert not torch.allclose(expected.logits[:, :1], unpadded.logits[:, :1])


@settings(max_examples=100, deadline=None)
@given(
    num_frames=st.integers(1, 90),
    length=st.integers(1, 12),
    overlap=st.floats(0, 0.95),
    per_step=st.integers(1, 4),
)
def test_windows_cut_on_the_way_are_those_of_the_plan(num_frames, length, overlap, per_step):
    cutter = WindowCutter(TimeGrid(0.5, 1.0), length, overlap, per_step)
    windows, most = [], 0
    for index in range(num_frames):
        windows += cutter.push(index)
        most = max(most, len(cutter.kept))
    windows += cutter.finish()
    num_steps = -(-num_frames // per_step)
    assert [window.first for window in windows] == window_starts(num_steps, length, overlap)
    for window in windows:
        stop = min((window.first + window.num_steps) * per_step, num_frames)
        assert window.frames == tuple(range(window.first * per_step, stop))
        assert window.grid.start == 0.5 + window.first
    assert most <= (length + 1) * per_step + max(cutter.hop - length, 0) * per_step


def test_clips_of_overlapping_windows_go_through_the_trunk_once(videos, monkeypatch):
    pipe = make_pixel_pipeline()
    seen = []
    encode = ClipBackbone.encode_clips
    monkeypatch.setattr(
        ClipBackbone, "encode_clips", lambda self, clips: (seen.append(len(clips)), encode(self, clips))[1]
    )
    path = videos["long.mp4"]
    expected = pipe(path)
    # windows of 4 clips begin at frames 0, 8, 16 and 22: each but the last begins with two clips of the one before it
    assert seen == [4, 2, 2, 4]
    seen.clear()
    assert_same(pipe(path, batch_size=3), expected)
    assert seen == [8, 4]
    pipe.model.actionformer.backbone.clips_per_pass = 1
    seen.clear()
    assert_same(pipe(path), expected)
    assert seen == [1] * 12


def test_temporal_adapters_see_whole_windows(videos):
    trunk = {
        "model_type": "videomae",
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_frames": 4,
    }
    trunk |= {"intermediate_size": 12, "patch_size": 8, "image_size": 16}
    pipe = make_pixel_pipeline(config={"backbone_config": trunk, "temporal_adapters": True})
    assert pipe.shared_clips() is None
    clip = read_video(videos["long.mp4"], target_fps=FPS)
    assert_same(pipe(videos["long.mp4"]), by_hand(pipe, clip.frames, clip.info.duration))


# ---- whatever the batch, whatever the source -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [2, 3, 64])
def test_results_do_not_depend_on_the_batch_size(pipe, videos, batch_size):
    paths = [videos[name] for name in ("short.mp4", "long.mp4", "clip.webm", "turned.mp4", "long.mp4")]
    for one, other in zip(pipe(paths, batch_size=batch_size), pipe(paths), strict=True):
        assert_same(one, other)


def test_decoding_ahead_changes_nothing_and_leaves_no_thread(pipe, videos):
    paths = [videos["long.mp4"], videos["broken.mp4"], videos["clip.webm"]]
    one, other, last = pipe(paths, num_workers=1, on_error="record")
    assert [one, last] == pipe([paths[0], paths[2]]) and other["error"] == "VideoNotReadable"
    results = pipe.iterate(paths, num_workers=1)
    next(results)
    results.close()
    assert "read_ahead" not in {thread.name for thread in threading.enumerate()}


def sources(path):
    frames = read_video(path, target_fps=FPS).frames
    pictures = [Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]
    return {
        "str": str(path),
        "bytes": path.read_bytes(),
        "file": io.BytesIO(path.read_bytes()),
        "datasets value": {"bytes": None, "path": str(path)},
        "tensor": frames,
        "array, channels last": frames.permute(0, 2, 3, 1).numpy(),
        "pictures": pictures,
        "frames with a rate": {"frames": frames, "fps": FPS},
        "iterator": {"frames": iter(frames), "fps": FPS},
        "iterator with seconds": {"frames": ((7.0 + index / FPS, one) for index, one in enumerate(pictures))},
    }


def test_every_source_gives_the_same(pipe, videos):
    expected = pipe(videos["long.mp4"])
    for name, source in sources(videos["long.mp4"]).items():
        assert_same(pipe(source), expected, 0.11 if "iterator" in name else 1e-5)  # they do not know the last tenth


def test_frames_at_another_rate_than_the_recipe(pipe, videos):
    frames = read_video(videos["long.mp4"]).frames
    assert_same(pipe(frames, fps=10.0), pipe(videos["long.mp4"]))
    own = make_pixel_pipeline({"feature_fps": None})
    with pytest.raises(DetectorInputError, match="frame rate"):
        own(frames)


def test_decoders(pipe, videos):
    decoders = pytest.importorskip("torchcodec.decoders", reason="torchcodec needs FFmpeg", exc_type=Exception)
    assert_same(pipe(decoders.VideoDecoder(str(videos["long.mp4"]))), pipe(videos["long.mp4"]))


def test_lists_streams_and_data_sets(pipe, videos):
    path = str(videos["long.mp4"])
    expected = pipe(path)
    assert pipe([path]) == [expected] and pipe([]) == []
    taken = []

    def paths():
        for _ in range(3):
            taken.append(path)
            yield path

    stream = pipe(paths())
    assert taken == [] and next(stream) == expected and len(taken) <= 2
    rows = datasets.Dataset.from_dict({"clip": [path, path]})
    assert list(pipe(rows, video_column="clip")) == [expected] * 2
    assert list(pipe(KeyDataset(rows, "clip"))) == [expected] * 2


def test_one_bad_file_never_kills_a_batch(pipe, videos):
    paths = [videos["long.mp4"], videos["broken.mp4"], "nowhere.mp4", videos["clip.webm"]]
    good, broken, absent, last = pipe(paths, on_error="record", batch_size=4)
    assert_same(good, pipe(videos["long.mp4"]))
    assert_same(last, pipe(videos["clip.webm"]))
    assert broken["error"] == "VideoNotReadable" and broken["source"] == str(videos["broken.mp4"])
    assert absent["error"] == "VideoNotFound" and "nowhere.mp4" in absent["message"]
    with pytest.raises(VideoNotReadable):
        pipe(paths)
    results = pipe.iterate(paths)
    assert next(results) == pipe(videos["long.mp4"])
    with pytest.raises(VideoNotReadable):
        next(results)


def test_a_model_that_fails_on_one_window_fails_one_video(videos, monkeypatch):
    pipe = make_pixel_pipeline()
    forward = pipe.model.forward

    def sometimes(input_features, **kwargs):
        if input_features.shape[1] == 1:  # the short one
            raise RuntimeError("out of memory")
        return forward(input_features, **kwargs)

    monkeypatch.setattr(pipe.model, "forward", sometimes)
    found = pipe([videos["short.mp4"], videos["long.mp4"]], on_error="record", batch_size=8)
    assert found[0]["error"] == "RuntimeError" and len(found[1]) > 3


# ---- decisions -------------------------------------------------------------------------------------------------------------


def test_threshold_and_top_k(pipe, videos):
    path = videos["long.mp4"]
    everything = pipe(path)
    middle = everything[len(everything) // 2]["score"]
    assert pipe(path, top_k=2) == everything[:2]
    assert pipe(path, threshold=middle) == [one for one in everything if one["score"] >= middle]
    chosen = pipe(path, threshold={"run": middle, "throw": 1.0})
    assert chosen == [
        one for one in everything if one["score"] >= {"run": middle, "throw": 1.0, "jump": 0.0}[one["label"]]
    ]
    assert 0 < len(chosen) < len(everything)
    for threshold, message in [
        ({"swim": 0.5}, "swim"),
        (1.5, "from 0 to 1"),
        ("best", "operating_points"),
        ("operating_points", "no operating points"),
    ]:
        with pytest.raises(ValueError, match=message):
            pipe(path, threshold=threshold)


def test_operating_points_travel_with_the_model_and_are_the_default(pipe, videos, tmp_path):
    everything = pipe(videos["long.mp4"])
    middle = everything[len(everything) // 2]["score"]
    points = {"jump": 1.0, "run": middle}
    make_pixel_pipeline(config={"operating_points": points}).save_pretrained(tmp_path)
    opened = TemporalActionDetectionPipeline(tmp_path, device="cpu")
    assert opened.model.config.operating_points == points
    expected = [one for one in everything if one["score"] >= {**points, "throw": 0.0}[one["label"]]]
    assert_same(opened(videos["long.mp4"]), expected)
    assert_same(opened(videos["long.mp4"], threshold="operating_points"), expected)
    assert_same(opened(videos["long.mp4"], threshold=0.0), everything)
    with pytest.raises(StrictDataclassError, match="swim"):
        ActionFormerForTemporalActionDetection(ActionFormerConfig(**HEAD, operating_points={"swim": 0.5}))
    for wrong in ({"run": 1.5}, {"run": True}, {"run": "much"}, {1: 0.5}):
        with pytest.raises(StrictDataclassError, match="expected"):
            ActionFormerConfig(**HEAD, operating_points=wrong)


def test_windows_in_seconds(pipe, videos):
    path = videos["long.mp4"]
    other = make_pixel_pipeline({"window_length": 5, "window_overlap": 0.2})
    assert_same(pipe(path, window=2.0, overlap=0.4), other(path))  # a step takes 0.4 s
    assert_same(pipe(path, overlap=1.6), pipe(path))
    for window, overlap in [(-1.0, None), (0, None), (1.0, 1.0), ("2", None)]:
        with pytest.raises(ValueError, match="window"):
            pipe(path, window=window, overlap=overlap)
    with pytest.raises(ValueError, match="longer windows"):
        pipe(path, overlap=10.0)


def test_changes_of_the_recipe(pipe, videos):
    other = make_pixel_pipeline({"nms_method": "hard", "nms_iou_threshold": 0.3, "candidate_top_k": 5})
    found = pipe(videos["long.mp4"], nms_method="hard", nms_iou_threshold=0.3, candidate_top_k=5)
    assert_same(found, other(videos["long.mp4"]))
    with pytest.raises(ValueError, match="nms_method"):
        pipe(videos["long.mp4"], nms_method="gentle")
    with pytest.raises(TypeError, match="top_n"):
        pipe(videos["long.mp4"], top_n=5)
    with pytest.raises(ValueError, match="on_error"):
        pipe(videos["long.mp4"], on_error="ignore")


def test_scores_of_the_whole_video(pipe, videos):
    path = videos["long.mp4"]
    given = {"run": 0.9, "jump": 0.4}
    by_number = pipe(path, video_scores=[0.4, 0.9, 0.0])
    assert by_number and pipe(path, video_scores=given) == by_number
    assert pipe(path, video_scores=[{"label": k, "score": v} for k, v in given.items()]) == by_number
    frames = read_video(path, target_fps=FPS)
    expected = by_hand(pipe, frames.frames, frames.info.duration, video_scores=[torch.tensor([0.4, 0.9, 0.0])])
    assert_same(by_number, expected)
    assert pipe([path, path], video_scores=[given, None]) == [by_number, pipe(path)]
    with pytest.raises(ValueError, match="swim"):
        pipe(path, video_scores={"swim": 0.5})
    with pytest.raises(ValueError, match="fewer"):
        pipe([path, path], video_scores=[given])


def test_a_detector_of_one_class_takes_the_names_of_the_classifier(videos):
    pipe = make_pixel_pipeline(config={"id2label": {0: "action"}})
    found = pipe(
        videos["long.mp4"], video_scores={"long jump": 0.2, "triple jump": 0.7, "rest": 0.1}, threshold={"rest": 1.0}
    )
    assert {one["label"] for one in found} == {"triple jump", "long jump"}
    plain = pipe(videos["long.mp4"])
    assert found[0]["score"] == pytest.approx((plain[0]["score"] * 0.7) ** 0.5)
    assert {one["label"] for one in pipe(videos["long.mp4"], video_scores=[0.1, 0.9, 0.2])} == {"LABEL_1", "LABEL_2"}


# ---- detectors of features -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "index"), EVALUATIONS)
def test_features_give_the_recorded_detections(name, index):
    case = ReferenceCase(name)
    meta = case.record["eval"][index]["meta"]
    padded = case.record["eval"][index]["padded"]
    tests = case.tests
    processor = ActionFormerProcessor(
        feature_stride=meta["feat_stride"],
        feature_num_frames=meta["feat_num_frames"],
        pad_length=padded,
        candidate_threshold=tests["pre_nms_thresh"],
        candidate_top_k=tests["pre_nms_topk"],
        min_steps=tests["duration_thresh"],
        nms_method=tests["nms_method"],
        nms_sigma=tests["nms_sigma"],
        min_score=tests["min_score"],
        max_segments=tests["max_seg_num"],
        class_agnostic=not tests["multiclass_nms"],
        voting_threshold=tests["voting_thresh"],
    )
    pipe = TemporalActionDetectionPipeline(case.model, video_processor=processor, device="cpu")
    features = case.recorded[f"eval{index}.feats"].T
    found = pipe({"input_features": features, "fps": meta["fps"], "duration": meta["duration"]}, threshold=0.0)
    expected = {key: case.recorded[f"eval{index}.final.{key}"] for key in ("segments", "scores", "labels")}
    assert [one["label"] for one in found] == [case.config.id2label[label] for label in expected["labels"].tolist()]
    assert [one["score"] for one in found] == pytest.approx(expected["scores"].tolist(), abs=2e-6)
    ends = [(one["start"], one["end"]) for one in found]
    torch.testing.assert_close(torch.tensor(ends), expected["segments"], rtol=1e-5, atol=5e-5)


def make_feature_pipeline(**recipe):
    model = make_detector(input_size=6)
    processor = ActionFormerProcessor(**{"feature_stride": 4, "feature_num_frames": 16, "window_length": 16, **recipe})
    return TemporalActionDetectionPipeline(model, video_processor=processor, device="cpu")


def test_every_form_of_features_gives_the_same(tmp_path):
    pipe = make_feature_pipeline()
    features = torch.randn(45, 6, generator=torch.Generator().manual_seed(0))
    windows = pipe.video_processor.plan_windows([45], fps=25.0)
    with torch.no_grad():
        outputs = pipe.model(**pipe.video_processor.encode_features([features], windows))
    expected = pipe.video_processor.post_process_temporal_action_detection(outputs, windows)[0]
    found = pipe(features, fps=25.0)
    assert [one["score"] for one in found] == pytest.approx(expected["scores"].tolist(), abs=1e-6)
    assert [one["end"] for one in found] == pytest.approx(expected["segments"][:, 1].tolist(), abs=1e-5)
    np.save(tmp_path / "bare.npy", features.numpy())
    np.savez(tmp_path / "named.npz", feats=features.numpy(), fps=25.0)
    np.savez(tmp_path / "other.npz", clip=features.numpy())
    save_file({"features": features, "fps": torch.tensor(25.0)}, tmp_path / "named.safetensors")
    stored = SimpleNamespace(features=features, stride=4, num_frames=16, fps=25.0, duration=None)
    forms = [features.numpy(), {"features": features}, stored, tmp_path / "bare.npy", str(tmp_path / "named.npz")]
    forms += [tmp_path / "other.npz", tmp_path / "named.safetensors"]
    assert all(pipe(form, fps=25.0) == found for form in forms)
    assert pipe([features, *forms], fps=25.0, batch_size=5)[-1][0]["score"] == pytest.approx(found[0]["score"])
    assert_same(pipe(torch.stack([features] * 2), fps=25.0)[1], found)
    rows = datasets.Dataset.from_dict({"input_features": [features.tolist()], "fps": [25.0]})
    assert_same(next(pipe(rows)), found)
    assert_same(pipe(features, fps=25.0, batch_size=8), found)
    assert make_feature_pipeline(feature_fps=25.0)(features) == found
    whole = make_feature_pipeline(window_length=None)
    assert_same(whole(features, fps=25.0, window=16 * 4 / 25, overlap=8 * 4 / 25), found)
    assert all(one["end"] <= 5.0 for one in pipe({**vars(stored), "duration": 5.0}))


def test_extracted_features_go_in_as_they_come_out(pipe, videos):
    extractor = FeatureExtractor(pipe.model, pipe.video_processor, device="cpu")
    head = make_detector(input_size=pipe.model.config.feature_sizes[0])
    weights = pipe.model.state_dict()
    head.load_state_dict({name: weights[name] for name in head.state_dict()})
    processor = copy.copy(pipe.video_processor)
    processor.window_length = None
    detect = TemporalActionDetectionPipeline(head, video_processor=processor, device="cpu")
    whole = pipe(videos["long.mp4"], window=100.0)
    assert_same(detect(extractor(videos["long.mp4"])), whole)
    assert_same(detect([extractor(videos["long.mp4"])])[0], whole)


def test_the_other_kind_of_input_says_what_to_do(pipe, videos, tmp_path):
    features = make_feature_pipeline()
    with pytest.raises(DetectorInputError, match=r"no backbone.*\(T, 6\)"):
        features(videos["long.mp4"])
    with pytest.raises(DetectorInputError, match="has a backbone"):
        pipe(torch.randn(10, 6))
    found = features([videos["long.mp4"], {"input_features": torch.randn(20, 6), "fps": 25.0}], on_error="record")
    assert found[0]["error"] == "DetectorInputError" and isinstance(found[1], list)
    (tmp_path / "torn.npz").write_bytes(b"PK\3\4")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    stored = {"features": torch.randn(20, 6), "fps": 25.0}
    for source, message in [
        ({"input_features": torch.randn(6, 20), "fps": 25.0}, "transposed"),
        ({"input_features": torch.randn(20, 7), "fps": 25.0}, r"\(T, 6\)"),
        ({"input_features": torch.full((20, 6), float("nan")), "fps": 25.0}, "not finite"),
        (torch.randn(20, 6), "frame rate"),
        ({**stored, "stride": 8}, "feature_stride=8"),
        ({**stored, "num_frames": 8}, "feature_num_frames=8"),
        (tmp_path / "torn.npz", "whole"),
        (tmp_path / "objects.npy", "whole"),
    ]:
        with pytest.raises(DetectorInputError, match=message):
            features(source)
    with pytest.raises(DetectorInputError, match="30 frames per second"):
        make_feature_pipeline(feature_fps=25.0)({**stored, "fps": 30.0})
    with pytest.raises(VideoError, match="no such file"):
        features(tmp_path / "absent.npy", fps=25.0)
    with pytest.raises(ValueError, match="taken whole"):
        features(stored, start=2.0)


# ---- as one of transformers' pipelines -------------------------------------------------------------------------------------


def test_stock_pipeline_opens_a_folder(pipe, videos, tmp_path):
    expected = pipe(videos["long.mp4"])
    pipe.model.save_pretrained(tmp_path / "model")
    pipe.video_processor.save_pretrained(tmp_path / "model")
    pipe.save_pretrained(tmp_path / "whole")
    for folder in ("model", "whole"):
        opened = pipeline("temporal-action-detection", model=str(tmp_path / folder), device="cpu", top_k=2)
        assert type(opened) is hf_effvid.TemporalActionDetectionPipeline
        assert opened(videos["long.mp4"]) == expected[:2]
    opened.model.save_pretrained(tmp_path / "again")
    for folder in ("model", "whole", "again"):  # the pipeline's code goes with the model
        told = json.loads((tmp_path / folder / "config.json").read_text())["custom_pipelines"]
        module, _, name = told["temporal-action-detection"]["impl"].partition(".")
        assert f"class {name}(" in (tmp_path / folder / f"{module}.py").read_text()
        assert told["temporal-action-detection"]["pt"] == ["AutoModel"]
    given = pipeline("temporal-action-detection", model=pipe.model, video_processor=pipe.video_processor, device="cpu")
    assert given(videos["long.mp4"]) == expected


def test_models_and_processors_that_do_not_fit(pipe):
    with pytest.raises(ValueError, match="ActionFormerForTemporalActionDetection"):
        TemporalActionDetectionPipeline(pipe.model.actionformer, video_processor=pipe.video_processor)
    with pytest.raises(ValueError, match="ActionFormerProcessor"):
        TemporalActionDetectionPipeline(pipe.model, video_processor=hf_effvid.EffVidVideoProcessor())
    with pytest.raises(ValueError, match="ActionFormerProcessor"):
        TemporalActionDetectionPipeline(pipe.model)
    with pytest.raises(ValueError, match="feature_stride=2"):
        TemporalActionDetectionPipeline(pipe.model, video_processor=ActionFormerProcessor())


def test_half_precision(videos):
    pipe = make_pixel_pipeline()
    expected = pipe(videos["long.mp4"], top_k=3)
    pipe.model.to(torch.bfloat16)
    found = pipe(videos["long.mp4"], top_k=3)
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in expected], rel=0.1)


@pytest.mark.gpu
def test_on_a_gpu(pipe, videos):
    expected = pipe(videos["long.mp4"], top_k=5)
    other = make_pixel_pipeline()
    other.model.to("cuda")
    other = TemporalActionDetectionPipeline(other.model, video_processor=other.video_processor, device="cuda")
    assert_same(other(videos["long.mp4"], top_k=5, batch_size=2), expected, 1e-3)


def test_a_progress_bar_on_request(pipe, videos, capsys):
    pipe(videos["long.mp4"])
    assert "detecting" not in capsys.readouterr().err  # no terminal
    pipe(videos["long.mp4"], progress=True)
    told = capsys.readouterr()
    assert "7.50/7.50" in told.err and told.out == ""
    pipe([videos["long.mp4"]] * 2, progress=True)
    assert "2/2" in capsys.readouterr().err
    pipe([videos["long.mp4"]] * 2, progress=False)
    assert capsys.readouterr().err == ""
    logging.disable_progress_bar()
    try:
        pipe(videos["long.mp4"], progress=True)
    finally:
        logging.enable_progress_bar()
    assert capsys.readouterr().err == ""


# ---- any length ------------------------------------------------------------------------------------------------------------


def test_windows_keep_no_more_frames_than_they_need(pipe):
    alive, most = set(), 0

    def frames(number):
        nonlocal most
        for index in range(number):
            frame = np.full((24, 24, 3), index % 256, dtype=np.uint8)
            alive.add(index)
            weakref.finalize(frame, alive.discard, index)
            most = max(most, len(alive))
            yield frame

    windows = pipe.windows({"frames": frames(2000), "fps": FPS})
    count, kept = 0, []
    for window in windows:
        count += 1
        kept = [*kept, window][-2:]
    assert count == 2000 // (PER_STEP * LENGTH // 2) - 1
    assert most <= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hours_in_bounded_memory(tmp_path):
    """At 64x64 and 5 frames per second, its frames alone would be 442 MB."""
    pictures = [av.VideoFrame.from_ndarray(pattern(64, 64, index)).reformat(format="yuv420p") for index in range(50)]
    frames = itertools.islice(itertools.cycle(pictures), 7200 * FPS)
    options = {"preset": "ultrafast", "g": str(10 * FPS), "crf": "40"}
    (tmp_path / "long.mp4").write_bytes(
        encode(size=(64, 64), num_frames=7200 * FPS, rate=FPS, frames=frames, options=options)
    )
    pipe = make_pixel_pipeline({"window_length": 128})
    process, sizes = psutil.Process(), []
    pipe.model.register_forward_hook(lambda *_: sizes.append(process.memory_info().rss))
    found = pipe(tmp_path / "long.mp4", batch_size=4, top_k=100)
    assert len(sizes) > 60
    assert (max(sizes) - sizes[5]) / 2**20 < 40
    assert len(found) == 100 and max(one["end"] for one in found) > 6000
