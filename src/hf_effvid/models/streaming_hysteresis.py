# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Two thresholds instead of one: what is clearly there carries what is faint and touches it.

A detection counts if it reaches its threshold, or if it reaches `share` of it and a chain of such detections of its class, each within `gap`
seconds of the next, leads to one that does. So an action that grows fainter for a while is not broken off, and faint ones alone stay out.
"""

from .temporal_decisions import lowest_scores


def hysteresis(detections, threshold, gap=0.0):
    """The detections of a whole video that count.

    Args:
        detections: dict of "segments" (N, 2) seconds, "scores" (N,), "labels" (N,), those that are too faint already left out.
        threshold: the upper one; one number, or {class number: score} with None for all other classes.
        gap: seconds.

    Returns:
        The same kind of dict, in the same order.
    """
    strong = detections["scores"] >= lowest_scores(detections["labels"], detections["scores"], threshold)
    kept = strong.clone()
    for label in detections["labels"].unique():
        rows = (detections["labels"] == label).nonzero()[:, 0]
        for chain in chains(detections["segments"][rows].tolist(), gap):
            kept[rows[chain]] |= bool(strong[rows[chain]].any())
    return {name: values[kept] for name, values in detections.items()}


def chains(segments, gap):
    """Lists of indices of (start, end) that hang together: each within `gap` of another one of its list."""
    found, reached = [], float("-inf")
    for index in sorted(range(len(segments)), key=lambda index: segments[index]):
        start, end = segments[index]
        if start > reached + gap:
            found.append([])
        found[-1].append(index)
        reached = max(reached, end)
    return found


class StreamingHysteresis:
    """`hysteresis` of a video that still runs: says a faint detection when it hangs together with a clear one, forgets it when it cannot.

    Args:
        threshold, gap: see `hysteresis`.
    """

    def __init__(self, threshold, gap=0.0):
        self.threshold, self.gap = threshold, gap
        self.faint = []  # (start, end, label, score), not decided yet
        self.clear = []  # those that counted, and that what is to come may touch

    def add(self, detections):
        """Take in final detections; a list of (start, end, label, score) that count, earlier faint ones among them."""
        least = lowest_scores(detections["labels"], detections["scores"], self.threshold).tolist()
        columns = (detections["segments"].tolist(), detections["labels"].tolist(), detections["scores"].tolist())
        said = []
        for (start, end), label, score, lowest in zip(*columns, least, strict=True):
            one = (start, end, label, score)
            (said if score >= lowest else self.faint).append(one)
        if not self.faint:
            self.clear += said
            return said
        known = self.clear + said
        everything = known + self.faint
        for label in {one[2] for one in self.faint}:
            rows = [row for row, one in enumerate(everything) if one[2] == label]
            for chain in chains([everything[row][:2] for row in rows], self.gap):
                members = [rows[place] for place in chain]
                if min(members) < len(known):
                    said += [everything[row] for row in members if row >= len(known)]
        told = set(map(id, said))
        self.faint = [one for one in self.faint if id(one) not in told]
        self.clear += said
        return said

    def forget(self, alive):
        """Drop what nothing can touch any more.

        Args:
            alive: {label: [(start, end), ...]} where there may still be detections; those under None concern every label.
        """

        def may_be_touched(segments, label):
            places = alive.get(None, []) + alive.get(label, [])
            first, last = min(one[0] for one in segments), max(one[1] for one in segments)
            return any(start <= last + self.gap and first <= end + self.gap for start, end in places)

        left = []
        for label in {one[2] for one in self.faint}:
            mine = [one for one in self.faint if one[2] == label]
            for chain in chains([one[:2] for one in mine], self.gap):
                members = [mine[place] for place in chain]
                left += members if may_be_touched(members, label) else []
        self.faint = left
        self.clear = [one for one in self.clear if may_be_touched([one], one[2])]
