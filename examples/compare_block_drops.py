# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""What dropped blocks cost on held-out videos: several ways to drop them, several seeds, each number of blocks beside the uncompressed model.

    effvid compress host-0/model --data DATA --drop 3 -o progressive-0          # and so on, a folder per way and seed
    python examples/compare_block_drops.py DATA --hosts 'host-{seed}/model' --arm 'progressive=progressive-{seed}' \\
        --arm 'random order=random-{seed}' --split test --results results.json --picture dropped.png

DATA is a folder of clips, or for detectors an annotation file (and --root with the videos). Every model of every step answers once; the
answers stay in its folder, so that a second call asks no model again. Differences are between means over seeds on the same videos, with
intervals that resample videos; they do not cover the luck of the seeds. The arm "trained on" has all blocks, and as many steps of training as
the others recovered for: a second reference. For the arm "progressive" that of "random order" is another.

    effvid compress host-0/model --data DATA --order at_once --drop 0 -o trained-on-0
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from transformers import AutoConfig

from hf_effvid import CompressionOutcome, evaluate_classifier, evaluate_detections, load_video_dataset
from hf_effvid.data import load_detection_annotations
from hf_effvid.evaluation import evaluate_detector
from hf_effvid.evaluation.block_drop_arms_chart import plot_block_drop_arms
from hf_effvid.evaluation.detection import THUMOS_TIOUS
from hf_effvid.evaluation.detection_runs import average_runs, compare_runs
from hf_effvid.evaluation.intervals import bootstrap_mean_interval
from hf_effvid.evaluation.results import Cost, Metric, ResultEntry, add_results, current_provenance


UNCOMPRESSED, TRAINED_ON, PROGRESSIVE, RANDOM = "uncompressed", "trained on", "progressive", "random order"


@dataclass(frozen=True)
class Kind:
    """Classifiers or detectors: task and number, how a model answers, and what answers of several seeds are worth."""

    task: str
    metric: str
    look: Callable  # (folder of a model, file that keeps its answers) -> its answers
    one: Callable  # answers -> the number
    mean: Callable  # answers of several seeds -> Metric
    minus: Callable  # answers of several seeds, and of others -> Metric


def classifiers(args) -> Kind:
    rows = load_video_dataset(args.data)[args.split]
    method = "bootstrap over videos 95%, mean over seeds"

    def look(model, file):
        found = evaluate_classifier(str(model), rows, batch_size=48, predictions_file=file, progress=False)
        return found.correct.astype(float)

    def mean(answers):
        right = np.mean(answers, axis=0)
        return Metric("top1", float(right.mean()), len(right), bootstrap_mean_interval(right), method)

    def minus(answers, others):  # of every video, the share of seeds that are right
        gap = np.mean(answers, axis=0) - np.mean(others, axis=0)
        return Metric("difference", float(gap.mean()), len(gap), bootstrap_mean_interval(gap), f"paired {method}")

    return Kind("video-classification", "top1", look, lambda right: float(right.mean()), mean, minus)


def detectors(args) -> Kind:
    annotations = load_detection_annotations(args.data, root=args.root).in_split(args.split)
    truth = annotations.to_activitynet()

    def look(model, file):
        if not file.exists():
            evaluate_detections(str(model), annotations, predictions_file=file, progress=False)
        found = json.loads(file.read_text(encoding="utf-8"))["results"]
        return evaluate_detector(truth, found, THUMOS_TIOUS, subset=args.split)

    first = {"look": look, "one": lambda report: report.average_mAP, "mean": lambda runs: average_runs(runs)[0]}
    return Kind("temporal-action-detection", "average_mAP", **first, minus=compare_runs)


@dataclass(frozen=True)
class Point:
    """One number of dropped blocks in one arm. Lists have an item per seed: answers, dropped blocks (original numbers), costs."""

    dropped: int
    blocks: int
    answers: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    costs: list = field(default_factory=list)

    def add(self, answers, lost: list[int], step) -> None:
        self.answers.append(answers)
        self.lost.append(lost)
        self.costs.append(Cost(gmacs=step.gmacs, parameters=step.parameters))


def uncompressed(folders: list[Path], kind: Kind, args) -> Point:
    """The models that the runs of an arm started from."""
    outcomes = [CompressionOutcome.load(folder) for folder in folders]
    point = Point(0, outcomes[0].depth)
    for seed, folder, outcome in zip(args.seeds, folders, outcomes, strict=True):
        answers = folder.parent / f"{args.split}-{UNCOMPRESSED}-{seed}.json"
        point.add(kind.look(args.hosts.format(seed=seed), answers), [], outcome.steps[0])
    return point


def points_of(folders: list[Path], kind: Kind, split: str) -> list[Point]:
    """The numbers of dropped blocks of an arm, fewest first."""
    points: dict[int, Point] = {}
    for folder in folders:
        outcome = CompressionOutcome.load(folder)
        for step in outcome.steps[1:]:
            lost = sorted(set(outcome.steps[0].kept) - set(step.kept))
            point = points.setdefault(len(lost), Point(len(lost), outcome.depth))
            point.add(kind.look(folder / step.model, folder / f"{split}-step-{step.step}.json"), lost, step)
    return [points[dropped] for dropped in sorted(points)]


def entries_of(arm: str, point: Point, references: dict[str, list], kind: Kind, args) -> list[ResultEntry]:
    """One entry per seed, then one of their mean with its differences to the references."""
    variant = f"{arm}, {point.dropped} of {point.blocks} blocks dropped" if point.dropped else arm
    about = {"task": kind.task, "model": args.model_name, "dataset": args.name, "split": args.split}
    about["protocol"] = {"arm": arm, "dropped_blocks": point.dropped, "num_blocks": point.blocks}
    mean = kind.mean(point.answers)
    entries = [
        ResultEntry(
            **about, variant=variant, metrics=(Metric(kind.metric, kind.one(answers), mean.n),), cost=cost,
            provenance=current_provenance(seed=seed, dtype="float32"), notes=(f"dropped: {lost}",) if lost else (),
        )
        for seed, answers, lost, cost in zip(args.seeds, point.answers, point.lost, point.costs, strict=True)
    ]  # fmt: skip
    gaps = {f"{kind.metric} minus {name}": kind.minus(point.answers, others) for name, others in references.items()}
    metrics = [mean, *(replace(gap, name=name) for name, gap in gaps.items())]
    last = ResultEntry(
        **about, variant=f"{variant}, mean of {len(args.seeds)} seeds", metrics=tuple(metrics), cost=point.costs[0],
        provenance=current_provenance(dtype="float32"), notes=tuple(args.note),
    )  # fmt: skip
    return [*entries, last]


def compare(folders: dict[str, list[Path]], args) -> None:
    """Looks at the split, once per model, and writes results and picture; `folders` are the runs of each arm, one per seed."""
    config = AutoConfig.from_pretrained(args.hosts.format(seed=args.seeds[0]))
    kind = (detectors if config.model_type == "actionformer" else classifiers)(args)
    start = uncompressed(next(iter(folders.values())), kind, args)
    points = {UNCOMPRESSED: [start]} | {arm: points_of(of_arm, kind, args.split) for arm, of_arm in folders.items()}
    random = {point.dropped: point.answers for point in points.get(RANDOM, ())}
    curves: dict[str, dict[int, Metric]] = {}
    for arm, of_arm in points.items():
        for point in of_arm:
            references = {} if arm == UNCOMPRESSED else {UNCOMPRESSED: start.answers}
            if TRAINED_ON in points and point.dropped:
                references[TRAINED_ON] = points[TRAINED_ON][0].answers
            if arm == PROGRESSIVE and point.dropped in random:
                references[RANDOM] = random[point.dropped]
            entries = entries_of(arm, point, references, kind, args)
            curves.setdefault(arm, {})[point.dropped] = entries[-1].metrics[0]
            told = [
                f"{m.name} {m.value:+.3f} [{m.interval[0]:+.3f}, {m.interval[1]:+.3f}]" for m in entries[-1].metrics
            ]
            print(f"{entries[-1].variant}: {'; '.join(told)}", flush=True)
            if args.results:
                add_results(args.results, entries)
    if args.picture:
        title = f"{args.name} ({args.split}), mean of {len(args.seeds)} seeds"
        plot_block_drop_arms(curves, args.picture, kind.metric, start.blocks, title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--hosts", required=True, help="folder of the uncompressed model; {seed} becomes the seed")
    parser.add_argument("--root", help="folder with the videos of an annotation file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", default="validation", help="what is looked at")
    parser.add_argument("--name", default="unnamed", help="name of the data set in the results")
    parser.add_argument("--model-name", default="videomae-thin", help="name of the model in the results")
    parser.add_argument("--note", action="append", default=[], help="remark for the results, such as what is composed")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path)
    parser.add_argument(
        "--arm", action="append", required=True, metavar="NAME=FOLDER", help="runs of `effvid compress`"
    )
    args = parser.parse_args()
    places = dict(arm.split("=", 1) for arm in args.arm)
    compare({name: [Path(place.format(seed=seed)) for seed in args.seeds] for name, place in places.items()}, args)


if __name__ == "__main__":
    main()
