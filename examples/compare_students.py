# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""A distillation study as results: every arm over its seeds, paired with all others on the same videos; and a picture.

    effvid evaluate outputs/full-0/model DATA --predictions outputs/test-full-0.jsonl    # and so on, for every run
    effvid bench outputs/full-0/model outputs/teacher-vit/model --results outputs/speed.json
    python examples/compare_students.py outputs --name DATA --arm full=full --arm 'student alone=alone' \\
        --arm 'ViT teacher=teacher-vit' --speed outputs/speed.json --results model_cards/results/distillation-DATA.json

`--arm NAME=RUN`: predictions of its seeds are WORK/SPLIT-RUN-0.jsonl and so on, those of a run with one seed WORK/SPLIT-RUN.jsonl;
the models are in WORK/RUN-0/model or WORK/RUN/model. `--speed`: a benchmark of some of these folders; arms of one network and one
shape of clips share a time. For every video the share of seeds that are right is one number, and the intervals resample videos: they
do not cover the luck of the seeds. `examples/real_distillation.sh` calls this.
"""

import argparse
import json
from pathlib import Path

from compare_predictions import over_seeds
from transformers import AutoConfig

from hf_effvid.auto import register
from hf_effvid.evaluation.distillation_arms import CNN_ONLY, CNN_TEACHER, UNIFORM, VIT_ONLY, VIT_TEACHER, arm_entries
from hf_effvid.evaluation.pareto_chart import ParetoPoint, plot_pareto
from hf_effvid.evaluation.results import Cost, ResultEntry, ResultsFile, add_results
from hf_effvid.host_processing import clip_shape, load_processor


def runs_of(work: Path, split: str, run: str) -> list[Path]:
    """Files of predictions, one per seed."""
    files = sorted(work.glob(f"{split}-{run}-[0-9].jsonl")) or [work / f"{split}-{run}.jsonl"]
    if not files[0].exists():
        raise SystemExit(f"{files[0]} is missing: run effvid evaluate with --predictions first")
    return files


def folder_of(work: Path, file: Path, split: str) -> Path:
    return work / file.stem.removeprefix(f"{split}-") / "model"


def kind_of(folder: Path) -> tuple:
    """Network, frames, height and width: what models of equal cost share."""
    config = AutoConfig.from_pretrained(folder)
    frames, _, height, width = clip_shape(config, load_processor(folder))
    network = getattr(config, "network", None) or getattr(config, "architecture", None) or config.model_type
    return network, frames, height, width


def costs_of(work: Path, speed: Path | None) -> dict[tuple, Cost]:
    """Kind of a model -> what a clip costs in the benchmark, in batches of one."""
    entries = ResultsFile.load(speed).results if speed else []
    return {kind_of(work / entry.model): entry.cost for entry in entries if entry.cost.batch_size == 1}


def training_note(work: Path, files: list[Path], split: str) -> str:
    """Steps and processor seconds of the runs; where a run has no file of them, nothing."""
    folders = [folder_of(work, file, split).parent for file in files]
    if not all((folder / "processor_seconds.txt").exists() for folder in folders):
        return ""
    spent = [sum(map(float, (f / "processor_seconds.txt").read_text().split()[-2:])) for f in folders]
    steps = {json.loads((folder / "training.json").read_text())["steps"] for folder in folders}
    counted, seconds = ", ".join(map(str, sorted(steps))), ", ".join(f"{s:.0f}" for s in spent)
    return f"training: {counted} steps, {seconds} s of one CPU core"


def draw(means: list[ResultEntry], args) -> None:
    """Students of one kind stand above each other: two of them are shown."""
    points = [
        ParetoPoint(
            entry.variant.partition(", mean of ")[0],
            entry.cost.latency_ms,
            entry.metric("top1").value,
            entry.metric("top1").interval,
        )
        for entry in means
        if entry.cost.latency_ms and entry.protocol["arm"] not in (VIT_ONLY, CNN_ONLY, UNIFORM)
    ]
    videos, cost = means[0].metric("top1").n, means[0].cost
    footnote = f"{videos} videos; {cost.hardware}, {cost.num_threads} thread(s), {cost.dtype}, one clip"
    plot_pareto(points, args.picture, title=f"{args.name} ({args.split})", accuracy_label="top-1", footnote=footnote)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of runs and predictions")
    parser.add_argument("--arm", action="append", required=True, metavar="NAME=RUN", help="an arm (repeatable)")
    parser.add_argument("--name", default="unnamed", help="name of the data set in the results")
    parser.add_argument("--split", default="test", help="what was looked at")
    parser.add_argument("--speed", type=Path, help="results file of effvid bench with the models' times")
    parser.add_argument("--note", action="append", default=[], help="remark for the results")
    parser.add_argument("--results", type=Path, required=True, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path, help="draw accuracy against time to this file; needs --speed")
    args = parser.parse_args()
    register()

    arms = dict(told.split("=", 1) for told in args.arm)
    files = {arm: runs_of(args.work, args.split, run) for arm, run in arms.items()}
    answers = {arm: over_seeds(of_arm) for arm, of_arm in files.items()}
    videos = {tuple(names) for names, _ in answers.values()}
    if len(videos) > 1:
        raise SystemExit("the predictions are of different videos: evaluate all on the same split")
    costs, means = costs_of(args.work, args.speed), []
    for arm, of_arm in files.items():
        kind = kind_of(folder_of(args.work, of_arm[0], args.split))
        others = {other: right for other, (_, right) in answers.items() if other != arm}
        notes = [*args.note, note] if (note := training_note(args.work, of_arm, args.split)) else args.note
        entries = arm_entries(
            arm,
            answers[arm][1],
            {} if arm in (VIT_TEACHER, CNN_TEACHER) else others,
            model=kind[0],
            dataset=args.name,
            split=args.split,
            seeds=range(len(of_arm)),
            cost=costs.get(kind),
            protocol={"num_frames": kind[1], "image_size": list(kind[2:])},
            notes=notes,
        )
        add_results(args.results, entries)
        means.append(entries[-1])
        top1 = entries[-1].metric("top1")
        print(f"{arm}: {top1.value:.1%} [{top1.interval[0]:.1%}, {top1.interval[1]:.1%}]", flush=True)
        for metric in entries[-1].metrics[1:]:
            print(f"    {metric.name}: {metric.value:+.1%} [{metric.interval[0]:+.1%}, {metric.interval[1]:+.1%}]")
    if args.picture:
        draw(means, args)


if __name__ == "__main__":
    main()
