# /// script
# dependencies = ["hf_effvid[train,prune]"]
# ///
"""Fewer blocks, narrower blocks, or both: what each leaves of a classifier at equal multiply-accumulates and equal training (the paper's figure 4).

    python examples/block_drop_rivals.py examples/checkpoints/videomae-motion-12 motion --split test \\
        --results model_cards/results/block-drop-rivals.json --picture docs/images/block-drop-rivals.png
    python examples/block_drop_rivals.py run/model my_videos/ --dropped 2 4 --steps 600

Blocks go one at a time, the least important first (`effvid compress`). Channels are those that torch-pruning's dependency graph (DepGraph) finds to
belong together, the weakest first: of the MLPs and of the attention heads, the same share of every block. The residual stream stays as it is: VideoMAE
computes its positions from its width. `MLPs alone` is the one pruned model that is an ordinary checkpoint: no field of the configuration has the
dimension of a head, so that the others run and train but cannot be loaded. "both" drops the smaller number of blocks and prunes what is left.

Every arm is aligned to the uncompressed model and trained for --steps optimiser steps in all: --steps / k after each of k drops, and after pruning. "trained
on" is the uncompressed model after as many. All answer the same videos; all take turns to be timed. One seed: intervals resample videos alone.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig

from hf_effvid import evaluate_classifier, load_video_dataset
from hf_effvid.compression.channel_pruning import is_expressible
from hf_effvid.evaluation.benchmark_report import rounded
from hf_effvid.evaluation.benchmark_timing import paired_ratio
from hf_effvid.evaluation.intervals import paired_bootstrap_difference
from hf_effvid.evaluation.results import Cost, Metric, ResultEntry, add_results, current_provenance
from hf_effvid.evaluation.rivals_chart import plot_rivals
from hf_effvid.training.block_drop_costs import arithmetic, interleaved, pass_over
from hf_effvid.training.block_drop_opening import data_source
from hf_effvid.training.block_drop_rivals import (
    BOTH,
    DROP,
    MLP,
    PRUNE,
    TRAINED_ON,
    UNCOMPRESSED,
    Arm,
    line_up,
    make_arm,
)
from hf_effvid.training.block_drop_settings import BlockDropSettings
from hf_effvid.training.progressive_block_drop import open_run


DIFFERENCE = "top1 difference to the uncompressed model"


def entry(arm: Arm, model, report, uncompressed, times, first, args, order) -> ResultEntry:
    """Accuracy, difference, arithmetic and time of an arm, in the one result format."""
    metrics = [Metric.proportion("top1", int(sum(report.correct)), report.n)]
    ratio = None
    if arm.family != UNCOMPRESSED:
        paired = paired_bootstrap_difference(report.correct, uncompressed.correct)
        method = "paired bootstrap over videos 95%"
        metrics.append(Metric(DIFFERENCE, paired["difference"], paired["n"], tuple(paired["interval"]), method))
        ratio = paired_ratio(times[UNCOMPRESSED], times[arm.name])
    counted = arithmetic(model, first)
    cost = Cost(
        **counted,
        latency_ms=rounded(statistics.median(ms for visit in times[arm.name] for ms in visit)),
        batch_size=1,
        hardware=report.provenance.hardware,
        dtype="float32",
        decode_included=False,
        num_threads=torch.get_num_threads(),
        execution="eager",
        num_rounds=len(times[arm.name]),
        baseline=UNCOMPRESSED if ratio else None,
        speedup=rounded(ratio.median) if ratio else None,
        speedup_interval=tuple(map(rounded, ratio.interval)) if ratio else None,
        speedup_interval_method=ratio.method if ratio else None,
    )
    loads = (
        "an ordinary checkpoint"
        if is_expressible(model)
        else "runs and trains, but no configuration has its heads: it cannot be loaded"
    )
    notes = [loads] if arm.family != UNCOMPRESSED else []
    notes += [f"blocks {order} went, in this order"] if order else []
    return replace(
        report.to_result_entry(), model=args.model_name or Path(args.model).name, metrics=tuple(metrics), cost=cost,
        variant=f"{arm.family}: {arm.name}" if arm.family != arm.name else arm.name, notes=tuple(notes),
        provenance=current_provenance(seed=args.seed, dtype="float32", decode_included=False),
        protocol=report.protocol | ({"recovery_steps": args.steps} if arm.family != UNCOMPRESSED else {}),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a VideoMAE classifier: folder or Hub id")
    parser.add_argument("data", help="videos of its classes; motion: generated clips")
    parser.add_argument("--dropped", type=int, nargs="+", help="numbers of blocks to drop; default: a quarter, a half")
    parser.add_argument("--steps", type=int, default=120, help="optimiser steps of every arm, in all")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--score-videos", type=int, default=160)
    parser.add_argument("--split", default="test", help="split that the arms answer")
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds of timing")
    parser.add_argument("--threads", type=int, help="processor threads")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", type=Path, help="where generated clips stay; default: a temporary folder")
    parser.add_argument("--name", default="generated motions, 8 classes", help="name of the data set in the results")
    parser.add_argument("--model-name", help="name of the checkpoint in the results")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path, help="chart (PNG or SVG)")
    args = parser.parse_args()
    if args.steps < 1 + max(args.dropped or [0]):
        parser.error(f"--steps {args.steps}: every drop and the pruning need at least one")
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        work = args.output_dir or Path(temporary)
        settings = BlockDropSettings(score_videos=args.score_videos, timing_rounds=0)
        labels = AutoConfig.from_pretrained(args.model).id2label.values()
        data = str(data_source(args.data, work / "data", labels))
        run = open_run(args.model, data, work, (settings, {}), seed=args.seed, progress=False)
        first = run.data.example(run.device)
        training = {"steps": args.steps, "learning_rate": args.learning_rate, "seed": args.seed}
        rows = load_video_dataset(data, split=args.split)
        arms = [Arm(UNCOMPRESSED, UNCOMPRESSED), *line_up(run.uncompressed, first, args.dropped or [run.depth // 4, run.depth // 2])]  # fmt: skip
        models, orders, reports = {UNCOMPRESSED: run.uncompressed}, {}, {}
        for arm in arms:
            if arm.family != UNCOMPRESSED:
                models[arm.name], orders[arm.name] = make_arm(arm, run, work, **training)
            reports[arm.name] = evaluate_classifier(
                models[arm.name], rows, run.data.processor, multi_view=False, batch_size=32, dataset_name=args.name, split=args.split, progress=False
            )  # fmt: skip
            print(f"{arm.family}: {arm.name}: top-1 {reports[arm.name].metric('top1').value:.1%}", flush=True)
        times = interleaved({name: pass_over(model, first) for name, model in models.items()}, args.rounds, run.device)
    found = [
        (arm, entry(arm, models[arm.name], reports[arm.name], reports[UNCOMPRESSED], times, first, args, orders.get(arm.name)))
        for arm in arms
    ]  # fmt: skip
    for _, one in found:
        change = one.metrics[1] if len(one.metrics) > 1 else None
        shown = (
            ""
            if change is None
            else f", {100 * change.value:+.1f} points [{100 * change.interval[0]:+.1f}, {100 * change.interval[1]:+.1f}]"
        )
        faster = "" if one.cost.speedup is None else f", {one.cost.speedup:.2f} times faster"
        print(
            f"{one.variant}: {one.metrics[0].value:.1%}{shown}, {one.cost.gmacs:.4g} GMACs, {one.cost.latency_ms:.2f} ms{faster}"
        )
    if args.results is not None:
        add_results(args.results, [one for _, one in found])
    if args.picture is not None:
        families = {
            family: [one for arm, one in found if arm.family == family]
            for family in (DROP, PRUNE, MLP, BOTH, TRAINED_ON)
        }
        title = f"{args.model_name or Path(args.model).name}, {args.name}: {args.steps} steps of recovery each"
        plot_rivals(found[0][1], {family: some for family, some in families.items() if some}, args.picture, title)


if __name__ == "__main__":
    main()
