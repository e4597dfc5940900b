"""Real video files for checking a checkpoint: small, generated, one of them shorter than any model expects."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_probe_clips(folder: Path) -> list[Path]:
    """Writes two mp4 files into `folder`: 2 s of a moving square, and a clip of 3 frames in another size.

    Returns:
        Their paths.
    """
    return [
        _write(folder / "moving_square.mp4", num_frames=50, height=96, width=128),
        _write(folder / "three_frames.mp4", num_frames=3, height=80, width=64),
    ]


def _write(path: Path, num_frames: int, height: int, width: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, "yuv420p", Fraction(1, 25)
        for number in range(num_frames):
            picture = np.full((height, width, 3), 40, dtype=np.uint8)
            left = int((width - 16) * number / max(1, num_frames - 1))
            picture[height // 2 - 8 : height // 2 + 8, left : left + 16] = (220, 180, 60)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
