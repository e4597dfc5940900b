# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""How redundant the blocks of one's own model are: what each changes of its input, and what the model is worth without it (the paper's figure 2).

    python examples/block_discrepancy.py examples/checkpoints/videomae-motion-12 motion \\
        --results model_cards/results/block-discrepancy.json --picture docs/images/block-discrepancy.png
    python examples/block_discrepancy.py run/detector actions.csv --root my_videos/ --part detector

Any classifier or detector that `effvid compress` takes, on its validation split or a held-out share of the training videos. No training, no test
videos: two passes over the data, the second of which leaves every block out in turn. A block that changes little is not always a block that is not
missed; the rank correlation of the two is printed.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig

from hf_effvid.compression import score_blocks
from hf_effvid.compression.token_deletion import rank_correlation
from hf_effvid.data.detection_collator import INPUTS
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance
from hf_effvid.training.block_drop_measuring import TaskCriterion
from hf_effvid.training.block_drop_opening import data_source
from hf_effvid.training.block_drop_settings import BlockDropSettings
from hf_effvid.training.progressive_block_drop import open_run


def inputs(batches):
    """Batches without what only a task reads."""
    for batch in batches:
        yield {name: value for name, value in batch.items() if name in (*INPUTS, *INPUTS.values())}


def plot(name: str, metric: str, n: int, changes, scores, full: float, path: Path) -> None:
    """Mean squared change and angle of every block above, what the model is worth without it below."""
    from matplotlib.figure import Figure

    numbers = [score.original_index for score in scores]
    figure = Figure(figsize=(max(6, 0.55 * len(numbers)), 5), dpi=130, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.bar(numbers, [change.mse for change in changes], color="#0072B2")
    above.set_ylabel("mean squared change", color="#0072B2")
    angle = above.twinx()
    angle.plot(numbers, [1 - change.cosine for change in changes], "o-", color="#D55E00", markersize=4, linewidth=1)
    angle.set_ylabel("1 - cosine", color="#D55E00")
    angle.set_ylim(bottom=0)
    below.bar(numbers, [100 * score.value for score in scores], color="#8C8C8C")
    below.axhline(100 * full, color="k", linestyle="--", linewidth=1, label=f"all blocks: {full:.1%}")
    below.set(xlabel="block", ylabel=f"{metric} without it (%), n = {n}", xticks=numbers, ylim=(0, None))
    below.legend(fontsize=8, loc="lower right")
    above.set_title(name, fontsize=10, loc="left")
    for axis in (above, below):
        axis.spines["top"].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def entries(args, data, changes, scores) -> list[ResultEntry]:
    """One result for the whole model, one for it without each of its blocks."""
    n = len(data.held_out)
    shared = {
        "task": "video-classification" if data.tious is None else "temporal-action-detection",
        "model": args.model_name or Path(args.model).name,
        "dataset": args.name or data.name,
        "split": "held out of train" if data.was_held_out else "validation",
        "provenance": current_provenance(seed=args.seed, dtype="float32"),
    }

    def worth(value):
        if data.metric == "top1":
            return Metric.proportion("top1", round(value * n), n)
        return Metric(data.metric, value, n)

    found = [ResultEntry(metrics=[worth(scores.full)], variant="all blocks", **shared)]
    for change, score in zip(changes.scores, scores.scores, strict=True):
        metrics = [worth(score.value), Metric("block_mse", change.mse, n), Metric("block_cosine", change.cosine, n)]
        found.append(ResultEntry(metrics=metrics, variant=f"without block {score.original_index}", **shared))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a trained classifier or detector: folder or Hub id")
    parser.add_argument("data", help="videos of its classes, or annotations; motion, streams: generated ones")
    parser.add_argument("--root", help="folder of the videos of an annotation file or list")
    parser.add_argument("--features", help="stored features of a detector that reads them")
    parser.add_argument("--part", choices=["backbone", "detector"], help="of a detector: its trunk, or its own blocks")
    parser.add_argument("--metric", help="default: top1, mAP or average_mAP, by the model")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="name of the data set in the results")
    parser.add_argument("--model-name", help="name of the checkpoint in the results")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path, help="chart (PNG or SVG)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        labels = AutoConfig.from_pretrained(args.model).id2label.values()
        settings = BlockDropSettings(part=args.part, metric=args.metric, timing_rounds=0)
        options = {} if args.root is None else {"root": args.root}
        run = open_run(
            args.model, str(data_source(args.data, work, labels)), work, (settings, options), seed=args.seed,
            features=args.features, progress=False,
        )  # fmt: skip
        data, model = run.data, run.uncompressed

        def batches():
            return data.batches("held_out", args.batch_size, run.device)

        changes = score_blocks(model, inputs(batches()), "discrepancy", args.part)
        task = data.task(model, "held_out").eval()
        scores = score_blocks(model, batches(), TaskCriterion(task, data.metric), args.part)
        n = len(data.held_out)
    print(f"{data.metric} with all blocks: {scores.full:.1%}, n = {n}")
    for change, score in zip(changes.scores, scores.scores, strict=True):
        print(
            f"block {score.original_index:2}: changes its input by {change.mse:.4g} (cosine {change.cosine:.3f}); without it {score.value:.1%}"
        )
    changed, lost = ([change.mse for change in changes.scores], [-score.value for score in scores.scores])
    agreement = rank_correlation(torch.tensor([changed]), torch.tensor([lost])).item()
    print(f"rank correlation of what a block changes and what is lost without it: {agreement:.2f}")
    if args.results is not None:
        add_results(args.results, entries(args, data, changes, scores))
    if args.picture is not None:
        title = f"{args.model_name or Path(args.model).name}, {args.name or data.name}"
        plot(title, data.metric, n, changes.scores, scores.scores, scores.full, args.picture)


if __name__ == "__main__":
    main()
