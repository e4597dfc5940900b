# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Suppression of segments while the video still runs: what is let go is what suppression of the whole video says, to the last digit.

A segment can be changed only by better segments that overlap with it. Let all candidates that are still to come begin at the `horizon` or
later. Then one that ends before it meets nothing new, and the greedy order of `nms_1d` can be followed as far as it is certain:

    take the best candidate that is left;
    if it is sure: it is picked, now and in every continuation of the video, and lowers what it overlaps with;
    if it is not (it ends after the horizon): whatever it would lower is not sure either, and keeps its score as an upper bound.

So doubt spreads only from better to worse among overlapping segments, and the rest is final.
"""

import torch

from .temporal_nms import GONE, falling, iou_with, padded_length, segment_iou, vote


class StreamingSuppression:
    """`nms_1d` of one video whose candidates come window by window.

    Args:
        method, iou_threshold, sigma, min_score, class_agnostic, voting_threshold, voting_weight: see `nms_1d`. Scores below `min_score` are
            never let go (`nms_1d` keeps a single one, if a class has no better).
        floor: nothing that scores less is of interest; what cannot matter to the rest is forgotten at once.
    """

    def __init__(
        self,
        method="soft",
        iou_threshold=0.1,
        sigma=0.5,
        min_score=0.001,
        class_agnostic=False,
        voting_threshold=0.0,
        voting_weight="score_iou",
        floor=0.0,
    ):
        self.fall = falling(method, iou_threshold, sigma)
        self.floor = max(min_score, floor)
        self.class_agnostic = class_agnostic
        self.voting = (voting_threshold, voting_weight) if class_agnostic and voting_threshold > 0 else None
        nobody = torch.zeros(0, dtype=torch.float64)
        self.waiting = _Candidates(nobody, nobody, nobody, nobody.long())
        self.voters = self.waiting

    def __len__(self):
        return len(self.waiting.live)

    @property
    def ends(self):
        """Seconds at which what still waits ends, (N,)."""
        return self.waiting.end

    def add(self, segments, scores, labels):
        """Take in the candidates of the next window: (N, 2) seconds, (N,), (N,), in the order that `nms_1d` would see them in."""
        segments, scores = segments.double(), scores.double()
        new = _Candidates(segments[:, 0], segments[:, 1], scores, labels.long())
        if self.voting is not None:
            self.voters = self.voters.and_then(new)
        self.waiting = self.waiting.and_then(new.only(scores >= self.floor))

    def settle(self, horizon, now=float("inf")):
        """Let go of what no later candidate can change.

        Args:
            horizon: every later candidate begins at this second or after it.
            now: second up to which the video is known to go; votes must not move an end beyond it.

        Returns:
            Dict of "segments" (K, 2), "scores" (K,), "labels" (K,), best first.
        """
        waiting = self.waiting
        sure = waiting.end <= horizon
        if self.voting is not None and bool(sure.any()):
            beyond = self.voters.only(self.voters.end > now)
            sure &= ~(segment_iou(waiting.segments, beyond.segments) >= self.voting[0]).any(1)
        label = torch.zeros_like(waiting.label) if self.class_agnostic else waiting.label
        picks = [pick for one in label[sure].unique() for pick in self._follow((label == one).nonzero()[:, 0], sure)]
        chosen = torch.tensor(sorted(picks), dtype=torch.int64)  # of equal scores the one given first
        chosen = chosen[torch.sort(waiting.live[chosen], descending=True, stable=True).indices]
        segments, scores, labels = waiting.segments[chosen], waiting.live[chosen], waiting.label[chosen]
        if self.voting is not None and len(chosen):
            segments = vote(segments, self.voters.segments, self.voters.live, *self.voting)
        left = waiting.live >= self.floor
        left[chosen] = False
        self.waiting = waiting.only(left)
        if self.voting is not None:  # those that may still be overlapped
            earliest = torch.cat([self.waiting.start, torch.tensor([horizon]).double()]).min()
            self.voters = self.voters.only(self.voters.end >= earliest)
        return {"segments": segments, "scores": scores, "labels": labels}

    def _follow(self, row, sure):
        """Picks of one row of candidates that suppress each other, as far as they are certain; lowers the scores of the others."""
        start, end, live = (values[row] for values in self.waiting[:3])
        length, certain, still = padded_length(start, end), sure[row].clone(), live.clone()
        picks = []
        while len(still) and bool(certain.any()):
            best = int(still.argmax())
            if still[best] < self.floor:
                break
            iou = iou_with(start, end, length, start[best], end[best], length[best])
            lowered = self.fall(iou, still)
            touched = (lowered != still) & (still > GONE)
            touched[best] = False
            if certain[best]:
                picks.append(best)
                live = torch.where(touched, lowered, live)
                still = torch.where(touched, torch.where(lowered >= self.floor, lowered, GONE), still)
            else:
                certain &= ~touched
            still[best], certain[best] = GONE, False
            certain &= still > GONE
        self.waiting.live[row] = live
        return row[picks].tolist() if picks else []


class _Candidates(tuple):
    """Columns of equal length: start, end, live (what is left of the score), label."""

    def __new__(cls, start, end, live, label):
        return super().__new__(cls, (start, end, live, label))

    start, end, live, label = (property(lambda self, place=place: self[place]) for place in range(4))

    @property
    def segments(self):
        return torch.stack([self.start, self.end], 1)

    def and_then(self, later):
        return _Candidates(*(torch.cat(pair) for pair in zip(self, later, strict=True)))

    def only(self, which):
        return _Candidates(*(values[which] for values in self))
