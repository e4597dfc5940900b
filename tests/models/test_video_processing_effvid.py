"""The recipe of a checkpoint: what it does to a video, and that it survives saving."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, AutoVideoProcessor, VideoMAEVideoProcessor
from transformers.image_utils import SizeDict

from hf_effvid import EffVidVideoProcessor, read_video
from hf_effvid.auto import register
from hf_effvid.models.clip_sampling import sample_clips
from hf_effvid.models.video_processing_effvid import aggregate_views, crop_frames, crop_places, list_videos
from hf_effvid.models.video_reader import VideoLimits, VideoSourceNotAllowed, VideoTooLarge, VideoTooShort
from tests.video_corpus.encode import encode


def make_processor(**changes):
    recipe = {"num_frames": 4, "size": {"shortest_edge": 20}, "crop_size": {"height": 18, "width": 18}}
    return EffVidVideoProcessor(**{**recipe, **changes})


@pytest.fixture(scope="module")
def clip_bytes():
    return encode(size=(64, 48), num_frames=20, rate=10)


@pytest.fixture(scope="module")
def clip_path(clip_bytes, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    path.write_bytes(clip_bytes)
    return path


# ---- one definition of the pixels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [{"shortest_edge": 20}, {"height": 18, "width": 30}, {"shortest_edge": 70}])
@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (50, 50), (90, 34)], ids=str)
def test_resizing_while_decoding_equals_transform_clip(shape, size):
    data = encode(size=shape, num_frames=9)
    processor = make_processor(size=size)
    indices = sample_clips(9, 4)[0]
    full = read_video(data, indices=indices).frames
    assert full.shape == (4, 3, shape[1], shape[0])
    assert torch.equal(processor(data)["pixel_values"][0], processor.transform_clip(full))


def test_other_filters_resize_after_decoding(clip_bytes):
    processor = make_processor(resample=3)
    full = read_video(clip_bytes, indices=sample_clips(20, 4)[0]).frames
    assert torch.equal(processor(clip_bytes)["pixel_values"][0], processor.transform_clip(full))
    assert not torch.equal(processor(clip_bytes)["pixel_values"], make_processor()(clip_bytes)["pixel_values"])


def test_crop_and_normalisation_are_those_of_transformers():
    frames = torch.randint(0, 256, (4, 3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = make_processor(do_resize=False)
    stock = VideoMAEVideoProcessor(
        do_resize=False, crop_size={"height": 18, "width": 18}, image_mean=ours.image_mean, image_std=ours.image_std
    )
    expected = stock(frames, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours(frames, do_sample_frames=False)["pixel_values"], expected)


def test_resizing_is_within_one_grey_level_of_transformers():
    frames = torch.randint(0, 256, (4, 3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = {"do_normalize": False, "do_rescale": False}
    stock = VideoMAEVideoProcessor(size={"shortest_edge": 20}, crop_size={"height": 18, "width": 18}, **plain)
    difference = stock(frames, return_tensors="pt")["pixel_values"] - make_processor(**plain)(frames)["pixel_values"]
    assert difference.abs().max() <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(1, 30))
def test_centre_crop_is_that_of_torchvision(height, width, crop_height, crop_width):
    frames = torch.arange(2 * 3 * height * width).remainder(251).reshape(2, 3, height, width).to(torch.uint8)
    size = SizeDict(height=crop_height, width=crop_width)
    cropped = crop_frames(frames, size)
    assert cropped.shape == (2, 3, crop_height, crop_width)
    if crop_height <= height and crop_width <= width:
        expected = make_processor().center_crop(frames, size)
        assert torch.equal(cropped, expected)


def test_crops_lie_along_the_long_side():
    wide = torch.arange(60, dtype=torch.uint8).expand(1, 3, 18, 60)
    size = SizeDict(height=18, width=18)
    assert [int(crop_frames(wide, size, place)[0, 0, 0, 0]) for place in ("left", "center", "right")] == [0, 21, 42]
    tall = wide.transpose(-1, -2)
    assert [int(crop_frames(tall, size, place)[0, 0, 0, 0]) for place in ("top", "middle", "bottom")] == [0, 21, 42]
    with pytest.raises(ValueError, match="crop must be one of"):
        crop_frames(wide, size, "upper left")


@pytest.mark.parametrize(("height", "width"), [(26, 50), (50, 26), (30, 30)])
def test_crops_on_the_diagonal_lie_top_left_in_the_middle_and_bottom_right(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frames = torch.stack([rows, columns, rows * 0]).to(torch.uint8)[None]
    size = SizeDict(height=18, width=20)
    corners = [crop_frames(frames, size, place, "diagonal")[0, :2, 0, 0].tolist() for place in crop_places(3)]
    assert corners == [[0, 0], [(height - 18) // 2, (width - 20) // 2], [height - 18, width - 20]]
    assert torch.equal(crop_frames(frames, size, "center", "diagonal"), crop_frames(frames, size))
    with pytest.raises(ValueError, match="crop_layout must be one of"):
        crop_frames(frames, size, "left", "upper left")


def test_the_diagonal_is_the_long_side_where_the_short_one_has_the_size_of_the_crop():
    tall = torch.arange(18 * 60 * 3).remainder(251).reshape(1, 3, 60, 18).to(torch.uint8)
    size = SizeDict(height=18, width=18)
    for place in crop_places(3):
        assert torch.equal(crop_frames(tall, size, place, "diagonal"), crop_frames(tall, size, place))


def test_small_frames_are_padded():
    tiny = torch.full((1, 3, 5, 7), 9, dtype=torch.uint8)
    padded = crop_frames(tiny, SizeDict(height=18, width=18))
    assert padded.shape == (1, 3, 18, 18)
    assert int((padded == 9).sum()) == 3 * 5 * 7


# ---- views ---------------------------------------------------------------------------------------------------------------


def test_multi_view_rows_are_clip_major(clip_bytes):
    processor = make_processor(num_clips=2, num_crops=3)
    rows = processor([clip_bytes, clip_bytes], multi_view=True)["pixel_values"]
    assert rows.shape == (12, 4, 3, 18, 18)
    assert torch.equal(rows[:6], rows[6:])
    frames = read_video(clip_bytes, indices=list(range(20))).frames
    clips = processor.frame_indices(SimpleNamespace(num_frames=20, fps=10.0), num_clips=2)
    expected = [processor.transform_clip(frames[clip], crop) for clip in clips for crop in ("left", "center", "right")]
    assert torch.equal(rows[:6], torch.stack(expected))
    assert len({tuple(row.flatten()[:50].tolist()) for row in rows[:6]}) == 6
    assert processor(clip_bytes)["pixel_values"].shape[0] == 1
    assert torch.equal(processor(clip_bytes, num_clips=2, num_crops=3)["pixel_values"], rows[:6])
    assert processor(clip_bytes, num_clips=5)["pixel_values"].shape[0] == 5 * 3


def test_published_views_are_crop_major_in_the_order_left_right_middle(clip_path):
    published = {"sampling": "segment", "frame_stride": 4, "num_clips": 2, "num_crops": 3, "clip_draw": "random"}
    processor = make_processor(
        crop_order=["left", "right", "center"], view_order="crop_first", clip_seed=5, **published
    )
    rows = processor([clip_path, clip_path], multi_view=True)["pixel_values"]
    assert rows.shape[0] == 12 and torch.equal(rows[:6], rows[6:])
    indices = sample_clips(20, 4, sampling="segment", num_clips=2, clip_draw="random", seed="5/clip.mp4")
    clips = [read_video(clip_path, indices=clip).frames for clip in indices]
    wanted = [processor.transform_clip(clip, crop, True) for crop in ("left", "right", "center") for clip in clips]
    assert torch.equal(rows[:6], torch.stack(wanted))
    assert not torch.equal(rows[:6], processor(clip_path, multi_view=True, clip_seed=6)["pixel_values"])
    # the deterministic variant, and crops that the order does not name
    even = make_processor(**published | {"clip_draw": "even"})
    assert torch.equal(
        processor(clip_path, multi_view=True, clip_draw="even", num_crops=2)["pixel_values"]
        .unflatten(0, (2, 2))
        .transpose(0, 1)
        .flatten(0, 1),
        even(clip_path, multi_view=True, num_crops=2)["pixel_values"],
    )


def test_views_on_the_diagonal_are_a_recipe(tmp_path, clip_bytes):
    processor = make_processor(size={"shortest_edge": 24}, num_clips=2, num_crops=3, crop_layout="diagonal")
    processor.save_pretrained(tmp_path)
    saved = EffVidVideoProcessor.from_pretrained(tmp_path)
    rows = saved(clip_bytes, multi_view=True)["pixel_values"]
    assert rows.shape == (6, 4, 3, 18, 18)
    clips = processor.frame_indices(SimpleNamespace(num_frames=20, fps=10.0), num_clips=2)
    whole = make_processor(size={"shortest_edge": 24}, do_center_crop=False)
    frames = [whole.transform_clip(read_video(clip_bytes, indices=clip).frames) for clip in clips]
    height, width = frames[0].shape[-2:]
    assert min(height, width) == 24 and max(height, width) > 24
    corners = [(0, 0), ((height - 18) // 2, (width - 18) // 2), (height - 18, width - 18)]
    wanted = [clip[..., top : top + 18, left : left + 18] for clip in frames for top, left in corners]
    torch.testing.assert_close(rows, torch.stack(wanted))
    single = make_processor(size={"shortest_edge": 24})(clip_bytes)["pixel_values"]
    assert torch.equal(processor(clip_bytes)["pixel_values"], single)


@pytest.mark.parametrize(
    "wrong",
    [{"clip_draw": "x"}, {"view_order": "x"}, {"crop_layout": "x"}, {"num_crops": 2, "crop_order": ["left"]}],
    ids=str,
)
def test_views_that_make_no_sense(wrong):
    with pytest.raises(ValueError, match="|".join(wrong)):
        make_processor(**wrong)


def test_multi_view_size_replaces_the_size_only_for_several_crops(clip_bytes):
    processor = make_processor(size={"shortest_edge": 24}, multi_view_size={"shortest_edge": 18})
    narrow = make_processor(size={"shortest_edge": 18})
    assert torch.equal(
        processor(clip_bytes, num_crops=3)["pixel_values"], narrow(clip_bytes, num_crops=3)["pixel_values"]
    )
    wide = make_processor(size={"shortest_edge": 24})
    assert torch.equal(processor(clip_bytes)["pixel_values"], wide(clip_bytes)["pixel_values"])


def test_aggregation():
    logits = torch.tensor([[2.0, 0.0], [-1.0, 3.0]])
    torch.testing.assert_close(aggregate_views(logits), logits.softmax(-1).mean(0))
    torch.testing.assert_close(aggregate_views(logits, "logit_mean"), logits.mean(0).softmax(-1))
    torch.testing.assert_close(aggregate_views(logits, "softmax_mean", "sigmoid"), logits.sigmoid().mean(0))
    assert aggregate_views(logits.bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="aggregation must be one of"):
        aggregate_views(logits, "median")


# ---- what a video can be ---------------------------------------------------------------------------------------------------


def test_every_kind_of_source_gives_the_same_pixels(clip_bytes, clip_path):
    processor = make_processor()
    frames = read_video(clip_bytes, indices=list(range(20))).frames
    channels_last = frames.permute(0, 2, 3, 1)
    expected = processor(clip_bytes)["pixel_values"]
    sources = {
        "str": str(clip_path),
        "Path": clip_path,
        "file object": io.BytesIO(clip_bytes),
        "bytes value": {"bytes": clip_bytes, "path": None},
        "path value": {"bytes": None, "path": str(clip_path)},
        "tensor": frames,
        "array": channels_last.numpy(),
        "images": [Image.fromarray(frame) for frame in channels_last.numpy()],
        "arrays": list(channels_last.numpy()),
    }
    for name, source in sources.items():
        assert torch.equal(processor(source)["pixel_values"], expected), name
    together = processor(list(sources.values()))["pixel_values"]
    assert torch.equal(together, expected.repeat(len(sources), 1, 1, 1, 1))


def test_torchcodec_decoder(clip_path):
    try:
        from torchcodec.decoders import VideoDecoder
    except Exception as error:
        pytest.skip(f"torchcodec cannot be used here: {error}")
    processor = make_processor()
    assert torch.equal(processor(VideoDecoder(str(clip_path)))["pixel_values"], processor(clip_path)["pixel_values"])


def test_lists_are_flattened_and_frames_are_not():
    video = np.zeros((3, 4, 5, 3), np.uint8)
    assert len(list_videos([[video], [video, video]])) == 3
    assert len(list_videos(list(video))) == 1
    assert len(list_videos(np.stack([video, video]))) == 2
    assert list_videos(video[0])[0].shape == (1, 4, 5, 3)
    assert list_videos("a.mp4") == ["a.mp4"]
    with pytest.raises(ValueError, match="empty list"):
        list_videos([])


def test_grey_and_transparent_frames_become_rgb():
    processor = make_processor()
    assert processor(np.zeros((6, 30, 30, 1), np.uint8))["pixel_values"].shape == (1, 4, 3, 18, 18)
    transparent = [Image.new("RGBA", (30, 30), (255, 0, 0, 255))] * 6
    assert torch.equal(
        processor(transparent)["pixel_values"],
        processor([Image.new("RGB", (30, 30), (255, 0, 0))] * 6)["pixel_values"],
    )


def test_remote_videos_are_refused_even_if_a_downloaded_recipe_asks_for_them(tmp_path):
    make_processor().save_pretrained(tmp_path)
    path = tmp_path / "video_preprocessor_config.json"
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "allow_remote": True, "isolate": False}))
    processor = EffVidVideoProcessor.from_pretrained(tmp_path)
    with pytest.raises(VideoSourceNotAllowed, match="allow_remote"):
        processor("http://127.0.0.1:9/clip.mp4")


def test_limits_reach_the_reader(clip_bytes):
    with pytest.raises(VideoTooLarge):
        make_processor()(clip_bytes, limits=VideoLimits(max_bytes=100))


# ---- time ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_frames", [1, 2, 3, 5])
def test_short_videos_repeat_their_last_frame(num_frames):
    data = encode(num_frames=num_frames)
    processor = make_processor(num_frames=5)
    pixels = processor(data)["pixel_values"][0]
    assert pixels.shape == (5, 3, 18, 18)
    own = torch.stack([processor.transform_clip(frame[None])[0] for frame in read_video(data).frames])
    assert torch.equal(pixels[:num_frames], own)
    assert all(torch.equal(frame, own[-1]) for frame in pixels[num_frames:])


def test_short_videos_can_loop_or_raise():
    frames = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 3, 18, 18) * 50
    raw = {"do_normalize": False, "do_rescale": False, "do_resize": False, "num_frames": 7}
    looped = make_processor(short_clip_policy="loop", **raw)(frames)["pixel_values"]
    assert looped[0, :, 0, 0, 0].tolist() == [0, 50, 100, 0, 50, 100, 0]
    with pytest.raises(VideoTooShort):
        make_processor(short_clip_policy="error", **raw)(frames)


def test_start_and_end_choose_a_part(clip_bytes):
    processor = make_processor()
    frames = read_video(clip_bytes).frames
    expected = processor.transform_clip(frames[5:15][sample_clips(10, 4)[0]])
    assert torch.equal(processor(clip_bytes, start=0.5, end=1.5)["pixel_values"][0], expected)
    with_rate = processor(frames, start=0.5, end=1.5, video_metadata={"total_num_frames": 20, "fps": 10.0})
    assert torch.equal(with_rate["pixel_values"][0], expected)
    with pytest.raises(ValueError, match="need their rate"):
        processor(frames, start=0.5)


def test_num_frames_and_fps_for_one_call(clip_bytes):
    processor = make_processor()
    assert processor(clip_bytes, num_frames=7)["pixel_values"].shape[1] == 7
    assert processor(clip_bytes, fps=3)["pixel_values"].shape[1] == 6
    assert processor(clip_bytes, fps=3, num_frames=7)["pixel_values"].shape[1] == 7
    assert processor(clip_bytes, do_sample_frames=False)["pixel_values"].shape[1] == 20
    with pytest.raises(ValueError, match="frame rate is unknown"):
        processor.sample_frames(SimpleNamespace(num_frames=20, fps=None), fps=3)


def test_dense_recipe_follows_the_clock(clip_bytes):
    processor = make_processor(sampling="dense", frame_stride=1, target_fps=5.0, return_metadata=True)
    metadata = processor(clip_bytes)["video_metadata"][0]
    assert np.diff(metadata.frames_indices).tolist() == [2, 2, 2]
    assert (metadata.total_num_frames, metadata.fps) == (20, 10.0)


def test_isolated_decoding_is_the_same(clip_path):
    processor = make_processor(num_clips=2)
    expected = processor(clip_path, multi_view=True)["pixel_values"]
    assert torch.equal(processor(clip_path, multi_view=True, isolate=True)["pixel_values"], expected)


# ---- saving ----------------------------------------------------------------------------------------------------------------


def test_recipe_survives_saving(tmp_path, clip_bytes):
    register()
    processor = make_processor(
        sampling="dense",
        frame_stride=2,
        target_fps=12.5,
        short_clip_policy="loop",
        num_clips=3,
        num_crops=3,
        multi_view_size={"shortest_edge": 18},
        aggregation="logit_mean",
        horizontal_flip_safe=False,
    )
    processor.save_pretrained(tmp_path)
    for loaded in (EffVidVideoProcessor.from_pretrained(tmp_path), AutoVideoProcessor.from_pretrained(tmp_path)):
        assert loaded.to_dict() == processor.to_dict()
        assert torch.equal(
            loaded(clip_bytes, multi_view=True)["pixel_values"], processor(clip_bytes, multi_view=True)["pixel_values"]
        )
    saved = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert not saved.keys() & {"start", "end", "limits", "isolate", "allow_remote", "multi_view", "video_metadata"}


def test_saving_also_writes_an_image_processor_that_does_the_same(tmp_path):
    processor = make_processor()
    processor.save_pretrained(tmp_path)
    image_processor = AutoImageProcessor.from_pretrained(tmp_path)
    frames = [np.full((18, 18, 3), 40 * i, np.uint8) for i in range(4)]
    pixels = image_processor(frames, return_tensors="pt", do_resize=False)["pixel_values"]
    torch.testing.assert_close(pixels, processor(frames, do_resize=False)["pixel_values"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"sampling": "random"},
        {"short_clip_policy": "pad"},
        {"aggregation": "max"},
        {"num_clips": 0},
        {"num_crops": 1.5},
        {"num_crops": True},
        {"num_frames": 0},
        {"target_fps": -1},
    ],
    ids=str,
)
def test_impossible_recipes_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        make_processor(**wrong)


@pytest.mark.parametrize("wrong", [{"num_crops": 0}, {"num_clips": -1}, {"sampling": "x"}, {"num_frames": 0}], ids=str)
def test_impossible_recipes_for_one_call_are_refused(clip_bytes, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        make_processor()(clip_bytes, **wrong)


def test_misspelt_arguments_are_refused(clip_bytes):
    with pytest.raises(TypeError, match="num_frame"):
        make_processor()(clip_bytes, num_frame=3)


def test_different_shapes_do_not_make_a_batch():
    processor = make_processor(do_center_crop=False)
    videos = [np.zeros((4, 30, 30, 3), np.uint8), np.zeros((4, 30, 50, 3), np.uint8)]
    with pytest.raises(ValueError, match="Clips of different shapes"):
        processor(videos)
    assert [clip.shape[-1] for clip in processor(videos, return_tensors=None)["pixel_values"]] == [20, 33]


@pytest.mark.slow
def test_loads_as_remote_code_without_the_package(tmp_path, clip_path):
    register()
    processor = make_processor()
    processor.save_pretrained(tmp_path)
    torch.save(processor(clip_path)["pixel_values"], tmp_path / "expected.pt")
    code = f"""
import sys, torch
sys.modules["hf_effvid"] = None
from transformers import AutoVideoProcessor
processor = AutoVideoProcessor.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)
assert "transformers_modules" in type(processor).__module__
assert torch.equal(processor({str(clip_path)!r})["pixel_values"], torch.load({str(tmp_path / "expected.pt")!r}))
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_float_frames_keep_their_values():
    frames = torch.rand(4, 3, 18, 18, generator=torch.Generator().manual_seed(0))
    pixels = make_processor(do_rescale=False, do_resize=False)(frames)["pixel_values"][0]
    processor = make_processor()
    expected = tvF.normalize(frames, list(processor.image_mean), list(processor.image_std))
    torch.testing.assert_close(pixels, expected)


def test_crop_places():
    assert crop_places(1) == [0.5] and crop_places(2) == [0.0, 1.0] and crop_places(3) == [0.0, 0.5, 1.0]
