"""One decoded frame to upright RGB at the wanted size: colour, orientation, resize."""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction

import numpy as np


try:
    import av
    import av.filter
except Exception:  # PyAV raises more than ImportError when a bundled library does not fit the system
    av = None

try:
    from PIL import Image
except Exception:
    Image = None


@dataclass(frozen=True)
class Orientation:
    """How stored frames are turned for display: first mirrored left to right, then rotated clockwise.

    Attributes:
        rotation: Clockwise degrees: 0, 90, 180 or 270.
        mirrored: Whether to flip left to right before the rotation.
    """

    rotation: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self):
        return self.rotation in (90, 270)

    def apply(self, pixels):
        """Turn an (H, W, 3) array; returns a view where that is possible."""
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, k=-(self.rotation // 90)) if self.rotation else pixels


def orientation_of_matrix(matrix):
    """Read a display matrix (nine numbers, row-major, as MP4 stores it) as the nearest of the eight orientations."""
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if a * d - b * c == 0:  # a degenerate matrix shows nothing: keep the stored orientation
        return Orientation()
    mirrored = a * d - b * c < 0
    # A row vector times the matrix gives display coordinates with y down: the image of the x axis is (a, b).
    if mirrored:
        a, b = -a, -b
    angle = math.degrees(math.atan2(b, a))
    return Orientation(rotation=int(round(angle / 90.0)) % 4 * 90, mirrored=mirrored)


def orientation_of_frame(frame):
    """Read the orientation that a PyAV frame carries as side data."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except (ValueError, KeyError):
        data = None
    if data is None:
        return Orientation()
    raw = bytes(data)
    return orientation_of_matrix(struct.unpack("=9i", raw[:36])) if len(raw) >= 36 else Orientation()


class RgbConverter:
    """Converts PyAV frames to (H, W, 3) uint8 arrays with each frame's own colour matrix and range.

    One rule for every decoder: chroma lies at the centre of its block, and is interpolated bicubically where FFmpeg
    has no direct 8-bit converter. That is what torchcodec computes. Left to itself, FFmpeg 8 takes the chroma position
    from the stream (H.264 and HEVC say "left") and the fields of interlaced frames one by one, and the same file looks
    different from decoder to decoder. Interlaced frames stay as they are: both fields, not deinterlaced.
    """

    def __init__(self):
        self._graph = None
        self._key = None

    def __call__(self, frame):
        if frame.format.name == "rgb24":
            return frame.to_ndarray()
        key = (frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range)
        if key != self._key:
            self._graph, self._key = _conversion_graph(frame), key
        self._graph.push(frame)
        return self._graph.pull().to_ndarray()


def _conversion_graph(frame):
    graph = av.filter.Graph()
    if hasattr(graph, "threads"):  # PyAV 17; data loader workers bring the parallelism
        graph.threads = 1
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    scale = graph.add("scale", "flags=bicubic:in_chroma_loc=center")
    graph.link_nodes(source, scale, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
    return graph


def output_size(height, width, size):
    """Return the (height, width) that `size` asks for: None keeps, an int sets the shorter side, a pair sets both."""
    if size is None:
        return height, width
    if isinstance(size, int):
        # The longer side is rounded down, as torchvision's resize does.
        short, long = min(height, width), max(height, width)
        scaled = int(size * long / short)
        return (size, scaled) if height <= width else (scaled, size)
    return int(size[0]), int(size[1])


def resize(pixels, height, width):
    """Resize an (H, W, 3) uint8 array with bilinear filtering, antialiased when it shrinks."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    if Image is None:
        raise ImportError("Resizing frames needs Pillow: pip install pillow.")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.BILINEAR))
