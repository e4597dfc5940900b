# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression of segments in time: hard, soft, with voting. Plain torch, no extension to build, on any device.

A segment is (start, end), in any unit. Suppression goes greedily: take the segment with the highest score, then lower the others
of its class and its video by how much they overlap with it,

    soft (Gaussian, Bodla et al. 2017):  s_j <- s_j * exp(-IoU(i, j)^2 / sigma),  gone when s_j < min_score
    hard:                                s_j gone when IoU(i, j) > iou_threshold

All videos and classes are worked on at once: one round takes the best segment of every video and touches only the candidates of that
segment's class. Since scores only fall, the picks of a video come out in the order of their scores, and the first `max_segments` of
them are what suppression per class, then sorting, then cutting would give. Equal scores: the one that was given first wins, so
that a result depends neither on the device nor on what else is in the batch.
"""

from typing import NamedTuple

import torch


METHODS = ("soft", "hard", "none")
VOTE_WEIGHTS = ("score_iou", "score")

# what the reference implementations add to a length, so that two segments without any still have a union
_LENGTH_EPSILON = 1e-6
# the score of a candidate that is out
GONE = float("-inf")
# pairs of a vote that are held at once
_MAX_VOTE_PAIRS = 2**22
_NOBODY = torch.iinfo(torch.int64).max


class NmsResult(NamedTuple):
    """The K segments that are left, by video, then by falling score.

    Attributes:
        segments: (K, 2).
        scores: (K,), after suppression.
        labels: (K,) int64.
        videos: (K,) int64.
        indices: (K,) int64, which candidates they are. With voting a segment's ends are no longer those of its candidate.
    """

    segments: torch.Tensor
    scores: torch.Tensor
    labels: torch.Tensor
    videos: torch.Tensor
    indices: torch.Tensor


def nms_1d(
    segments,
    scores,
    labels=None,
    *,
    videos=None,
    method="soft",
    iou_threshold=0.1,
    sigma=0.5,
    min_score=0.001,
    max_segments=200,
    class_agnostic=False,
    voting_threshold=0.0,
    voting_weight="score_iou",
):
    """Suppress segments that say the same.

    Args:
        segments: (N, 2) float, start <= end.
        scores: (N,) float, 0 or more.
        labels: (N,) int, classes; None: one class.
        videos: (N,) int, which video a candidate belongs to, so that many are worked on in one call; None: one video.
        method: "soft", "hard", or "none", which only sorts and cuts.
        iou_threshold: overlap above which `hard` drops a segment; soft suppression has no threshold.
        sigma: how gently `soft` lowers scores: towards 0 it drops whatever overlaps, towards infinity nothing.
        min_score: candidates below are dropped. As in the reference implementations, `soft` never drops the best one of a class.
        max_segments: how many are kept per video; None: all.
        class_agnostic: suppress across classes.
        voting_threshold: with class-agnostic suppression, a kept segment becomes the mean of all candidates of its video whose IoU
            with it is at least this, weighted by `voting_weight`; 0: no voting.
        voting_weight: "score_iou" (score times IoU, as ActionFormer's authors) or "score" (as OpenTAD).

    Returns:
        An `NmsResult`; with no candidates an empty one.

    Raises:
        ValueError: an option out of range, shapes that do not fit, numbers that are not finite, a segment that ends before it starts.
    """
    _check_options(method, iou_threshold, sigma, min_score, max_segments, voting_threshold, voting_weight)
    labels = torch.zeros_like(scores, dtype=torch.int64) if labels is None else labels.long()
    videos = torch.zeros_like(labels) if videos is None else videos.long()
    if not torch.is_floating_point(segments) or segments.dtype in (torch.float16, torch.bfloat16):
        segments = segments.float()
    scores = scores.to(segments.dtype)
    _check_candidates(segments, scores, labels, videos)

    alive = torch.arange(len(scores), device=scores.device)
    if method != "soft":
        alive = alive[scores >= min_score]
    if method == "none":
        kept, kept_scores = _sort(scores, videos, alive, max_segments)
    else:
        fall = falling(method, iou_threshold, sigma)
        classes = torch.zeros_like(labels) if class_agnostic else labels
        kept, kept_scores = _suppress(segments, scores, classes, videos, alive, fall, min_score, max_segments)
    kept_segments = segments[kept]
    if class_agnostic and voting_threshold > 0:
        voted = [
            vote(kept_segments[videos[kept] == video], segments[videos == video], scores[videos == video],
                  voting_threshold, voting_weight)
            for video in torch.unique(videos[kept]).tolist()
        ]  # fmt: skip
        kept_segments = torch.cat(voted) if voted else kept_segments
    return NmsResult(kept_segments, kept_scores, labels[kept], videos[kept], kept)


def falling(method, iou_threshold, sigma):
    """What overlapping with a better segment does to scores: `fall(iou, scores) -> scores`, which may write to `iou`."""

    def fall(iou, scores):
        if method == "soft":
            return iou.square_().neg_().div_(sigma).exp_().mul_(scores)
        return scores.masked_fill(iou > iou_threshold, GONE) if method == "hard" else scores

    return fall


def iou_with(start, end, length, picked_start, picked_end, picked_length):
    """IoU of segments with picked ones, shapes that broadcast; `length` is `padded_length(start, end)`."""
    overlap = torch.minimum(end, picked_end).sub_(torch.maximum(start, picked_start)).clamp_(min=0)
    return overlap.div_((length + picked_length).sub_(overlap))


def padded_length(start, end):
    """Lengths of segments, never 0."""
    return end - start + _LENGTH_EPSILON


def segment_iou(first, second):
    """Intersection over union of every pair; 0 for two segments of no length.

    Args:
        first: (N, 2).
        second: (M, 2).

    Returns:
        (N, M).
    """
    overlap = torch.minimum(first[:, None, 1], second[None, :, 1]) - torch.maximum(
        first[:, None, 0], second[None, :, 0]
    )
    overlap = overlap.clamp(min=0)
    union = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None, :] - overlap
    return torch.where(union > 0, overlap / union, torch.zeros_like(union))


def _suppress(segments, scores, labels, videos, alive, fall, min_score, max_segments):
    """The picks (indices, scores), by video and falling score."""
    rows = _Rows(segments, scores, labels, videos, alive)
    picks, values, owners = [], [], []
    while len(picks) != max_segments:
        video, row = rows.next()
        if len(video) == 0:
            break
        picks.append(rows.pick[row])
        values.append(rows.best[row])
        owners.append(video)
        rows.lower(row, fall, min_score)
    if not picks:
        return alive[:0], scores[:0]
    by_video = torch.sort(torch.cat(owners), stable=True).indices
    return torch.cat(picks)[by_video], torch.cat(values)[by_video]


def _sort(scores, videos, alive, max_segments):
    """The best of every video, without any suppression."""
    order = alive[torch.sort(scores[alive], descending=True, stable=True).indices]
    order = order[torch.sort(videos[order], stable=True).indices]
    if max_segments is not None and len(order):
        _, counts = torch.unique_consecutive(videos[order], return_counts=True)
        rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        order = order[rank < max_segments]
    return order, scores[order]


class _Bucket(NamedTuple):
    """Rows of about the same length as a table: R rows, W columns, what is missing filled with candidates that are gone."""

    start: torch.Tensor  # (R, W)
    end: torch.Tensor
    length: torch.Tensor
    live: torch.Tensor  # what is left of the scores
    given: torch.Tensor  # number of the candidate; a row holds them in the order in which they were given


class _Rows:
    """Candidates sorted into one row per video and class, with the best of every row at hand.

    Rows lie in tables whose widths are powers of two: a round reads whole rows, and one crowded class does not widen the others.

    Attributes:
        best: (R,) the highest score of a row, row = video * classes + class.
        column: (R,) where in its row that is.
        pick: (R,) which candidate it is.
    """

    def __init__(self, segments, scores, labels, videos, alive):
        video = torch.unique(videos[alive], return_inverse=True)[1]
        label = torch.unique(labels[alive], return_inverse=True)[1]
        self.num_videos = int(video.max()) + 1 if len(alive) else 0
        self.num_classes = int(label.max()) + 1 if len(alive) else 0
        row, by_row = torch.sort(video * self.num_classes + label, stable=True)
        candidates, num_rows = alive[by_row], self.num_videos * self.num_classes
        size = torch.bincount(row, minlength=num_rows)
        column = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size)[row]

        self.best = scores.new_full((num_rows,), GONE)
        self.column, self.pick = torch.zeros_like(size), torch.full_like(size, _NOBODY)
        self.table, self.place = torch.full_like(size, -1), torch.zeros_like(size)
        self.buckets = []
        for width in sorted({1 << (count - 1).bit_length() for count in size.unique().tolist() if count}):
            rows = torch.nonzero((size <= width) & (size > width // 2))[:, 0]
            self.table[rows], self.place[rows] = len(self.buckets), torch.arange(len(rows), device=rows.device)
            mine = torch.nonzero(self.table[row] == len(self.buckets))[:, 0]
            cells, values = (self.place[row[mine]], column[mine]), candidates[mine]
            empty = segments.new_zeros((len(rows), width))
            start, end = (empty.index_put(cells, segments[values, side]) for side in (0, 1))
            live = empty.fill_(GONE).index_put(cells, scores[values])
            given = torch.full_like(live, _NOBODY, dtype=torch.int64).index_put(cells, values)
            self.buckets.append(_Bucket(start, end, padded_length(start, end), live, given))
            self._note_best(len(self.buckets) - 1, rows, slice(None), live)

    def next(self):
        """The videos that have a candidate left, and the row that holds the best one of each."""
        if self.num_videos == 0:
            return self.pick, self.pick
        best = self.best.view(self.num_videos, self.num_classes)
        highest = best.amax(1, keepdim=True)
        # of equal scores the candidate that was given first
        given = torch.where(best == highest, self.pick.view_as(best), _NOBODY)
        video = torch.nonzero(highest[:, 0] > GONE)[:, 0]
        return video, video * self.num_classes + given.argmin(1)[video]

    def lower(self, row, fall, min_score):
        """Take the best candidate out of each of these rows and lower the others: `fall(iou, scores) -> scores` may write to `iou`."""
        table = self.table[row]
        for number, bucket in enumerate(self.buckets):
            rows = row if len(self.buckets) == 1 else row[table == number]
            if len(rows) == 0:
                continue
            place, column = self.place[rows], self.column[rows][:, None]
            start, end, length, live = (values[place] for values in bucket[:4])
            picked = (values.gather(1, column) for values in (start, end, length))
            lowered = fall(iou_with(start, end, length, *picked), live)
            # also what was gone before: minus infinity, or not a number once it was multiplied by 0
            lowered = torch.where(lowered >= min_score, lowered, GONE).scatter_(1, column, GONE)
            bucket.live[place] = lowered
            self._note_best(number, rows, place, lowered)

    def _note_best(self, number, rows, place, live):
        self.best[rows], self.column[rows] = live.max(1)
        self.pick[rows] = self.buckets[number].given[place].gather(1, self.column[rows][:, None])[:, 0]


def vote(kept, segments, scores, threshold, weight):
    """Kept segments (K, 2) as weighted means of the candidates (N, 2), scores (N,), that overlap with them; see `nms_1d`."""
    voted = []
    for part in kept.split(max(1, _MAX_VOTE_PAIRS // max(1, len(segments)))):
        iou = segment_iou(part, segments)
        weights = torch.where(iou >= threshold, scores[None, :], torch.zeros_like(iou))
        weights = weights * iou if weight == "score_iou" else weights
        total = weights.sum(1, keepdim=True)
        mean = (weights @ segments) / total.clamp(min=torch.finfo(total.dtype).tiny)
        voted.append(torch.where(total > 0, mean, part))
    return torch.cat(voted)


def _check_options(method, iou_threshold, sigma, min_score, max_segments, voting_threshold, voting_weight):
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {METHODS}, got {method!r}.")
    if voting_weight not in VOTE_WEIGHTS:
        raise ValueError(f"`voting_weight` must be one of {VOTE_WEIGHTS}, got {voting_weight!r}.")
    if not sigma > 0:
        raise ValueError(f"`sigma` must be greater than 0, got {sigma}.")
    if not min_score >= 0:
        raise ValueError(f"`min_score` must be 0 or more, got {min_score}.")
    if not (0 <= iou_threshold <= 1 and 0 <= voting_threshold <= 1):
        raise ValueError(f"Overlaps lie between 0 and 1, got {iou_threshold=} and {voting_threshold=}.")
    if max_segments is not None and max_segments < 1:
        raise ValueError(f"`max_segments` must be at least 1, or None for all, got {max_segments}.")


def _check_candidates(segments, scores, labels, videos):
    count = len(scores)
    shapes = [tuple(values.shape) for values in (segments, scores, labels, videos)]
    if shapes != [(count, 2), (count,), (count,), (count,)]:
        raise ValueError(
            f"Expected segments (N, 2) and scores, labels and videos (N,), got {', '.join(map(str, shapes))}."
        )
    if not bool(torch.isfinite(segments).all() & torch.isfinite(scores).all()):
        raise ValueError("Segments and scores must be finite: look at the model's outputs before suppressing them.")
    if bool((scores < 0).any()):
        raise ValueError("Scores must be 0 or more: pass probabilities, not logits.")
    if bool((segments[:, 1] < segments[:, 0]).any()):
        raise ValueError("A segment ends before it starts: expected (start, end).")
