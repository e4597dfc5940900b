# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""From candidates in seconds to what a detector says of each video: windows merged, duplicates suppressed, scores decided on.

Nothing here depends on how windows were put into batches: candidates are ordered by video and window before anything is compared.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch

from .temporal_nms import nms_1d


SCORE_FUSIONS = ("sqrt", "product")


class WindowCandidates(NamedTuple):
    """What the detector says of one window, before suppression.

    Attributes:
        video: which video.
        first: first feature of the window, which orders the windows of a video.
        segments: (N, 2) seconds of the video.
        scores: (N,) probabilities.
        labels: (N,) class numbers.
        num_classes: of the detector.
    """

    video: int
    first: int
    segments: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    num_classes: int


def within_reach(segments, window, reach):
    """Which segments neither begin nor end more than `reach` seconds outside of their window.

    Args:
        segments: (N, 2) seconds.
        window: with its `grid` and `num_steps`; a step stands for half a step on either side of it.
        reach: seconds.

    Returns:
        (N,) bool.
    """
    first, last = window.grid.to_seconds(-0.5) - reach, window.grid.to_seconds(window.num_steps - 0.5) + reach
    return (segments[:, 0] >= first) & (segments[:, 1] <= last)


def merge_windows(windows, num_videos, **suppression):
    """Suppress what overlapping windows say twice.

    Args:
        windows: list of `WindowCandidates`, in any order.
        num_videos: how many videos there are; one without candidates gives no segments.
        **suppression: options of `nms_1d`.

    Returns:
        Per video a dict of "segments" (K, 2) in seconds, "scores" (K,) and "labels" (K,), best first.
    """
    windows = sorted(windows, key=lambda window: (window.video, window.first))
    if any(not 0 <= window.video < num_videos for window in windows):
        raise ValueError(f"windows of videos {sorted({w.video for w in windows})}, but there are {num_videos} videos.")
    if not windows:
        empty = {"segments": torch.zeros(0, 2), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
        return [dict(empty) for _ in range(num_videos)]
    owners = [torch.full_like(window.labels, window.video) for window in windows]
    found = nms_1d(
        *(torch.cat([getattr(window, name) for window in windows]) for name in ("segments", "scores", "labels")),
        videos=torch.cat(owners),
        **suppression,
    )
    sizes = torch.bincount(found.videos, minlength=num_videos).tolist()
    parts = zip(found.segments.split(sizes), found.scores.split(sizes), found.labels.split(sizes), strict=True)
    return [{"segments": segments, "scores": scores, "labels": labels} for segments, scores, labels in parts]


def fuse_video_scores(detections, video_scores, fusion="sqrt", top_k=2, single_class=True):
    """Combine the segments of one video with the scores that a classifier gives the whole video.

    Args:
        detections: dict of segments, scores, labels.
        video_scores: (C,) probabilities of the video's classes.
        fusion: "sqrt" (square root of the product, as ActionFormer's authors) or "product" (as OpenTAD).
        top_k: with a detector of one class, every segment is taken once for each of the video's best `top_k` classes.
        single_class: whether the detector has one class ("some action"). Otherwise a segment's score is combined with that of its
            own class.

    Returns:
        The same kind of dict, best first.

    Raises:
        ValueError: no such fusion, scores that are no probabilities, or too few of them.
    """
    if fusion not in SCORE_FUSIONS:
        raise ValueError(f"`score_fusion` must be one of {SCORE_FUSIONS}, got {fusion!r}.")
    segments, scores, labels = (detections[name] for name in ("segments", "scores", "labels"))
    video_scores = torch.as_tensor(video_scores, dtype=scores.dtype, device=scores.device)
    if video_scores.ndim != 1 or not bool(((video_scores >= 0) & (video_scores <= 1)).all()):
        raise ValueError(f"expected one probability per class of the video, got shape {tuple(video_scores.shape)}.")
    if single_class:
        order = torch.sort(video_scores, descending=True, stable=True)
        best, classes = order.values[:top_k], order.indices[:top_k]
        segments = segments.repeat_interleave(len(best), 0)
        labels = classes.repeat(len(scores))
        scores = scores.repeat_interleave(len(best)) * best.repeat(len(scores))
    else:
        if len(labels) and int(labels.max()) >= len(video_scores):
            raise ValueError(
                f"the detector has class {int(labels.max())}, the video's scores {len(video_scores)} classes."
            )
        scores = scores * video_scores[labels]
    scores = scores.sqrt() if fusion == "sqrt" else scores
    return _ordered({"segments": segments, "scores": scores, "labels": labels})


def decide(detections, duration=None, threshold=None, min_duration=0.0, top_k=None):
    """Cut the segments of one video to it and keep those worth saying.

    Args:
        detections: dict of segments, scores, labels, best first.
        duration: seconds of the video; None: ends are left as they are.
        threshold: lowest score; one number, or {class number: score} with None for all other classes.
        min_duration: shortest segment, in seconds, after cutting.
        top_k: how many at most; None: all.

    Returns:
        The same kind of dict.
    """
    segments, scores, labels = (detections[name] for name in ("segments", "scores", "labels"))
    segments = segments.clamp(min=0, max=duration)
    keep = segments[:, 1] - segments[:, 0] >= min_duration
    keep &= scores >= lowest_scores(labels, scores, threshold)
    return {
        "segments": segments[keep][:top_k],
        "scores": scores[keep][:top_k],
        "labels": labels[keep][:top_k],
    }


def lowest_scores(labels, scores, threshold):
    """The score that each of these labels (N,) has to reach, (N,) like `scores`; see `decide` for `threshold`."""
    if not isinstance(threshold, Mapping):
        return torch.full_like(scores, threshold or 0.0)
    default = threshold.get(None, 0.0)
    return scores.new_tensor([threshold.get(label, default) for label in labels.tolist()])


def _ordered(detections):
    order = torch.sort(detections["scores"], descending=True, stable=True).indices
    return {name: values[order] for name, values in detections.items()}
