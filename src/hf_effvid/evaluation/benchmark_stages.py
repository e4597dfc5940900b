"""What comes before the model: decoding a file and preparing its frames, timed apart."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np

from ..host_processing import holds_recipe, host_pixels
from ..models.video_reader import read_video


@contextlib.contextmanager
def benchmark_video(video) -> Iterator[tuple[object, str]]:
    """`(source, what it is in words)`: the video given, or a generated one that exists inside the context only."""
    if video is not None:
        name = Path(video).name if isinstance(video, (str, Path)) else type(video).__name__
        yield video, f"video {name}"
        return
    with tempfile.TemporaryDirectory(prefix="effvid-bench-") as folder:
        path = Path(folder, "generated.mp4")
        codec = write_panning_texture(path)
        yield str(path), f"generated video, 10 s, 340x256, 30 frames/s, {codec}"


def write_panning_texture(
    path, seconds: int = 10, fps: int = 30, width: int = 340, height: int = 256, seed: int = 0
) -> str:
    """Writes a video that costs a decoder about what a real one does: detail at every scale, moving, with sensor noise.

    Returns:
        The codec used: H.264, or MPEG-4 where PyAV comes without an encoder for the former.
    """
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    generator = np.random.default_rng(seed)
    texture = sum(_noise(generator, 2 ** (k + 2), height, 2 * width) * 0.5**k for k in range(7))
    texture = 128 + 45 * texture
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(seconds * fps):
            offset = number * 2 % width
            frame = texture[:, offset : offset + width] + generator.normal(0, 2, (height, width, 3))
            pixels = np.ascontiguousarray(frame.clip(0, 255).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return codec


def _noise(generator, cells: int, height: int, width: int) -> np.ndarray:
    """(H, W, 3) random field with `cells` cells from side to side, linear in between."""
    grid = generator.normal(size=(cells + 1, 2 * cells + 1, 3))
    rows, columns = np.linspace(0, cells, height), np.linspace(0, 2 * cells, width)
    top, left = np.minimum(rows.astype(int), cells - 1), np.minimum(columns.astype(int), 2 * cells - 1)
    down, right = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = grid[top][:, left] * (1 - right) + grid[top][:, left + 1] * right
    lower = grid[top + 1][:, left] * (1 - right) + grid[top + 1][:, left + 1] * right
    return upper * (1 - down) + lower * down


def stage_steps(processor, num_frames: int, video) -> dict[str, Callable[[], object]]:
    """The two stages as functions without arguments: `{"decode": ..., "preprocess": ...}`.

    `decode` picks the frames as the recipe says and gives them at the size of the file; `preprocess` resizes, crops and
    normalises one such clip. A pipeline may resize while it decodes: that moves work from the second to the first.

    Args:
        processor: ours, with a recipe, or one of transformers; None (nothing saved with the model) times decoding alone.
        num_frames: frames per clip where no recipe says how to pick them.
        video: anything that `read_video` takes.
    """
    if holds_recipe(processor):
        decode = partial(read_video, video, sampler=partial(_recipe_indices, processor))
        return {"decode": decode, "preprocess": partial(processor.transform_clip, decode().frames)}
    decode = partial(read_video, video, num_frames=num_frames)
    if processor is None:
        return {"decode": decode}
    return {"decode": decode, "preprocess": partial(host_pixels, processor, decode().frames)}


def _recipe_indices(processor, info) -> list[int]:
    return processor.frame_indices(info)[0]
