"""Stock processors behind our reader: applied as they are, and translated into recipes."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    VideoMAEConfig,
    VideoMAEImageProcessor,
    VideoMAEVideoProcessor,
    ViTImageProcessor,
    VivitImageProcessor,
    VivitVideoProcessor,
    VJEPA2Config,
    VJEPA2VideoProcessor,
)

from hf_effvid import EffVidVideoProcessor
from hf_effvid.host_processing import (
    frame_size,
    frames_per_clip,
    holds_recipe,
    host_pixels,
    host_views,
    load_processor,
    required_frames_per_clip,
    takes_videos,
    with_recipe,
)


SQUARE = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}


def clip(height=40, width=60, num_frames=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_frames, 3, height, width), dtype=torch.uint8, generator=generator)


def test_what_configurations_say():
    assert frames_per_clip(VideoMAEConfig(num_frames=6)) == 6 and frame_size(VideoMAEConfig(image_size=48)) == 48
    assert frames_per_clip(VJEPA2Config(frames_per_clip=8)) == 8 and frame_size(VJEPA2Config(crop_size=64)) == 64
    silent = SimpleNamespace()
    assert frames_per_clip(silent) is None and frame_size(silent) is None
    with pytest.raises(ValueError, match="SimpleNamespace does not say how many frames"):
        required_frames_per_clip(silent)


@pytest.mark.parametrize(
    ("stock", "videos"),
    [
        (VideoMAEVideoProcessor(**SQUARE), True),
        (VJEPA2VideoProcessor(crop_size=SQUARE["crop_size"]), True),
        (VideoMAEImageProcessor(**SQUARE), False),
        # gives a batch of images where the others give a batch of clips
        (ViTImageProcessor(size=SQUARE["crop_size"]), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_pixels_and_views(stock, videos):
    assert takes_videos(stock) is videos and not holds_recipe(stock)
    frames = clip()
    pixels = host_pixels(stock, frames)
    assert pixels.shape == (4, 3, 32, 32) and pixels.is_floating_point()
    assert torch.equal(host_views(stock, frames), pixels[:, None])
    views = host_views(stock, frames, num_crops=3)
    for view, left in zip(views.unbind(1), (0, 10, 20), strict=True):
        assert torch.equal(view, host_pixels(stock, frames[..., left : left + 40]))


def test_a_processor_without_pixels_is_named():
    class Reader:
        def __call__(self, frames, return_tensors):
            return {"input_values": torch.zeros(1)}

    with pytest.raises(ValueError, match=r"Reader gives \['input_values'\], but the model takes 'pixel_values'"):
        host_pixels(Reader(), clip())


def test_older_checkpoints_have_an_image_processor(tmp_path):
    ViTImageProcessor(size={"height": 24, "width": 24}).save_pretrained(tmp_path)
    assert load_processor(tmp_path).size.height == 24
    with pytest.raises((OSError, ValueError), match="empty"):
        load_processor(tmp_path / "empty")


@pytest.mark.parametrize(
    "stock",
    [
        VideoMAEImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
        VivitImageProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
        VivitImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, offset=False),
        VivitVideoProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
        VideoMAEVideoProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}),
        VivitVideoProcessor(size={"shortest_edge": 20}, crop_size={"height": 16, "width": 16}, do_rescale=False),
    ],
    ids=["videomae", "vivit", "vivit_without_offset", "vivit_video", "videomae_video", "vivit_not_rescaled"],
)
def test_a_recipe_keeps_the_pixels(stock):
    ours = with_recipe(stock, VideoMAEConfig(num_frames=4))
    assert isinstance(ours, EffVidVideoProcessor) and holds_recipe(ours) and ours.num_frames == 4
    # frames that need no resizing: the two libraries' resamplers differ in the last bit
    side = stock.size["shortest_edge"]
    frames = clip(side, side)
    torch.testing.assert_close(ours.transform_clip(frames), host_pixels(stock, frames), atol=1e-5, rtol=1e-5)
