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
import copy
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import AutoConfig

from hf_effvid import drop_blocks, evaluate_classifier, load_video_dataset
from hf_effvid.compression import model_blocks, prune_channels
from hf_effvid.compression.channel_pruning import is_expressible
from hf_effvid.evaluation.benchmark_report import rounded
from hf_effvid.evaluation.benchmark_timing import paired_ratio
from hf_effvid.evaluation.intervals import paired_bootstrap_difference
from hf_effvid.evaluation.results import Cost, Metric, ResultEntry, add_results, current_provenance
from hf_effvid.training.block_drop_choice import choose_blocks
from hf_effvid.training.block_drop_costs import arithmetic, interleaved, pass_over
from hf_effvid.training.block_drop_opening import data_source
from hf_effvid.training.block_drop_recovery import recover
from hf_effvid.training.block_drop_settings import BlockDropSettings
from hf_effvid.training.progressive_block_drop import open_run


UNCOMPRESSED, TRAINED_ON = "uncompressed", "trained on"
DROP, PRUNE, MLP, BOTH = "blocks", "channels", "MLPs alone", "both"
DIFFERENCE = "top1 difference to the uncompressed model"


@dataclass(frozen=True)
class Arm:
    """One way to a cheaper model: blocks to drop, then widths to prune to."""

    family: str
    name: str
    drops: int = 0
    widths: dict | None = None


def widths_of(model, share: float) -> dict:
    """Channels of MLPs and heads that leave a share of a block's arithmetic."""
    layer = model_blocks(model)[0].module
    heads, mlp = layer.attention.attention, layer.intermediate.dense.out_features
    return {"intermediate_size": round(share * mlp), "head_dim": round(share * heads.attention_head_size)}


def mlp_width_of(model, example, share: float) -> dict:
    """Channels of MLPs that leave a share of the model's arithmetic, the rest of a block being as it is."""
    mlp = model_blocks(model)[0].module.intermediate.dense
    whole = arithmetic(model, example)["gmacs"]
    tokens = model.videomae.embeddings.num_patches
    per_channel = len(model_blocks(model)) * tokens * 2 * mlp.in_features / 1e9
    return {"intermediate_size": round(mlp.out_features - (1 - share) * whole / per_channel)}


def line_up(model, example, dropped: list[int]) -> list[Arm]:
    """The arms; for every number of dropped blocks one pruned model of the same arithmetic."""
    depth, arms = len(model_blocks(model)), [Arm(TRAINED_ON, TRAINED_ON)]
    for number in dropped:
        arms.append(Arm(DROP, f"{number} of {depth} blocks dropped", number))
        widths = widths_of(model, 1 - number / depth)
        arms.append(Arm(PRUNE, "MLPs {intermediate_size}, heads {head_dim}".format(**widths), 0, widths))
    fewest, most = min(dropped), max(dropped)
    mlp = mlp_width_of(model, example, 1 - fewest / depth)
    if mlp["intermediate_size"] > 0:
        arms.append(Arm(MLP, "MLPs {intermediate_size}".format(**mlp), 0, mlp))
    if most > fewest:
        widths = widths_of(model, (depth - most) / (depth - fewest))
        name = f"{fewest} dropped, " + "MLPs {intermediate_size}, heads {head_dim}".format(**widths)
        arms.append(Arm(BOTH, name, fewest, widths))
    return arms


def make(arm: Arm, run, args, work: Path):
    """The model of an arm, and how many optimiser steps it was trained for."""
    student, edits = copy.deepcopy(run.uncompressed), arm.drops + (arm.widths is not None)
    steps, order = [args.steps // max(1, edits)] * max(1, edits), []
    steps[-1] += args.steps - sum(steps)
    options = {"settings": run.settings, "progress": False}
    for number, count in enumerate(steps):
        if number < arm.drops:
            choice = choose_blocks(
                student, run.data, run.settings, 1, depth=run.depth, seed=args.seed, device=run.device, batch_size=run.batch_size
            )  # fmt: skip
            present = {block.original_index: block.index for block in model_blocks(student)}
            student, order = (
                drop_blocks(student, [present[block] for block in choice.dropped]),
                [*order, *choice.dropped],
            )
        elif arm.widths is not None:
            student = prune_channels(student, run.data.example(run.device)["pixel_values"], **arm.widths)
        told = {"max_steps": count, "learning_rate": args.learning_rate, "warmup_steps": count // 10, "ema_decay": 0.0, "save_strategy": "no"}  # fmt: skip
        folder = work / f"{arm.name}-{number}"
        student = recover(student, run.uncompressed, run.data, output_dir=folder, args=told, seed=args.seed + number, **options).model  # fmt: skip
    return student.eval(), order


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


def plot(rows: list[tuple[Arm, ResultEntry]], path: Path, title: str) -> None:
    """Top-1 against multiply-accumulates and against milliseconds, one line per family."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), dpi=130, layout="constrained")
    whole = next(one for arm, one in rows if arm.family == UNCOMPRESSED)
    axes = figure.subplots(1, 2, sharey=True)
    sides = (("gmacs", "GMACs per clip"), ("latency_ms", "milliseconds per clip (median, batch 1)"))
    colours = {DROP: "#0072B2", PRUNE: "#D55E00", MLP: "#E69F00", BOTH: "#009E73", TRAINED_ON: "#8C8C8C"}
    for axis, (field, label) in zip(axes, sides, strict=True):
        axis.plot(getattr(whole.cost, field), 100 * whole.metrics[0].value, "k*", markersize=11, label=UNCOMPRESSED)
        for family, colour in colours.items():
            points = [(getattr(one.cost, field), one.metrics[0]) for arm, one in rows if arm.family == family]
            if not points:
                continue
            x, y = [x for x, _ in points], [100 * metric.value for _, metric in points]
            spread = [[100 * abs(m.value - m.interval[side]) for _, m in points] for side in (0, 1)]
            axis.errorbar(x, y, yerr=spread, color=colour, marker="o", linewidth=1.2, capsize=3, label=family)
        axis.set_xlabel(label)
        axis.grid(True, color="#E5E5E5", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel(f"top-1 (%), n = {whole.metrics[0].n}, Wilson 95 %")
    axes[1].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


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
        rows = load_video_dataset(data, split=args.split)
        arms = [Arm(UNCOMPRESSED, UNCOMPRESSED), *line_up(run.uncompressed, first, args.dropped or [run.depth // 4, run.depth // 2])]  # fmt: skip
        models, orders, reports = {UNCOMPRESSED: run.uncompressed}, {}, {}
        for arm in arms:
            if arm.family != UNCOMPRESSED:
                models[arm.name], orders[arm.name] = make(arm, run, args, work)
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
        plot(
            found,
            args.picture,
            f"{args.model_name or Path(args.model).name}, {args.name}: {args.steps} steps of recovery each",
        )


if __name__ == "__main__":
    main()
