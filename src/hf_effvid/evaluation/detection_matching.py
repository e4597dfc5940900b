"""Which prediction finds which annotation, for all classes, videos and thresholds in one pass; average precision from that.

Greedy matching as in PASCAL VOC and ActivityNet: predictions of a class go by falling score; each takes, among the annotations of its
video and class that no better prediction has taken, the one with the highest IoU, if that reaches the threshold. The thresholds of
one pair are bits of one number, so that a pair is looked at once for all of them.

    precision(k) = TP(k) / k,   recall(k) = TP(k) / G,   AP = sum over recall steps of max_{j >= k} precision(j) / G
"""

from dataclasses import dataclass

import numpy as np

from .detection_protocol import DetectionProtocol, SegmentTable


# pairs of a prediction and an annotation whose IoU is computed at once
_MAX_PAIRS = 2**20


@dataclass(frozen=True)
class Matches:
    """The outcome of matching.

    Attributes:
        order: (P,) predictions by class, then by falling score; the rows of the others follow it.
        found: (P, T) int, the annotation that a prediction takes at each threshold, -1 for none.
        tious: (T,) thresholds, rising.
    """

    order: np.ndarray
    found: np.ndarray
    tious: np.ndarray

    def true_positives(self) -> np.ndarray:
        """(P, T) bool, in the order of `order`."""
        return self.found >= 0


def sort_predictions(predictions: SegmentTable, tie_order: str = "stable") -> np.ndarray:
    """Indices by class, then by falling score."""
    if tie_order == "stable":
        return np.lexsort((-predictions.score, predictions.label))
    by_label = np.argsort(predictions.label, kind="stable")
    parts = np.split(by_label, np.flatnonzero(np.diff(predictions.label[by_label])) + 1)
    return np.concatenate([part[np.argsort(predictions.score[part])[::-1]] for part in parts] or [by_label])


def overlapping_pairs(first: SegmentTable, second: SegmentTable, min_iou: float, same_label=True, protocol=None):
    """Pairs of the same video (and class) whose IoU is at least `min_iou`.

    Args:
        first, second: the two sides.
        min_iou: pairs that overlap less are left out.
        same_label: only pairs of one class.
        protocol: a `DetectionProtocol`: how IoU is computed; infinity stands for a 0/0 that counts as a match.

    Returns:
        Indices into `first`, indices into `second`, IoU; sorted by the first.
    """
    protocol = protocol or DetectionProtocol()
    width = 1 + max(first.label.max(initial=0), second.label.max(initial=0)) if same_label else 0
    keys = [table.video * width + table.label if same_label else table.video for table in (first, second)]
    by_key = np.argsort(keys[1], kind="stable")
    begin = np.searchsorted(keys[1][by_key], keys[0], side="left")
    count = np.searchsorted(keys[1][by_key], keys[0], side="right") - begin
    ends = [np.stack([table.start, table.end]) for table in (first, second)]
    filled = np.cumsum(count)
    parts, row = [], 0
    while row < len(first):
        before = filled[row] - count[row]
        stop = max(row + 1, int(np.searchsorted(filled, before + _MAX_PAIRS, side="right")))
        here = count[row:stop]
        left = np.repeat(np.arange(row, stop), here)
        inner = np.arange(len(left)) - np.repeat(np.cumsum(here) - here, here)
        right = by_key[np.repeat(begin[row:stop], here) + inner]
        iou = _iou(ends[0][:, left], ends[1][:, right], protocol)
        near = iou >= min_iou
        parts.append((left[near], right[near], iou[near].astype(float)))
        row = stop
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    return tuple(np.concatenate(columns) for columns in zip(*parts, strict=True))


def match(truth: SegmentTable, predictions: SegmentTable, tious: np.ndarray, protocol: DetectionProtocol) -> Matches:
    """Match predictions to annotations at every threshold.

    Args:
        truth: annotations.
        predictions: predictions, of the same classes.
        tious: (T,) thresholds, rising, T <= 62.
        protocol: IoU and order of ties.
    """
    order = sort_predictions(predictions, protocol.tie_order)
    ranked = predictions.take(order)
    rank, target, iou = overlapping_pairs(ranked, truth, tious[0], protocol=protocol)
    # of equal overlaps the later annotation goes first, as the reversed sort of the public evaluators has it
    by_overlap = np.lexsort((-target, -iou, rank))
    rank, target, iou = rank[by_overlap], target[by_overlap], iou[by_overlap]
    reached = (1 << np.searchsorted(tious, iou, side="right")) - 1
    taken, done = [0] * len(truth), [0] * len(ranked)
    gained, where = [], []
    for pair, (r, t, bits) in enumerate(zip(rank.tolist(), target.tolist(), reached.tolist(), strict=True)):
        bits &= ~(taken[t] | done[r])
        if bits:
            taken[t] |= bits
            done[r] |= bits
            gained.append(bits)
            where.append(pair)
    found = np.full((len(ranked), len(tious)), -1, dtype=np.int64)
    gained, where = np.array(gained, dtype=np.int64), np.array(where, dtype=np.int64)
    for column in range(len(tious)):
        hit = where[(gained >> column) & 1 == 1]
        found[rank[hit], column] = target[hit]
    return Matches(order, found, np.asarray(tious))


def average_precision(
    true_positive: np.ndarray,
    num_annotations: float,
    weights: np.ndarray | None = None,
    normal_count: float | None = None,
) -> np.ndarray:
    """Interpolated average precision of one class.

    Args:
        true_positive: (P, T) bool, by falling score.
        num_annotations: G, or the sum of their weights.
        weights: (P,) how often each prediction counts (resampled videos); None: once.
        normal_count: N of the normalised precision `R(k) N / (R(k) N + FP(k))`, where R is recall (Hoiem et al. 2012), which
            compares classes of different sizes; None: plain precision.

    Returns:
        (T,).
    """
    count, num_thresholds = true_positive.shape
    if not count or not num_annotations:
        return np.zeros(num_thresholds)
    values = np.zeros(num_thresholds)
    seen = np.arange(1, count + 1) if weights is None else np.cumsum(weights)
    for column in range(num_thresholds):
        at = np.flatnonzero(true_positive[:, column])
        if weights is not None:
            at = at[weights[at] > 0]
        if not len(at):
            continue
        gain = np.ones(len(at)) if weights is None else weights[at]
        right = np.cumsum(gain)
        # precision falls between true positives, so its maximum from a rank on lies at one of them
        precision = right / seen[at]
        if normal_count is not None:
            scaled = right / num_annotations * normal_count
            precision = scaled / (scaled + seen[at] - right)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        values[column] = (envelope * gain).sum() / num_annotations
    return values


def _iou(first: np.ndarray, second: np.ndarray, protocol: DetectionProtocol) -> np.ndarray:
    overlap = np.minimum(first[1], second[1]) - np.maximum(first[0], second[0])
    np.maximum(overlap, 0, out=overlap)
    union = (first[1] - first[0]) + (second[1] - second[0]) - overlap
    undefined = union == 0
    iou = overlap / np.where(undefined, 1, union)
    iou[undefined] = np.inf if protocol.undefined_matches else 0
    # computed in double precision and then rounded, as the evaluator does that keeps it in single
    return iou.astype(protocol.iou_dtype)
