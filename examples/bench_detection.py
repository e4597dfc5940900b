# /// script
# dependencies = ["hf_effvid", "pandas"]
# ///
"""What evaluating a detector, and suppressing its candidates, costs in processor time.

    python examples/bench_detection.py --predictions 400000 --results model_cards/results/detection-speed.json
    python examples/bench_detection.py --predictions 10000

A run on the size of THUMOS14's test set (213 videos, 3,358 annotations, 20 classes, 5 overlaps) is generated; no two scores are equal, so
that there is one right answer. It is evaluated by `evaluate_detector` and by an evaluator as they are usually written, with pandas: a
loop over the predictions of a class, the annotations of the video looked up in a table, a loop over overlaps and annotations. Both
must say the same to 1e-12. Then as many candidates of 33 videos, 20 classes, are suppressed by `nms_1d`. All times are those of the
processor (`time.process_time`), which a busy machine does not falsify; ours is the best of three, the slow one runs once.
"""

import argparse
import sys
import time

import numpy as np
import pandas as pd
import torch

from hf_effvid.evaluation import Metric, ResultEntry, add_results, current_provenance, evaluate_detector
from hf_effvid.evaluation.detection import THUMOS_TIOUS
from hf_effvid.models.temporal_nms import nms_1d


NUM_VIDEOS, NUM_ANNOTATIONS, NUM_CLASSES, SECONDS = 213, 3358, 20, 220.0
NMS_VIDEOS = 33


def make_run(num_predictions: int, seed: int = 0) -> tuple[dict, dict]:
    """Annotations, and predictions of which half lie near one; a video mostly shows one class."""
    generator = np.random.default_rng(seed)
    video = generator.integers(NUM_VIDEOS, size=NUM_ANNOTATIONS)
    label = np.where(generator.random(NUM_ANNOTATIONS) < 0.9, video % NUM_CLASSES, generator.integers(NUM_CLASSES, size=NUM_ANNOTATIONS))  # fmt: skip
    start = generator.uniform(0, SECONDS - 10, NUM_ANNOTATIONS)
    end = start + generator.gamma(2.0, 2.5, NUM_ANNOTATIONS) + 0.3
    truth = {f"v{number}": {"duration": SECONDS, "annotations": []} for number in range(NUM_VIDEOS)}
    for v, c, a, b in zip(video.tolist(), label.tolist(), start.tolist(), end.tolist(), strict=True):
        truth[f"v{v}"]["annotations"].append({"label": f"class {c}", "segment": [a, b]})

    near = generator.integers(NUM_ANNOTATIONS, size=num_predictions)
    length = end[near] - start[near]
    width = np.where(generator.random(num_predictions) < 0.5, 0.15, 3.0) * length
    first, last = start[near] + generator.normal(0, width), end[near] + generator.normal(0, width)
    first, last = np.minimum(first, last), np.maximum(first, last) + 1e-3
    # scores fall with the distance from the annotation; a permutation breaks every tie
    quality = -np.abs(first - start[near]) - np.abs(last - end[near]) + generator.normal(0, 5, num_predictions)
    score = np.empty(num_predictions)
    score[np.argsort(quality)] = (np.arange(num_predictions) + 1) / (num_predictions + 1)
    guess = np.where(generator.random(num_predictions) < 0.6, label[near], generator.integers(NUM_CLASSES, size=num_predictions))  # fmt: skip
    found = {name: [] for name in truth}
    columns = (video[near], guess, first, last, score)
    for v, c, a, b, s in zip(*(column.tolist() for column in columns), strict=True):
        found[f"v{v}"].append({"label": f"class {c}", "segment": [a, b], "score": s})
    return truth, found


def evaluate_with_pandas(truth: dict, found: dict, tious) -> np.ndarray:
    """(T,) mAP, row by row."""
    annotations = pd.DataFrame(
        [(v, a["label"], *a["segment"]) for v, entry in truth.items() for a in entry["annotations"]],
        columns=["video", "label", "start", "end"],
    )
    predictions = pd.DataFrame(
        [(v, p["label"], *p["segment"], p["score"]) for v, many in found.items() for p in many],
        columns=["video", "label", "start", "end", "score"],
    )
    per_class = []
    for label, targets in annotations.groupby("label"):
        ranked = predictions[predictions["label"] == label].sort_values("score", ascending=False)
        by_video = dict(iter(targets.groupby("video")))
        right = np.zeros((len(tious), len(ranked)))
        taken = [set() for _ in tious]
        for rank, (_, row) in enumerate(ranked.iterrows()):
            here = by_video.get(row["video"])
            if here is None:
                continue
            overlap = (np.minimum(here["end"], row["end"]) - np.maximum(here["start"], row["start"])).clip(lower=0)
            iou = overlap / ((here["end"] - here["start"]) + (row["end"] - row["start"]) - overlap)
            iou = iou.sort_values(ascending=False)
            for column, tiou in enumerate(tious):
                for number, value in iou.items():
                    if value < tiou:
                        break
                    if number not in taken[column]:
                        taken[column].add(number)
                        right[column, rank] = 1
                        break
        per_class.append([_average_precision(hits, len(targets)) for hits in right])
    return np.mean(per_class, axis=0)


def _average_precision(hits: np.ndarray, count: int) -> float:
    positives = np.cumsum(hits)
    precision = np.concatenate([positives / np.arange(1, len(hits) + 1), [0]])
    recall = np.concatenate([[0], positives / count])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float(((recall[1:] - recall[:-1]) * envelope[:-1]).sum())


def make_candidates(count: int, seed: int = 0) -> dict:
    """Candidates spread evenly over videos and classes, as arguments of `nms_1d`."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.rand(count, generator=generator) * SECONDS
    half = torch.rand(count, generator=generator) * 5 + 0.1
    return {
        "segments": torch.stack([centre - half, centre + half], 1),
        "scores": torch.rand(count, generator=generator) ** 3,
        "labels": torch.randint(NUM_CLASSES, (count,), generator=generator),
        "videos": torch.arange(count) % NMS_VIDEOS,
    }


def processor_seconds(function, repeats: int = 1) -> float:
    """The least processor time of some calls."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        times.append(time.process_time() - began)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=400_000, help="Predictions, and candidates to suppress.")
    parser.add_argument("--results", help="Results file (JSON) to write or extend.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    truth, found = make_run(args.predictions)

    reports = []
    ours = processor_seconds(lambda: reports.append(evaluate_detector(truth, found, THUMOS_TIOUS).mAP), repeats=3)
    theirs = processor_seconds(lambda: reports.append(evaluate_with_pandas(truth, found, THUMOS_TIOUS)))
    difference = float(np.abs(reports[0] - reports[-1]).max())
    if difference > 1e-12:
        sys.exit(f"the two evaluators differ by {difference:.1e}: one of them is wrong")

    candidates = make_candidates(args.predictions)
    suppression = processor_seconds(lambda: nms_1d(**candidates), repeats=3)
    print(f"{args.predictions} predictions, average mAP {reports[0].mean():.4f}, largest difference {difference:.0e}")
    print(f"evaluate_detector     {ours:9.3f} s of processor time")
    print(f"with pandas           {theirs:9.3f} s, {theirs / ours:.0f} times as much")
    print(f"nms_1d                {suppression:9.3f} s for {args.predictions} candidates of {NMS_VIDEOS} videos")
    if args.results:
        note = "seconds of processor time of one thread; one generated run, so that there is nothing to put an interval around"
        shared = {"task": "temporal-action-detection", "dataset": "generated segments", "split": "benchmark"}
        provenance = current_provenance(seed=0)
        protocol = {
            "num_predictions": args.predictions,
            "num_annotations": NUM_ANNOTATIONS,
            "tious": list(THUMOS_TIOUS),
        }
        numbers = {
            "evaluate_detector": (ours, NUM_VIDEOS),
            "evaluator with pandas": (theirs, NUM_VIDEOS),
            "nms_1d": (suppression, NMS_VIDEOS),
        }
        entries = [
            ResultEntry(model=name, metrics=(Metric("processor_seconds", round(value, 4), n),), provenance=provenance,
                        protocol=protocol, notes=(note,), **shared)
            for name, (value, n) in numbers.items()
        ]  # fmt: skip
        add_results(args.results, entries)


if __name__ == "__main__":
    main()
