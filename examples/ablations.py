# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""The paper's ablations on a folder of clips: which parts of Video-FocalNet earn their place?

    python examples/ablations.py DATA --name NAME --config examples/configs/real_videos.yaml          # any folder with a test split
    python examples/ablations.py motion --name motion --config examples/configs/quickstart.yaml --make-motion

Every variant differs from the recipe in one configuration value: no temporal branch, 1 or 3 focal levels (the recipe has 2), the two
modulators added or mixed by a learned layer instead of multiplied, time after space instead of beside it, one joint 3-D modulator. Every
(variant, seed) is an `effvid train` and an `effvid evaluate` of its own, two at a time with one thread each; seed 0 of all variants comes
first. Call it again to go on: finished runs are kept. `--max-minutes` starts no run that would end later. Writes
model_cards/results/ablations-NAME.json and docs/images/ablations-NAME.png, and prints the paired difference of each variant from the
published design on the same videos, averaged over the seeds that both have. A run of real_videos.yaml on 130 clips is about 5 to 6 CPU
minutes, one of quickstart.yaml about 4; `--steps` makes them shorter, for all variants alike.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import yaml
from compare_predictions import over_seeds
from quickstart import CLASSES, CLIPS_PER_CLASS
from transformers import AutoConfig

from hf_effvid import make_motion_dataset
from hf_effvid.evaluation.intervals import bootstrap_interval
from hf_effvid.evaluation.results import Metric, ResultEntry, ResultsFile, add_results, current_provenance
from hf_effvid.evaluation.variant_chart import VariantRow, plot_variants


BASELINE = "parallel"
VARIANTS = {  # name -> what the recipe's model section becomes; LEVELS stands for a list with one number per stage
    BASELINE: ("parallel, product, 2 levels (published)", []),
    "none": ("no temporal branch", ["temporal_encoding=none"]),
    "levels-1": ("1 focal level", ["focal_levels=LEVELS1"]),
    "levels-3": ("3 focal levels", ["focal_levels=LEVELS3"]),
    "sum": ("sum of the modulators", ["modulator_fusion=sum"]),
    "learned": ("learned fusion", ["modulator_fusion=learned"]),
    "sequential": ("sequential: space, then time", ["temporal_encoding=sequential"]),
    "joint": ("joint 3-D modulator", ["temporal_encoding=joint"]),
}


def overrides(variant, stages, steps):
    levels = {f"LEVELS{count}": str([count] * stages) for count in (1, 3)}
    values = [f"model.{value}" for value in VARIANTS[variant][1]]
    for name, text in levels.items():
        values = [value.replace(name, text) for value in values]
    if steps:  # one evaluation in eight, so that the checkpoint is still chosen among as many
        often = max(1, steps // 8)
        values += [f"training.max_steps={steps}", f"training.eval_steps={often}", f"training.save_steps={often}"]
        values += ["training.eval_strategy=steps", "training.save_strategy=steps"]
    return [part for value in values for part in ("--set", value)]


def run(args, variant, seed, stages):
    """Trains and evaluates one variant, unless that was done before; returns the seconds it took, 0 for a finished one."""
    folder = args.output / args.name / f"{variant}-{seed}"
    if (folder / "results.json").is_file():
        return 0.0
    started, effvid = time.monotonic(), [sys.executable, "-m", "hf_effvid.cli"]
    if not (folder / "training.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        execute([*effvid, "train", args.data, "--config", args.config, "--output-dir", folder, "--seed", seed, "--overwrite",
                 "--quiet", *overrides(variant, stages, args.steps)], folder)  # fmt: skip
    execute([*effvid, "evaluate", folder / "model", args.data, "--split", args.split, "--seed", seed, "--name", args.name,
             "--model-name", "video-focalnet-mini", "--variant", VARIANTS[variant][0], "--results", folder / "unfinished.json",
             "--predictions", folder / "predictions.jsonl", "--batch-size", 48, "--quiet"], folder)  # fmt: skip
    (folder / "unfinished.json").rename(folder / "results.json")
    return time.monotonic() - started


def execute(command, folder):
    with open(f"{folder}.log", "a", encoding="utf-8") as log:
        done = subprocess.run(
            [str(part) for part in command], stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[3:5]))} failed, see {folder}.log")


def run_all(args, stages):
    """Runs what is missing, seed by seed, as long as the next run should end in time; returns what failed."""
    todo = [(variant, seed) for seed in args.seeds for variant in args.variants]
    deadline, took, failed = time.monotonic() + 60 * args.max_minutes, [], []

    def one(job):
        # the slowest so far, so that the time is kept rather than used up
        if took and time.monotonic() + max(took) > deadline:
            return print(f"{job[0]}, seed {job[1]}: left for another call (--max-minutes)", flush=True)
        try:
            seconds = run(args, *job, stages)
        except RuntimeError as error:
            failed.append(job)
            return print(f"{job[0]}, seed {job[1]}: {error}", flush=True)
        took.extend([seconds] if seconds else [])
        print(f"{job[0]}, seed {job[1]}: {f'{seconds / 60:.1f} minutes' if seconds else 'there already'}", flush=True)

    with ThreadPoolExecutor(args.workers) as pool:
        list(pool.map(one, todo))
    return failed


def finished(args, variant):
    """Seed -> folder of the finished runs of a variant."""
    folders = {seed: args.output / args.name / f"{variant}-{seed}" for seed in args.seeds}
    return {seed: folder for seed, folder in folders.items() if (folder / "results.json").is_file()}


def compare(args, variant):
    """The paired difference from the published design, per video and averaged over the seeds that both have."""
    base, own = finished(args, BASELINE), finished(args, variant)
    seeds = sorted(base.keys() & own.keys())
    if not seeds:
        return None
    videos, a = over_seeds([own[seed] / "predictions.jsonl" for seed in seeds])
    others, b = over_seeds([base[seed] / "predictions.jsonl" for seed in seeds])
    if videos != others:
        raise SystemExit(f"{variant} saw other videos than {BASELINE}: remove {args.output / args.name}")
    accuracy, difference = a.mean(0), a.mean(0) - b.mean(0)
    metrics = [
        Metric("top1 of A, mean over seeds", float(accuracy.mean()), len(videos),
               bootstrap_interval(lambda index: accuracy[index].mean(), len(videos), seed=0), "bootstrap over videos 95%"),
        Metric("top1 difference, A minus B", float(difference.mean()), len(videos),
               bootstrap_interval(lambda index: difference[index].mean(), len(videos), seed=0), "paired bootstrap over videos 95%"),
    ]  # fmt: skip
    return ResultEntry(
        task="video-classification", model="video-focalnet-mini", dataset=args.name, split=args.split,
        metrics=tuple(metrics[: 1 if variant == BASELINE else 2]), provenance=current_provenance(),
        variant=f"{VARIANTS[variant][0]} against the published design",
        notes=(f"{args.steps or 'all'} training steps of {args.config.name}; seeds {seeds}, their accuracies {np.round(a.mean(1), 4).tolist()}, those of the published design "
               f"{np.round(b.mean(1), 4).tolist()}; the interval does not cover the luck of the seeds",),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with train / validation / test clips")
    parser.add_argument("--name", required=True, help="name of the data set in files and results")
    parser.add_argument("--config", type=Path, required=True, help="recipe of the published design, 2 focal levels")
    parser.add_argument("--make-motion", action="store_true", help="write the quickstart's motion clips to DATA first")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="training steps instead of the recipe's")
    parser.add_argument("--max-minutes", type=float, default=float("inf"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--split", default="test")
    parser.add_argument("--output", type=Path, default=Path("outputs/ablations"))
    parser.add_argument("--results", type=Path, default=Path("model_cards/results"), help="folder of the results file")
    parser.add_argument("--pictures", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    if args.make_motion:
        make_motion_dataset(args.data, CLIPS_PER_CLASS, num_frames=20, classes=CLASSES, num_workers=args.workers)
    recipe = args.config.read_text(encoding="utf-8")
    study, settings = (
        args.output / args.name / "study.json",
        {"recipe": recipe, "steps": args.steps, "split": args.split},
    )
    if study.is_file() and json.loads(study.read_text(encoding="utf-8")) != settings:
        raise SystemExit(f"{study.parent} holds runs of another recipe or length: remove it, or give another --output")
    study.parent.mkdir(parents=True, exist_ok=True)
    study.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    failed = run_all(args, len(yaml.safe_load(recipe)["model"]["depths"]))

    results, rows = args.results / f"ablations-{args.name}.json", []
    for variant in args.variants:
        entries = [ResultsFile.load(folder / "results.json").results[0] for folder in finished(args, variant).values()]
        summary = compare(args, variant)
        add_results(results, [*entries, summary] if summary else entries)
        if summary is None:
            continue
        seeds = [entry.metric("top1").value for entry in entries]
        rows.append(VariantRow(VARIANTS[variant][0], seeds, summary.metrics[0]))
        shown = "  ".join(f"{m.value:+7.1%} [{m.interval[0]:+.1%}, {m.interval[1]:+.1%}]" for m in summary.metrics)
        print(f"{VARIANTS[variant][0]:40s} {shown}  {len(seeds)} seeds")
    if rows:
        model = next(args.output.glob(f"{args.name}/*/model"))
        title = f"Ablations, {args.name}, {rows[0].mean.n} clips"
        chance = 1 / AutoConfig.from_pretrained(model).num_labels
        plot_variants(rows, args.pictures / f"ablations-{args.name}.png", title, chance)
    if failed:
        raise SystemExit(f"failed: {', '.join(f'{variant}-{seed}' for variant, seed in failed)}")


if __name__ == "__main__":
    main()
