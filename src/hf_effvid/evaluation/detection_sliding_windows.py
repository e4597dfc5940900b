"""A detector without training worth the name, on features: windows of typical lengths, each compared with the mean of every class.

    score of class c for a window with mean features m:  softmax over c and the background of  -|m - mean_c|^2 / (2 s^2)

Features are standardised, s^2 is the mean squared distance of training segments to the mean of their class. It is the honest opponent of a trained head:
the same features, no gradient, no order of frames. Overlapping windows are suppressed by soft-NMS.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models.temporal_nms import nms_1d
from ..models.time_grid import TimeGrid


@dataclass(frozen=True)
class TimedFeatures:
    """Features of one video and what happens in it.

    Attributes:
        features: (T, C).
        grid: where the steps lie in time.
        segments: (label, start, end) in seconds; not needed to detect.
        duration: seconds.
    """

    features: np.ndarray
    grid: TimeGrid
    segments: Sequence[tuple[str, float, float]] = ()
    duration: float | None = None


class NearestMeanDetector:
    """Sliding windows and nearest class means; `fit`, then `detect`.

    Args:
        quantiles: of the training lengths, which make the lengths of windows.
        hops_per_window: how many times a window moves until it has moved by its own length.
    """

    def __init__(self, quantiles: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9), hops_per_window: int = 4):
        self.quantiles, self.hops_per_window = tuple(quantiles), hops_per_window

    def fit(self, videos: Sequence[TimedFeatures]) -> "NearestMeanDetector":
        """Means of the classes and of what lies outside of all actions.

        Raises:
            ValueError: no action covers a step.
        """
        steps = np.concatenate([video.features for video in videos]).astype(np.float64)
        self._centre, self._scale = steps.mean(0), steps.std(0) + 1e-6
        pooled: dict[str, list[np.ndarray]] = {}
        idle, lengths = [], []
        for video in videos:
            scaled, seconds = self._scaled(video), video.grid.to_seconds(np.arange(len(video.features)))
            outside = np.ones(len(scaled), dtype=bool)
            for label, start, end in video.segments:
                inside = (seconds >= start) & (seconds < end)
                outside &= ~inside
                if inside.any():
                    pooled.setdefault(label, []).append(scaled[inside].mean(0))
                    lengths.append(end - start)
            idle.append(scaled[outside])
        if not pooled:
            raise ValueError("no annotated action covers a step of the features: nothing can be learnt.")
        self.labels = sorted(pooled)
        means = [np.mean(pooled[label], axis=0) for label in self.labels]
        distances = [((one - mean) ** 2).sum() for label, mean in zip(self.labels, means, strict=True) for one in pooled[label]]  # fmt: skip
        self._spread = max(float(np.mean(distances)), 1e-6)
        idle = np.concatenate(idle)
        self._means = np.stack([*means, idle.mean(0)]) if len(idle) else np.stack(means)
        self.lengths = np.unique(np.quantile(lengths, self.quantiles))
        return self

    def detect(self, video: TimedFeatures, max_segments: int = 200) -> list[dict]:
        """Detections of one video, best first, as `evaluate_detector` takes them."""
        totals = np.concatenate([np.zeros((1, len(self._centre))), self._scaled(video).cumsum(0)])
        count, end = len(totals) - 1, video.grid.to_seconds(len(totals) - 0.5)
        if video.duration is not None:
            end = video.duration
        segments, means = [], []
        for length in self.lengths:
            starts = np.arange(0, max(end - length, 0) + 1e-9, length / self.hops_per_window)
            # a step belongs to a window when its middle does
            first = np.ceil(video.grid.to_steps(starts)).clip(0, count - 1).astype(int)
            stop = np.maximum(np.ceil(video.grid.to_steps(starts + length)).clip(0, count).astype(int), first + 1)
            means.append((totals[stop] - totals[first]) / (stop - first)[:, None])
            segments.append(np.stack([starts, np.minimum(starts + length, end)], axis=1))
        means, segments = np.concatenate(means), np.concatenate(segments)
        distance = ((means[:, None] - self._means[None]) ** 2).sum(-1)
        scores = torch.softmax(torch.from_numpy(-distance / (2 * self._spread)), dim=1)[:, : len(self.labels)]
        classes = torch.arange(len(self.labels)).repeat(len(segments))
        candidates = torch.from_numpy(segments).repeat_interleave(len(self.labels), dim=0)
        kept = nms_1d(candidates, scores.flatten(), classes, max_segments=max_segments)
        return [
            {"segment": segment, "label": self.labels[label], "score": score}
            for segment, label, score in zip(kept.segments.tolist(), kept.labels.tolist(), kept.scores.tolist(), strict=True)
        ]  # fmt: skip

    def _scaled(self, video: TimedFeatures) -> np.ndarray:
        return (np.asarray(video.features, dtype=np.float64) - self._centre) / self._scale
