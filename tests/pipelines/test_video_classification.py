"""The pipeline on every kind of host: equal to the processor and the model called by hand, in any batch, from any source."""

import importlib.util
import io
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VideoMAEImageProcessor, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_effvid import VideoClassificationPipeline, VideoLimits, read_video
from hf_effvid.models.clip_sampling import sample_clips
from hf_effvid.models.video_processing_effvid import crop_frames
from hf_effvid.models.video_reader import VideoTooLarge
from hf_effvid.pipelines import PositionInterpolationError
from hf_effvid.pipelines.clips import ClipRecipe, RecipeError

from .conftest import largest_difference
from .hosts import FRAMES, HOSTS, LABELS, SIZE, scores, video_focalnet, videomae, vivit


KINDS = ["long_mp4", "short_mp4", "clip_webm", "single_mp4", "turned_mp4", "other_mp4", "clip_mkv", "clip_ts"]


@pytest.fixture(scope="module")
def pipes():
    built = {}
    for name, build in HOSTS.items():
        model, processor = build()
        built[name] = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    return built


def by_hand(pipe, path, crop=None, **selection):
    """Read, the model's own processor, the model: logits (K,)."""
    total = len(read_video(path).frames)
    indices = sample_clips(total, FRAMES, **selection)[0]
    frames = read_video(path, indices=indices).frames
    if crop is not None:
        side = min(frames.shape[-2:])
        frames = crop_frames(frames, type("Side", (), {"height": side, "width": side}), crop)
    batch = pipe.video_processor(frames, do_sample_frames=False, return_tensors="pt")
    with torch.no_grad():
        return pipe.model(**batch).logits[0].flatten()


def as_scores(pipe, probabilities):
    return {pipe.model.config.id2label[i]: value for i, value in enumerate(probabilities.tolist())}


# ---- every host ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", ["long_mp4", "clip_webm", "short_mp4"])
def test_equals_processor_and_model_by_hand(pipes, videos, host, kind):
    pipe, path = pipes[host], getattr(videos, kind)
    expected = as_scores(pipe, by_hand(pipe, path).softmax(-1))
    assert scores(pipe(path, top_k=LABELS)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("host", HOSTS)
def test_batches_of_mixed_lengths_equal_single_videos(pipes, videos, host):
    pipe = pipes[host]
    paths = [getattr(videos, kind) for kind in KINDS]
    single = [pipe(path, top_k=LABELS) for path in paths]
    # The videos differ, so that a mix-up could not go unnoticed.
    assert min(largest_difference(single[0], other) for other in single[1:4]) > 1e-4
    for batch_size in (3, 8):
        assert largest_difference(pipe(paths, batch_size=batch_size, top_k=LABELS), single) < 1e-5


@pytest.mark.parametrize("host", HOSTS)
def test_multi_view_averages_clips_and_crops(pipes, videos, host):
    pipe, path = pipes[host], videos.long_mp4
    total, crops = 20, (0.0, 0.5, 1.0)
    frames = read_video(path).frames
    rows = []
    for clip in sample_clips(total, FRAMES, num_clips=2):
        for crop in crops:
            if host == "video_focalnet":
                rows.append(pipe.video_processor.transform_clip(frames[clip], crop))
                continue
            square = crop_frames(frames[clip], type("Side", (), {"height": 48, "width": 48}), crop)
            batch = pipe.video_processor(square, do_sample_frames=False, return_tensors="pt")
            rows.append(batch[pipe.model.main_input_name][0])
    with torch.no_grad():
        logits = pipe.model(torch.stack(rows)).logits.flatten(1)
    for aggregation, expected in (
        ("softmax_mean", logits.softmax(-1).mean(0)),
        ("logit_mean", logits.mean(0).softmax(-1)),
    ):
        for batch_size in (1, 4):
            result = pipe(path, num_clips=2, num_crops=3, aggregation=aggregation, batch_size=batch_size, top_k=LABELS)
            assert scores(result) == pytest.approx(as_scores(pipe, expected), abs=1e-5)


def test_multi_view_takes_the_views_of_the_recipe(pipes, videos):
    pipe = pipes["video_focalnet"]
    asked = pipe(videos.long_mp4, multi_view=True)
    assert largest_difference(asked, pipe(videos.long_mp4, num_clips=2, num_crops=3)) < 1e-6
    assert largest_difference(asked, pipe(videos.long_mp4)) > 1e-5
    plain = pipes["videomae"]
    assert largest_difference(plain(videos.long_mp4, multi_view=True), plain(videos.long_mp4)) == 0


@pytest.mark.parametrize("host", HOSTS)
def test_frame_sampling_rate_is_honoured(pipes, videos, host):
    pipe = pipes[host]
    expected = by_hand(pipe, videos.long_mp4, sampling="dense", frame_stride=3).softmax(-1)
    result = pipe(videos.long_mp4, frame_sampling_rate=3, top_k=LABELS)
    assert scores(result) == pytest.approx(as_scores(pipe, expected), abs=1e-6)
    assert largest_difference(result, pipe(videos.long_mp4, top_k=LABELS)) > 1e-5


@pytest.mark.parametrize("host", HOSTS)
def test_start_and_end(pipes, videos, host):
    pipe = pipes[host]
    frames = read_video(videos.long_mp4).frames[5:15]
    part = pipe(frames, top_k=LABELS)
    assert largest_difference(pipe(videos.long_mp4, start=0.5, end=1.5, top_k=LABELS), part) < 1e-6


@pytest.mark.parametrize("host", HOSTS)
def test_bf16_model_takes_fp32_pixels(videos, host):
    model, processor = HOSTS[host]()
    full = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    expected = full([videos.long_mp4, videos.short_mp4], top_k=LABELS)
    half = VideoClassificationPipeline(model.to(torch.bfloat16), video_processor=processor, device="cpu")
    result = half([videos.long_mp4, videos.short_mp4], batch_size=2, top_k=LABELS)
    for got, wanted in zip(result, expected, strict=True):
        assert scores(got) == pytest.approx(scores(wanted), abs=0.1)


def test_image_processors_of_older_checkpoints(videos):
    model, processor = videomae()
    image_processor = VideoMAEImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    old = VideoClassificationPipeline(model, image_processor=image_processor, device="cpu")
    new = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    assert scores(old(videos.long_mp4)) == pytest.approx(scores(new(videos.long_mp4)), abs=1e-3)


# ---- sizes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS)
def test_other_frame_counts_and_sizes(videos, host):
    model, processor = HOSTS[host]()
    pipe = VideoClassificationPipeline(model, video_processor=processor, num_frames=8, image_size=48, device="cpu")
    rows = pipe.preprocess(videos.long_mp4, num_frames=8)[model.main_input_name]
    assert rows.shape == (1, 8, 3, 48, 48)
    assert len(pipe(videos.long_mp4)) == 5
    assert HOSTS[host]()[1].to_dict() == processor.to_dict()


def test_other_frame_counts_at_call_time_say_what_to_do(videos):
    for build in (videomae, vivit):
        model, processor = build()
        pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
        with pytest.raises(PositionInterpolationError, match="when you build the pipeline"):
            pipe(videos.long_mp4, num_frames=8)
    flexible = VideoClassificationPipeline(*video_focalnet()[:1], video_processor=video_focalnet()[1], device="cpu")
    assert len(flexible(videos.long_mp4, num_frames=6)) == 5


def test_a_recipe_without_a_frame_count_asks_for_one():
    config = SimpleNamespace(model_type="mystery")
    with pytest.raises(RecipeError, match="num_frames="):
        ClipRecipe.of(None, config)
    assert ClipRecipe.of(None, config, num_frames=3).num_frames == 3
    assert ClipRecipe.of(None, SimpleNamespace(model_type="mystery", frames_per_clip=5)).num_frames == 5


# ---- sources ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sampling": "x"}, "sampling must be one of"),
        ({"num_clips": 0}, "num_clips must be an integer >= 1"),
        ({"num_crops": 1.5}, "num_crops must be an integer >= 1"),
        ({"aggregation": "max"}, "aggregation must be one of"),
        ({"short_clip_policy": "pad"}, "short_clip_policy must be one of"),
        ({"target_fps": "fast"}, "target_fps must be a positive number"),
        ({"frame_sampling_rate": 0}, "frame_stride must be an integer >= 1"),
        ({"num_frames": -1}, "num_frames must be an integer >= 1"),
        ({"start": -1.0}, "start must be seconds >= 0"),
        ({"start": "1"}, "start must be seconds >= 0, got '1'"),
        ({"start": 2.0, "end": 1.0}, "end must be seconds after start"),
        ({"window": -1.0}, "window must be a positive number of seconds"),
        ({"window": "1"}, "window must be a positive number of seconds"),
        ({"window": 1e-9}, "window must be at least 0.001 s"),
        ({"window": 1.0, "stride": 0.0}, "stride must be a positive number of seconds"),
    ],
    ids=str,
)
def test_a_wrong_recipe_is_raised_at_once_not_recorded_per_video(pipes, videos, wrong, message):
    for host in HOSTS:
        with pytest.raises(ValueError, match=message):
            pipes[host]([videos.long_mp4, videos.broken_mp4], on_error="record", **wrong)


def test_counts_of_numpy_are_counts(pipes, videos):
    views = pipes["videomae"](videos.long_mp4, num_clips=np.int64(2))
    assert views == pipes["videomae"](videos.long_mp4, num_clips=2)


@pytest.mark.parametrize("host", ["videomae", "video_focalnet"])
def test_every_kind_of_source(pipes, videos, host):
    pipe, path = pipes[host], videos.long_mp4
    data = path.read_bytes()
    frames = read_video(path).frames
    arrays = frames.permute(0, 2, 3, 1).numpy()
    expected = pipe(path)
    sources = [
        str(path),
        data,
        io.BytesIO(data),
        {"bytes": data, "path": None},
        {"bytes": None, "path": str(path)},
        frames,
        arrays,
        [Image.fromarray(frame) for frame in arrays],
        list(arrays),
    ]
    for source in sources:
        assert largest_difference(pipe(source), expected) < 1e-6
    assert largest_difference(pipe(sources, batch_size=4), [expected] * len(sources)) < 1e-5
    assert largest_difference(pipe(torch.stack([frames, frames])), [expected] * 2) < 1e-6


def test_torchcodec_decoder(pipes, videos):
    try:
        from torchcodec.decoders import VideoDecoder
    except Exception as error:
        pytest.skip(f"torchcodec cannot be used here: {error}")
    pipe = pipes["videomae"]
    assert largest_difference(pipe(VideoDecoder(str(videos.long_mp4))), pipe(videos.long_mp4)) < 1e-6


def test_data_sets_and_streams_are_lazy(pipes, videos):
    datasets = pytest.importorskip("datasets")
    pipe = pipes["videomae"]
    paths = [str(videos.long_mp4), str(videos.clip_mkv), str(videos.short_mp4)]
    expected = [pipe(path) for path in paths]
    table = datasets.Dataset.from_dict({"video": paths}).cast_column("video", datasets.Video(decode=False))
    for inputs in (KeyDataset(table, "video"), table, table.to_iterable_dataset(), (path for path in paths)):
        results = pipe(inputs, batch_size=2)
        assert not isinstance(results, list)
        assert largest_difference(list(results), expected) < 1e-5
    assert largest_difference(list(pipe(table.rename_column("video", "clip"), video_column="clip")), expected) < 1e-6

    columns = [table["video"], np.array(paths)]
    if importlib.util.find_spec("torchcodec"):
        columns.append(table.cast_column("video", datasets.Video())["video"])
    for column in columns:
        assert largest_difference(pipe(column, batch_size=2), expected) < 1e-5
    column = table.to_iterable_dataset()["video"]
    assert largest_difference(list(pipe(column, batch_size=2)), expected) < 1e-5
    with pytest.raises(TypeError, match="train"):
        list(pipe(datasets.DatasetDict({"train": table})))

    def endless():
        while True:
            yield paths[0]

    results = pipe(endless(), batch_size=2)
    assert [next(results)[0]["label"] for _ in range(3)] == [expected[0][0]["label"]] * 3


@pytest.mark.parametrize("workers", [1, 3])
def test_decoding_ahead_keeps_the_order(pipes, videos, workers):
    pipe = pipes["videomae"]
    paths = [getattr(videos, kind) for kind in KINDS] + [videos.broken_mp4]
    expected = pipe(paths, on_error="record")
    assert largest_difference(pipe(paths, on_error="record", num_workers=workers, batch_size=3), expected) < 1e-5


# ---- errors ----------------------------------------------------------------------------------------------------------------


def test_a_bad_file_is_one_record_and_the_rest_is_delivered(pipes, videos):
    pipe = pipes["videomae"]
    good = [pipe(videos.long_mp4), pipe(videos.clip_webm)]
    inputs = [videos.broken_mp4, videos.long_mp4, videos.empty_mp4, "missing.mp4", videos.clip_webm, 3]
    for batch_size in (1, 2, 4):
        results = pipe(inputs, on_error="record", batch_size=batch_size)
        assert [result.get("error") if isinstance(result, dict) else None for result in results] == [
            "VideoNotReadable",
            None,
            "VideoEmpty",
            "VideoNotFound",
            None,
            "TypeError",
        ]
        assert results[0]["source"] == str(videos.broken_mp4)
        assert all(set(results[i]) == {"error", "message", "source"} for i in (0, 2, 3, 5))
        assert largest_difference([results[1], results[4]], good) < 1e-6


def test_raising_comes_after_everything_before_it_was_delivered(pipes, videos):
    pipe = pipes["videomae"]
    stream = pipe.iterate([videos.long_mp4, videos.clip_webm, videos.broken_mp4, videos.long_mp4], batch_size=4)
    assert len(next(stream)) == 5
    assert len(next(stream)) == 5
    with pytest.raises(ValueError, match="broken.mp4"):
        next(stream)
    with pytest.raises(ValueError, match="broken.mp4"):
        pipe(videos.broken_mp4)


def test_rows_of_a_data_set_that_cannot_be_produced_are_recorded(pipes, videos):
    class Flaky(torch.utils.data.Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, index):
            if index == 1:
                raise OSError("the disk is gone")
            return str(videos.long_mp4)

    results = list(pipes["videomae"](Flaky(), on_error="record", batch_size=2))
    assert results[1] == {"error": "OSError", "message": "the disk is gone", "source": "item 1"}
    assert len(results[0]) == len(results[2]) == 5
    with pytest.raises(OSError, match="disk"):
        list(pipes["videomae"](Flaky()))


def test_a_model_that_fails_on_one_video_spoils_only_that(videos):
    model, processor = videomae()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    paths = [videos.long_mp4, videos.clip_mkv, videos.other_mp4]
    expected = pipe(paths)
    forbidden = pipe.preprocess(videos.clip_mkv)["pixel_values"]
    forward = model.forward

    def picky(pixel_values, **kwargs):
        if any(torch.equal(row, forbidden[0]) for row in pixel_values):
            raise RuntimeError("out of luck")
        return forward(pixel_values, **kwargs)

    model.forward = picky
    results = pipe(paths, on_error="record", batch_size=3)
    assert results[1] == {"error": "RuntimeError", "message": "out of luck", "source": str(videos.clip_mkv)}
    assert largest_difference([results[0], results[2]], [expected[0], expected[2]]) < 1e-5
    with pytest.raises(RuntimeError, match="out of luck"):
        pipe(paths, batch_size=3)


def test_addresses_are_refused_unless_allowed(pipes):
    pipe = pipes["videomae"]
    for address in ("http://127.0.0.1:9/a.mp4", "https://example.invalid/a.mp4"):
        assert pipe([address], on_error="record")[0]["error"] == "VideoSourceNotAllowed"


def test_limits_and_isolation_reach_the_reader(pipes, videos):
    pipe = pipes["videomae"]
    limits = VideoLimits(max_pixels=100)
    assert pipe([videos.long_mp4], limits=limits, on_error="record")[0]["error"] == "VideoTooLarge"
    isolated = pipe([videos.long_mp4, videos.broken_mp4], isolate=True, on_error="record")
    assert largest_difference(isolated[0], pipe(videos.long_mp4)) == 0
    assert isolated[1]["error"] == "VideoNotReadable"


@pytest.mark.parametrize("host", ["vjepa2", "videomae"])
@pytest.mark.parametrize("crops", [1, 3])
def test_clips_too_large_to_be_held_are_read_in_parts(videos, host, crops):
    model, processor = HOSTS[host]()
    pipe = VideoClassificationPipeline(model, video_processor=processor, num_frames=20, device="cpu")
    views = {"num_crops": crops, "num_clips": 2, "top_k": LABELS}
    frame_bytes = 48 * 64 * 3
    limits = VideoLimits(max_output_bytes=9 * frame_bytes)
    with pytest.raises(VideoTooLarge):
        read_video(videos.twelve_mp4, num_frames=40, limits=limits)
    result = pipe(videos.twelve_mp4, limits=limits, **views)
    assert largest_difference(result, pipe(videos.twelve_mp4, **views)) < 1e-6
    part = {"start": 2.0, "end": 7.0}
    result = pipe(videos.twelve_mp4, limits=limits, **part, **views)
    assert largest_difference(result, pipe(videos.twelve_mp4, **part, **views)) < 1e-6
    with pytest.raises(VideoTooLarge):
        pipe(videos.twelve_mp4, limits=VideoLimits(max_output_bytes=frame_bytes), **views)


def test_a_stream_that_breaks_ends_with_a_record(pipes, videos):
    def paths():
        yield videos.long_mp4
        raise ConnectionError("the queue is gone")

    for workers in (0, 2):
        results = list(pipes["videomae"](paths(), on_error="record", batch_size=4, num_workers=workers))
        assert len(results[0]) == 5
        assert results[1:] == [{"error": "ConnectionError", "message": "the queue is gone", "source": "item 1"}]
        stream = pipes["videomae"](paths(), batch_size=4, num_workers=workers)
        assert largest_difference(next(stream), results[0]) < 1e-6
        with pytest.raises(ConnectionError):
            next(stream)


def test_misspelt_and_impossible_parameters(pipes, videos):
    pipe = pipes["videomae"]
    for wrong, message in (
        ({"top_n": 3}, "top_n"),
        ({"on_error": "ignore"}, "on_error"),
        ({"function_to_apply": "relu"}, "function_to_apply"),
        ({"stride": 1.0}, "window"),
        ({"window": -1.0}, "window"),
        ({"num_clips": 1, "top_k": 1, "sampling": "odd"}, "odd"),
        ({"batch_size": 0}, "batch_size"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": -1}, "top_k"),
        ({"num_crops": 0}, "num_crops"),
        ({"num_clips": 1.5}, "num_clips"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            pipe(videos.long_mp4, **wrong)


# ---- scores ----------------------------------------------------------------------------------------------------------------


def test_multi_label_models(videos):
    model, processor = videomae(problem_type="multi_label_classification")
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    expected = as_scores(pipe, by_hand(pipe, videos.long_mp4).sigmoid())
    assert scores(pipe(videos.long_mp4, top_k=LABELS)) == pytest.approx(expected, abs=1e-6)
    threshold = sorted(expected.values())[1]
    above = pipe(videos.long_mp4, threshold=threshold - 1e-6)
    assert len(above) == LABELS - 1
    assert [one["score"] for one in above] == sorted((one["score"] for one in above), reverse=True)
    assert len(pipe(videos.long_mp4, threshold=threshold - 1e-6, top_k=2)) == 2
    assert pipe(videos.long_mp4, threshold=1.1) == []


def test_function_to_apply_and_regression(videos):
    model, processor = videomae()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    logits = by_hand(pipe, videos.long_mp4)
    raw = pipe(videos.long_mp4, function_to_apply="none", top_k=LABELS)
    assert scores(raw) == pytest.approx(as_scores(pipe, logits), abs=1e-5)
    model.config.problem_type = "regression"
    assert scores(pipe(videos.long_mp4, top_k=LABELS)) == pytest.approx(as_scores(pipe, logits), abs=1e-5)
    assert len(pipe(videos.long_mp4, top_k=1000)) == LABELS


def test_labels_under_string_keys(videos):
    model, processor = videomae()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    expected = pipe(videos.long_mp4)
    model.config.id2label = {str(index): label for index, label in model.config.id2label.items()}
    assert pipe(videos.long_mp4) == expected


# ---- construction ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["vivit", "video_focalnet"])
def test_the_ways_to_build_it(tmp_path, videos, host, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model, processor = HOSTS[host]()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    direct = VideoClassificationPipeline(model, video_processor=processor, device="cpu", top_k=2)
    by_name = VideoClassificationPipeline(tmp_path, device="cpu", top_k=2)
    by_task = pipeline(
        "video-classification",
        model=str(tmp_path),
        pipeline_class=VideoClassificationPipeline,
        device="cpu",
        top_k=2,
        batch_size=3,
    )
    expected = direct([videos.long_mp4, videos.short_mp4])
    assert len(expected[0]) == 2
    for pipe in (by_name, by_task):
        assert largest_difference(pipe([videos.long_mp4, videos.short_mp4]), expected) < 1e-6
    with pytest.raises(ValueError, match="video_processor="):
        VideoClassificationPipeline(model, device="cpu")


@pytest.mark.parametrize("host", ["timesformer", "video_focalnet"])
def test_saved_pipelines_open_again(tmp_path, videos, host):
    model, processor = HOSTS[host]()
    pipe = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    pipe.save_pretrained(tmp_path)
    again = VideoClassificationPipeline(str(tmp_path), device="cpu")
    assert largest_difference(again(videos.long_mp4), pipe(videos.long_mp4)) < 1e-6


def test_defaults_given_at_construction_hold_and_can_be_overridden(videos):
    model, processor = video_focalnet()
    pipe = VideoClassificationPipeline(
        model, video_processor=processor, device="cpu", multi_view=True, on_error="record", top_k=1
    )
    plain = VideoClassificationPipeline(model, video_processor=processor, device="cpu")
    assert largest_difference(pipe(videos.long_mp4), plain(videos.long_mp4, multi_view=True, top_k=1)) == 0
    assert pipe([videos.broken_mp4])[0]["error"] == "VideoNotReadable"
    assert largest_difference(pipe(videos.long_mp4, multi_view=False), plain(videos.long_mp4, top_k=1)) == 0
    assert np.isfinite(pipe(videos.long_mp4, top_k=3)[2]["score"])


def test_progress_bar(pipes, videos, capsys):
    pipes["videomae"]([videos.long_mp4, videos.short_mp4], progress=True)
    assert "2/2" in capsys.readouterr().err
    pipes["videomae"]([videos.long_mp4])
    assert capsys.readouterr().err == ""
