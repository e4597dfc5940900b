# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Do the oracle and LITE find the tokens that count? Three tasks of which the answer is known.

    python examples/token_selection_needle.py                                   # 3 seeds, about 6 minutes of one CPU core
    python examples/token_selection_needle.py --tasks global --seeds 0 --clips 64 --train-clips 64 --epochs 1     # does it run

The hosts are those of make_needle_hosts.py. Per task: the check of the oracle at the block's output and at the last MLP's output; LITE
trained on either and on shuffled targets; accuracy on new clips by the tokens of every arm at every keep ratio, with random tokens (5 draws),
the tokens that truly carry the class, and the scores that cost nothing; the area under the ROC curve of every arm against the truth; paired
differences from random tokens with intervals. Writes model_cards/results/token-selection-needle.json.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from make_needle_hosts import HOSTS, TASKS, draw
from torch.utils.data import Dataset
from transformers import PrinterCallback, VideoMAEForVideoClassification

from hf_effvid.compression import FaithfulnessProtocol, OracleSettings, measure_faithfulness, oracle_importance
from hf_effvid.compression.host_selection import select_tokens
from hf_effvid.compression.token_deletion import logits_of_top, with_ties_broken
from hf_effvid.evaluation.intervals import paired_bootstrap_difference
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance
from hf_effvid.models.token_selection import num_kept_tokens
from hf_effvid.training import EffVidTrainer, EffVidTrainingArguments, SelectorTask


KEEP = (0.5, 0.3, 0.2, 0.1)
RANDOM_DRAWS = 5
SELECTORS = {
    "LITE": {},
    "LITE, last MLP's output": {"oracle": OracleSettings(oracle_tensor="mlp_out")},
    "LITE, shuffled targets": {"shuffled": True},
}
FREE = {"embedding norm": "embedding_norm", "embedding difference": "embedding_difference"}


class Clips(Dataset):
    """Drawn clips with their truth."""

    def __init__(self, kind, count, seed):
        self.pixels, self.labels, self.truth = draw(TASKS[kind], count, seed)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index], "labels": self.labels[index], "index": index}


def open_lite(kind, seed):
    host = VideoMAEForVideoClassification.from_pretrained(HOSTS / kind, dtype=torch.float32).eval()
    torch.manual_seed(seed)
    return select_tokens(host, keep_ratio=0.3, scorer="lite", selector_hidden_sizes=(64, 32))


def train(model, data, epochs, seed, **options):
    with tempfile.TemporaryDirectory() as folder:
        args = EffVidTrainingArguments(
            output_dir=folder, num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=2e-3, save_strategy="no", seed=seed,
            eval_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, logging_strategy="no",
        )  # fmt: skip
        trainer = EffVidTrainer(SelectorTask(model, **options), args=args, train_dataset=data)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval()


@torch.no_grad()
def arms_of(kind, seed, train_clips, epochs, clips):
    """Arm -> scores (B, N) of the test clips, and the model that answers."""
    data = Clips(kind, train_clips, 100 + seed)
    model, arms = open_lite(kind, seed), {}
    arms["informative tokens"] = torch.from_numpy(clips.truth.informative).float()
    for tensor in ("block_out", "mlp_out"):
        for source in ("true", "predicted"):
            settings = OracleSettings(oracle_tensor=tensor, label_source=source)
            arms[f"oracle {tensor}, {source} label"] = oracle_importance(
                model, clips.pixels, clips.labels, settings
            ).scores
    for name, options in SELECTORS.items():
        with torch.enable_grad():
            trained = train(open_lite(kind, seed), data, epochs, seed, **options)
        arms[name] = trained.token_scores(clips.pixels, scorer="lite")
    for name, scorer in FREE.items():
        arms[name] = model.token_scores(clips.pixels, scorer=scorer)
    generator = torch.Generator().manual_seed(seed)
    arms = {name: with_ties_broken(scores, generator) for name, scores in arms.items()}
    draws = [torch.rand(arms["LITE"].shape, generator=generator) for _ in range(RANDOM_DRAWS)]
    return model, arms, draws


@torch.no_grad()
def right(model, clips, scores, keep):
    """(B,) bool."""
    count = num_kept_tokens(scores.shape[1], keep)
    return (logits_of_top(model, clips.pixels, scores, count).argmax(-1) == clips.labels).numpy()


def auc(scores, true):
    """Mean over clips of the chance that an informative token scores higher than another; None where all are informative."""
    if true.all():
        return None
    areas = [
        (row[mask][:, None] > row[~mask][None]).float().mean()
        for row, mask in zip(scores, torch.from_numpy(true), strict=True)
    ]
    return torch.stack(areas).mean().item()


def study(kind, seed, given):
    clips = Clips(kind, given.clips, 7)
    model, arms, draws = arms_of(kind, seed, given.train_clips, given.epochs, clips)
    full = right(model, clips, draws[0], 1.0)
    entries, notes = (
        [],
        [f"host: accuracy {full.mean():.3f} with all tokens; chance {1 / TASKS[kind].num_classes:.3f}"],
    )
    random = {keep: np.stack([right(model, clips, draw, keep) for draw in draws]) for keep in KEEP}
    print(
        f"\n{kind}, seed {seed}: all tokens {full.mean():.3f}\n{'':<34}{'AUC':>6}" + "".join(f"{k:>7}" for k in KEEP)
    )
    print(f"{'random, mean of 5 draws':<34}{'.500':>6}" + "".join(f"{random[k].mean():>7.3f}" for k in KEEP))
    metrics = [Metric(f"top1 at keep {keep}", float(random[keep].mean()), len(clips)) for keep in KEEP]
    entries.append(entry(kind, seed, "random tokens, mean of 5 draws", metrics, notes))
    for name, scores in arms.items():
        area, metrics = auc(scores, clips.truth.informative), []
        if area is not None:
            metrics.append(Metric("auc of informative tokens", area, len(clips)))
        hits = {keep: right(model, clips, scores, keep) for keep in KEEP}
        for keep, hit in hits.items():
            # the first draw, so that the pairs are clips and not means
            paired = paired_bootstrap_difference(hit, random[keep][0], seed=seed)
            metrics.append(Metric.proportion(f"top1 at keep {keep}", int(hit.sum()), len(clips)))
            metrics.append(
                Metric(
                    f"top1 at keep {keep} minus random",
                    paired["difference"],
                    len(clips),
                    tuple(paired["interval"]),
                    "paired bootstrap over clips 95%",
                )  # fmt: skip
            )
        print(
            f"{name:<34}{'' if area is None else f'{area:.3f}':>6}" + "".join(f"{hits[k].mean():>7.3f}" for k in KEEP),
            flush=True,
        )
        entries.append(entry(kind, seed, name, metrics, notes))
    if seed == given.seeds[0]:
        entries += [gate(kind, model, clips, tensor) for tensor in ("block_out", "mlp_out")]
    return entries


def gate(kind, model, clips, tensor):
    """The check of an oracle as a result."""
    batches = zip(clips.pixels.split(32), clips.labels.split(32), strict=True)
    report = measure_faithfulness(model, batches, OracleSettings(oracle_tensor=tensor), FaithfulnessProtocol())
    print(report.summary(), flush=True)
    found = {
        "rank correlation": report.rank_correlation,
        "insertion gain": report.insertion_gain,
        "deletion gain": report.deletion_gain,
    }
    metrics = [
        Metric(name, m.value, m.n, (m.low, m.high), "mean +- 1.96 standard errors") for name, m in found.items()
    ]
    verdict = "passed" if report.passed else "failed: " + "; ".join(report.failures)
    return entry(kind, 0, f"check of the oracle at {tensor}", metrics, [verdict])


def entry(kind, seed, variant, metrics, notes):
    return ResultEntry(
        task="token-selection", model="videomae-needle", dataset=f"generated needles: {kind}", split="test", metrics=tuple(metrics),
        variant=variant, provenance=current_provenance(seed=seed, dtype="float32"), notes=tuple(notes),
        protocol={"num_frames": TASKS[kind].num_frames, "num_clips": 1, "num_crops": 1},
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--clips", type=int, default=512, help="test clips")
    parser.add_argument("--train-clips", type=int, default=1024)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/token-selection-needle.json"))
    given = parser.parse_args()
    for kind in given.tasks:
        for seed in given.seeds:
            add_results(given.results, study(kind, seed, given))


if __name__ == "__main__":
    main()
