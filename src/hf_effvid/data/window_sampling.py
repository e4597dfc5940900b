"""Which part of a video a detector sees in one training step, and which annotations it keeps there.

Everything counts in units along the video: steps of features, or frames. As detectors are trained: a video that is longer than the
detector sees is cut to a random window in which something happens; a shorter one loses a random bit of its ends; an annotation stays
when enough of it is visible, and is cut to what is.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch


@dataclass(frozen=True)
class WindowSampling:
    """How training windows are drawn.

    Attributes:
        max_steps: steps of the longest window; None: the processor's `window_length`, else the model's `max_sequence_length`.
        min_visible: share of an annotation that has to be visible for it to count.
        crop_ratio: range of the share that is kept of a video that fits; None keeps all of it.
        windows_per_video: windows per video and epoch; None: as many as fit into one, on average.
        require_action: look for a window with an annotation, in videos that have any.
        num_trials: how often to look.
    """

    max_steps: int | None = None
    min_visible: float = 0.5
    crop_ratio: tuple[float, float] | None = (0.9, 1.0)
    windows_per_video: int | None = None
    require_action: bool = True
    num_trials: int = 200

    def __post_init__(self):
        if isinstance(self.crop_ratio, list):  # from a file
            object.__setattr__(self, "crop_ratio", tuple(self.crop_ratio))
        ratio = self.crop_ratio
        if ratio is not None and not (len(ratio) == 2 and 0 < ratio[0] <= ratio[1] <= 1):
            raise ValueError(f"`crop_ratio` must be two numbers in rising order, above 0 and up to 1, got {ratio!r}.")
        if not 0 < self.min_visible <= 1:
            raise ValueError(f"`min_visible` must be above 0 and up to 1, got {self.min_visible!r}.")
        for name in ("max_steps", "windows_per_video", "num_trials"):
            value = getattr(self, name)
            optional = value is None and name != "num_trials"
            if not optional and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")

    @classmethod
    def from_fields(cls, given: "WindowSampling | dict | None") -> "WindowSampling":
        """The sampling itself, or one made of the fields of a dictionary.

        Raises:
            ValueError: fields that do not exist.
        """
        if isinstance(given, cls):
            return given
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given or {}) - set(known))
        if unknown:
            raise ValueError(f"windows: unknown keys {unknown}; known are {known}.")
        return cls(**(given or {}))


def draw_window(
    rng: np.random.Generator,
    total: int,
    longest: int,
    segments: torch.Tensor,
    sampling: WindowSampling,
    margin: float = 0.0,
) -> tuple[int, int]:
    """Draw the part of a video to train on.

    Args:
        rng: where randomness comes from.
        total: units of the video.
        longest: units of the longest window.
        segments: (M, 2) annotations in these units.
        sampling: how.
        margin: units beyond the window in which an annotation is still visible, see `cut_segments`.

    Returns:
        First unit and number of units.
    """
    length = longest
    if total <= longest:
        length = total
        if sampling.crop_ratio is not None:
            low, high = (max(1, round(share * total)) for share in sampling.crop_ratio)
            length = int(rng.integers(low, high + 1))
    spare = total - length
    first = int(rng.integers(spare + 1))
    if spare and sampling.require_action and len(segments):
        for _ in range(sampling.num_trials):
            if len(cut_segments(segments, first, length, sampling.min_visible, margin)[1]):
                break
            first = int(rng.integers(spare + 1))
    return first, length


def cut_segments(
    segments: torch.Tensor, first: float, length: float, min_visible: float, margin: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a window shows of annotations.

    Args:
        segments: (M, 2) in units of the video.
        first, length: the window.
        min_visible: annotations of which less is visible are left out.
        margin: what a feature sees before and after the middle that it stands for; as much of an annotation counts as visible
            beyond the window.

    Returns:
        (M', 2) segments in units of the window, cut to it and its margins; and (M',) which annotations they are.
    """
    cut = segments.clamp(min=first - margin, max=first + length + margin)
    visible = (cut[:, 1] - cut[:, 0]) / (segments[:, 1] - segments[:, 0]).clamp(min=1e-9)
    kept = ((cut[:, 1] > cut[:, 0]) & (visible >= min_visible)).nonzero().flatten()
    return cut[kept] - first, kept
