"""One decoded frame to upright RGB at the wanted size: colour, orientation, resize."""

import math
import struct
from dataclasses import dataclass

import numpy as np


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


def to_rgb(frame):
    """Convert a PyAV frame to an (H, W, 3) uint8 array with the frame's own colour matrix and range."""
    return frame.reformat(format="rgb24").to_ndarray()


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
