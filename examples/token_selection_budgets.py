# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""LITE++ on the motion clips: what a budget per clip brings, gauge by gauge, against one keep ratio of equal cost and against chance.

    python -c "import hf_effvid; hf_effvid.make_motion_dataset('motion_clips')"
    python examples/token_selection_budgets.py --data motion_clips       # -> model_cards/results/token-selection-budgets.json
    python examples/token_selection_budgets.py --data motion_clips --gauges probe student --time-rounds 31 \\
        --model examples/checkpoints/videomae-motion-12 --results model_cards/results/difficulty-gauge-motion.json

LITE's selector is trained on the committed host (once, kept in the working folder). For every base budget and gauge, thresholds are
calibrated on `validation`: to the share of easy clips that the paper's costs imply, with its small budgets (.3, or .2 beside .3). Two more
policies ask for a mean cost. All are then measured on `test`: accuracy with its interval, realised cost and mean budget, paired differences;
and batches of mixed budgets are compared with the loop over their clips. About four minutes of one CPU core.

The gauge `student` is a small MoViNet (the paper's gauge is one), trained here on the same training split in a few minutes, or the classifier
that --student names. --time-rounds also times each gauge against what it saves, in seconds that the processor computed.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from hf_effvid import EffVidVideoProcessor, MoViNetConfig
from hf_effvid.data import load_video_dataset
from hf_effvid.evaluation.opening import load_classifier
from hf_effvid.evaluation.results import Metric, add_results
from hf_effvid.training.budget_calibration import calibrate_budget
from hf_effvid.training.budget_evaluation import evaluate_budget
from hf_effvid.training.budget_measuring import ClipReading
from hf_effvid.training.classification import train_classifier
from hf_effvid.training.token_selector import train_token_selector


HOST = Path(__file__).resolve().parent / "checkpoints" / "videomae-motion"
GAUGES = ("probe", "cascade", "student")
STUDENT = {
    "stem_size": 8, "hidden_sizes": [12, 24], "expand_sizes": [[24, 24], [48, 48]], "kernel_sizes": [["33", "33"], ["33", "33"]],
    "strides": [2, 2], "projection_size": 48, "head_size": 64, "num_frames": 8, "image_size": 32, "classifier_dropout": 0.0,
}  # fmt: skip
BUDGETS = (0.9, 0.7, 0.5, 0.3)
COMPARED = 16  # clips of a batch that is compared with a loop


def lite_checkpoint(given) -> Path:
    """LITE on the host; its oracle fails the check on this host, which the study of it says too."""
    run = given.work / "lite"
    if not (run / "training.json").is_file():
        train_token_selector(
            given.model, given.data, output_dir=run, force=True, hidden_sizes=(64, 32), cache="ram", overwrite=True,
            args={"num_train_epochs": given.epochs, "seed": 0, "report_to": "none"}, progress=False,
        )  # fmt: skip
    return run / "model"


def student_checkpoint(given) -> Path:
    """A small MoViNet that knows the same classes, for clips half as large as the host's."""
    if given.student is not None:
        return given.student
    run = given.work / "student"
    if not (run / "training.json").is_file():
        processor = EffVidVideoProcessor(
            num_frames=8, sampling="dense", frame_stride=2, size={"shortest_edge": 32}, crop_size=32, do_normalize=False,
            horizontal_flip_safe=False,
        )  # fmt: skip
        train_classifier(
            MoViNetConfig(**STUDENT), given.data, output_dir=run, processor=processor, augmentation="none", cache="ram", overwrite=True,
            args={
                "num_train_epochs": given.student_epochs, "per_device_train_batch_size": 16, "per_device_eval_batch_size": 64,
                "learning_rate": 1e-2, "weight_decay": 0.02, "seed": 0, "report_to": "none",
            },
            progress=False,
        )  # fmt: skip
    return run / "model"


def batch_against_loop(folder, data) -> Metric:
    """Largest difference between the logits of a batch of mixed budgets and those of its clips one by one."""
    model, processor = load_classifier(str(folder), None, False)
    rows = load_video_dataset(data, split="test")
    picked = range(0, len(rows), max(1, len(rows) // COMPARED))
    clips = torch.cat([processor(rows[index]["video"], return_tensors="pt")["pixel_values"] for index in picked])
    with torch.inference_mode():
        whole = model.eval()(clips)
        alone = torch.cat([model(clip[None]).logits for clip in clips])
    budgets = len(set(whole.realised_keep_ratio.tolist()))
    name = f"largest difference of logits, batch of {budgets} budgets against loop"
    return Metric(name, float((whole.logits - alone).abs().max()), len(clips))


def measure(lite, given, gauge, keep_ratio, **wanted):
    """Calibrates one policy, evaluates it on the test split and records that."""
    reading = ClipReading(batch_size=32, progress=False)
    asked_of = str(student_checkpoint(given)) if gauge == "student" else gauge
    found = calibrate_budget(
        str(lite), given.data, gauge=asked_of, keep_ratio=keep_ratio, reading=reading, time_rounds=given.time_rounds,
        time_clock="processor", **wanted,
    )  # fmt: skip
    asked = f", {wanted['mean_gmacs']:.3g} GMACs wanted" if wanted else ""
    folder = given.work / f"{gauge}-{keep_ratio:g}{'-cost' if wanted else ''}"
    found.save(folder)
    report, entries = evaluate_budget(str(folder), given.data, reading=reading)
    thresholds = found.thresholds
    note = (
        f"thresholds {thresholds.low:.4f} and {thresholds.high:.4f} from {thresholds.n} clips of {found.split}: "
        f"{thresholds.easy_share:.1%} on the small budget there, {thresholds.wanted_share:.1%} wanted{asked}"
    )
    first = entries[0]
    metrics = (*first.metrics, batch_against_loop(folder, given.data))
    notes = (*first.notes, note)
    if report.calibration_error is not None:
        metrics += (Metric("calibration error of the gauge", report.calibration_error, report.n),)
    if report.calibration_error_before is not None:
        metrics += (Metric("calibration error of the gauge before", report.calibration_error_before, report.n),)
    if found.temperature is not None:
        metrics += (Metric("top1 of the gauge, held out", found.temperature.accuracy, found.temperature.n),)
        fit = found.temperature
        notes += (f"temperature {fit.temperature:.3f}; on the held-out clips: negative log-likelihood {fit.nll_before:.3f} before, "
                  f"{fit.nll_after:.3f} after, calibration error {fit.ece_before:.3f} before, {fit.ece_after:.3f} after",)  # fmt: skip
    if found.timing is not None:
        metrics += found.timing.metrics()
        notes += (found.timing.summary(),)
    entries[0] = replace(first, metrics=metrics, notes=notes)
    entries = [
        replace(
            one, model=Path(given.model).name, dataset="generated motions", variant=one.variant.replace("(model,", f"({gauge},") + asked
        )
        for one in entries
    ]  # fmt: skip
    add_results(given.results, entries)
    exact = next(metric for metric in metrics if metric.name.startswith("largest difference"))
    print(f"\n{entries[0].variant}", found.summary(), report.summary(), f"{exact.name}: {exact.value:.1e}", sep="\n")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(HOST), help="a video transformer that knows the classes of the clips")
    parser.add_argument("--data", default="motion_clips", help="made by hf_effvid.make_motion_dataset")
    parser.add_argument("--work", type=Path, default=Path("token_selection_budgets"), help="folder of the checkpoints")
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS), help="base budgets")
    parser.add_argument("--gauges", nargs="+", choices=GAUGES, default=["probe", "cascade"])
    parser.add_argument(
        "--student", type=Path, help="classifier for the gauge student; default: one that is trained here"
    )
    parser.add_argument("--student-epochs", type=float, default=5)
    parser.add_argument("--time-rounds", type=int, default=0, help="rounds that time the gauge against what it saves")
    parser.add_argument("--epochs", type=float, default=4, help="of the selector's training")
    parser.add_argument("--results", type=Path, default=Path("model_cards/results/token-selection-budgets.json"))
    given = parser.parse_args()
    lite = lite_checkpoint(given)
    for gauge in given.gauges:
        for keep_ratio in given.budgets:
            found = measure(lite, given, gauge, keep_ratio)
        # a mean cost instead of a share: half way from the small budget to the base
        costs = found.costs
        floor = costs.gauge + costs.easy
        measure(lite, given, gauge, given.budgets[-1], mean_gmacs=0.5 * (floor + costs.mean(0.0)))


if __name__ == "__main__":
    main()
