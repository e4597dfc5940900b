"""Detections without looking: what the annotations of the training videos alone are worth on other videos.

A detector that does not beat these has learned nothing from what it sees. All that they know of a video is how long it is:

| baseline                       | segments                                                      | length of a class's segments       |
| ------------------------------ | ------------------------------------------------------------- | ---------------------------------- |
| `whole video`                  | one per class                                                 | that of the video                  |
| `uniform segments`             | tiles, one behind the other, per class                        | median of all annotations          |
| `per-class-prior segments`     | tiles, one behind the other, per class                        | median of the class                |
| `drawn segments`               | many per class, begun anywhere                                | drawn from the class's annotations |

Scores are the share of the class among the training annotations times a random number: nothing tells which segment of a class is right. Phase,
places and scores are drawn anew per seed, and a result is the mean over draws.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from .detection import THUMOS_TIOUS, DetectionReport, evaluate_detector
from .detection_protocol import DetectionError, find_protocol, read_detection_data


# of a last tile that the video cuts short
_SHORTEST_SHARE = 0.5
_DRAWN_PER_CLASS = 100


def training_lengths(ground_truth, subset: str | list[str] | None = None) -> dict[str, np.ndarray]:
    """Lengths in seconds of the annotations of each class, those without length left out.

    Args:
        ground_truth, subset: see `evaluate_detector`.

    Raises:
        DetectionError: the annotations cannot be read, or none has a length.
    """
    data = read_detection_data(ground_truth, {}, find_protocol("default"), subset)
    length = data.truth.end - data.truth.start
    per_class = {name: length[(data.truth.label == number) & (length > 0)] for number, name in enumerate(data.labels)}
    per_class = {name: values for name, values in per_class.items() if len(values)}
    if not per_class:
        raise DetectionError("no training annotation has a length: check the file and `subset`.")
    return per_class


def whole_videos(lengths: Mapping[str, np.ndarray], durations: Mapping[str, float], seed: int = 0) -> dict:
    """Every class from the first second of every video to the last. For arguments and result see `tile_segments`."""
    generator = np.random.default_rng(seed)
    shares = _shares(lengths)
    return {
        name: [_detection(label, (0.0, duration), share, generator) for label, share in shares.items()]
        for name, duration in durations.items()
    }


def tile_segments(
    lengths: Mapping[str, np.ndarray], durations: Mapping[str, float], seed: int = 0, own_length: bool = False
) -> dict:
    """Tile every video with segments of every class.

    Args:
        lengths: of training annotations, see `training_lengths`.
        durations: seconds of the videos to make detections for.
        seed: where the first tile begins, and which tile comes first.
        own_length: the tiles of a class have the median length of its own annotations; otherwise that of all.

    Returns:
        {video: [{"segment": [start, end], "label", "score"}]}, as `evaluate_detector` takes it.
    """
    generator = np.random.default_rng(seed)
    typical = float(np.median(np.concatenate(list(lengths.values()))))
    shares = _shares(lengths)
    found = {}
    for name, duration in durations.items():
        found[name] = [
            _detection(label, segment, shares[label], generator)
            for label, values in lengths.items()
            for segment in _tiles(duration, float(np.median(values)) if own_length else typical, generator)
        ]
    return found


def draw_segments(
    lengths: Mapping[str, np.ndarray],
    durations: Mapping[str, float],
    seed: int = 0,
    per_class: int = _DRAWN_PER_CLASS,
) -> dict:
    """Segments of every class at random places, as long as training annotations of that class.

    Args:
        lengths, durations, seed: see `tile_segments`.
        per_class: segments per class and video.
    """
    generator = np.random.default_rng(seed)
    shares = _shares(lengths)
    found = {}
    for name, duration in durations.items():
        found[name] = []
        for label, values in lengths.items():
            drawn = np.minimum(generator.choice(values, per_class), duration)
            starts = generator.uniform(0, 1, per_class) * (duration - drawn)
            segments = zip(starts, starts + drawn, strict=True)
            found[name] += [_detection(label, segment, shares[label], generator) for segment in segments]
    return found


BASELINES = {
    "whole video": whole_videos,
    "uniform segments": tile_segments,
    "per-class-prior segments": partial(tile_segments, own_length=True),
    "drawn segments": draw_segments,
}


def evaluate_without_pixels(
    name: str,
    training,
    ground_truth,
    tious=THUMOS_TIOUS,
    *,
    training_subset: str | list[str] | None = None,
    subset: str | list[str] | None = None,
    seeds=range(10),
    **options,
) -> list[DetectionReport]:
    """One report per draw of a baseline.

    Args:
        name: one of `BASELINES`.
        training: annotations to take lengths and shares from, see `evaluate_detector`.
        ground_truth, tious, subset: see `evaluate_detector`; every video needs its duration.
        training_subset: only training videos of this subset (or these).
        seeds: of the draws.
        **options: further arguments of `evaluate_detector`.

    Raises:
        ValueError: there is no such baseline.
        DetectionError: annotations cannot be read, or a video has no duration.
    """
    if name not in BASELINES:
        raise ValueError(f"`name` must be one of {', '.join(BASELINES)}, got {name!r}.")
    lengths = training_lengths(training, training_subset)
    data = read_detection_data(ground_truth, {}, find_protocol("default"), subset)
    durations = dict(zip(data.videos, data.durations.tolist(), strict=True))
    unknown = [video for video, duration in durations.items() if not duration > 0]
    if unknown:
        raise DetectionError(
            f"{len(unknown)} videos have no duration, such as {unknown[0]!r}: add it to the ground truth."
        )
    options.setdefault("model_name", f"baseline: {name}")
    return [
        evaluate_detector(
            ground_truth, BASELINES[name](lengths, durations, seed=seed), tious, subset=subset, **options
        )
        for seed in seeds
    ]


def _shares(lengths: Mapping[str, np.ndarray]) -> dict[str, float]:
    total = sum(map(len, lengths.values()))
    return {label: len(values) / total for label, values in lengths.items()}


def _tiles(duration: float, length: float, generator) -> list[tuple[float, float]]:
    """Tiles of one length from a random phase on; at the ends what is left of one, if that is enough."""
    if length >= duration:
        return [(0.0, duration)]
    starts = np.arange(generator.uniform(0, 1) * length - length, duration, length)
    ends = np.minimum(starts + length, duration)
    starts = np.maximum(starts, 0.0)
    enough = ends - starts >= _SHORTEST_SHARE * length
    return list(zip(starts[enough], ends[enough], strict=True))


def _detection(label: str, segment, share: float, generator) -> dict:
    start, end = segment
    return {"segment": [float(start), float(end)], "label": label, "score": share * float(generator.uniform())}
