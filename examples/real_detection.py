# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Small detectors on a few real untrimmed videos, beside what needs no pixels: several arms, several seeds, one results file.

    python examples/real_detection.py annotations.json --name workout --work outputs/workout --features "image features=features/" \\
        --pixels "from scratch=" --root videos/ --split test --results model_cards/results/detection-workout.json

An arm is NAME=PLACE. Of `--features` the place is a feature store, of `--pixels` a classifier's folder whose trunk is trained on, of `--frozen`
one whose trunk stays as it is; nothing after "=" stands for a new Video-FocalNet. `{seed}` in a place becomes the seed. The checkpoint is
chosen on the validation videos; `--split` (default: validation) is looked at once per run that is ready, and its predictions are kept. Settings were
chosen on validation videos, too. `examples/real_detection.sh` calls this for whole data sets.
"""

import argparse
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from hf_effvid import VideoFocalNetConfig, evaluate_detections, train_detector
from hf_effvid.data import load_detection_annotations
from hf_effvid.data.feature_store import FeatureStore
from hf_effvid.evaluation import ResultEntry, add_results, analyze_detections, current_provenance, evaluate_detector
from hf_effvid.evaluation.detection import THUMOS_TIOUS
from hf_effvid.evaluation.detection_baselines import BASELINES, evaluate_without_pixels
from hf_effvid.evaluation.detection_charts import plot_errors
from hf_effvid.evaluation.detection_runs import average_runs, compare_runs
from hf_effvid.evaluation.detection_sliding_windows import NearestMeanDetector, TimedFeatures


DRAWS = 10
HEAD = {"hidden_size": 64, "num_stem_layers": 1, "attention_window": 9, "loss_normalizer_init": 20.0}
ERROR_BINS = {"coverage": (0.05, 0.1, 0.2, 0.4, 1.0), "length": (1.0, 2.0, 4.0, 6.0, np.inf)}


def new_trunk() -> VideoFocalNetConfig:
    """The network of examples/configs/real_videos.yaml on squares: a quarter of a million parameters."""
    return VideoFocalNetConfig(
        num_frames=16, image_size=[64, 64], patch_size=8, embed_dim=32, depths=[2, 2], focal_levels=[2, 2], focal_windows=[3, 3],
        drop_path_rate=0.1, use_layerscale=True, layerscale_value=0.1, use_postln_in_modulation=True, initialization="fan_in",
    )  # fmt: skip


def train(kind: str, place: str, annotations, run: Path, seed: int, args) -> Path:
    """The folder of the trained model; an existing one is taken as it is."""
    if (run / "training.json").exists():
        return run / "model"
    steps = args.steps if kind == "features" else args.pixel_steps
    settings = {
        "max_steps": steps,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": max(1, steps // 5),
        "save_steps": max(1, steps // 5),
        "save_total_limit": 1,
        "per_device_train_batch_size": 8 if kind == "features" else 4,
        "ema_decay": 0.99,
        "logging_steps": steps,
        "seed": seed,
    }
    if kind == "features":
        head, model = HEAD | {"input_dropout_prob": 0.2}, None
        windows = {"crop_ratio": [0.7, 1.0]}
    else:
        head, model, windows = HEAD, place or new_trunk(), None
        settings |= {"freeze": ["backbone"]} if kind == "frozen" else {}
        settings |= {"lr_factors": {"backbone": 0.3}} if kind == "pixels" and place else {}
    train_detector(
        model, annotations, output_dir=run, features=place if kind == "features" else None, config=head, windows=windows,
        processor={"feature_fps": args.fps} if kind != "features" and args.fps else None, args=settings, overwrite=True,
        progress=False,
    )  # fmt: skip
    return run / "model"


def nearest_mean(annotations, place: str, split: str):
    """Detections of the videos of a split by sliding windows and class means of the training videos."""
    store = FeatureStore.open(place)

    def timed(name):
        for video in annotations.in_split(name).videos:
            stored = store[video.name]
            marks = [(one.label, one.start, one.end) for one in video.usable()]
            seconds = video.duration or stored.duration
            yield video.name, TimedFeatures(stored.features.numpy(), stored.grid(video.fps), marks, seconds)

    detector = NearestMeanDetector().fit([video for _, video in timed("train")])
    return {name: detector.detect(video) for name, video in timed(split)}


def arms(args):
    for kind in ("features", "frozen", "pixels"):
        for given in getattr(args, kind):
            name, _, place = given.partition("=")
            yield kind, name, place


def run_arm(kind, name, place, annotations, args):
    """One `DetectionRun` per seed."""
    runs = []
    for seed in args.seeds:
        here, folder = place.format(seed=seed), args.work / f"{re.sub('[^a-z0-9]+', '-', name.lower())}-{seed}"
        model = train(kind, here, annotations, folder, seed, args)
        found = evaluate_detections(
            str(model), annotations.in_split(args.split), features=FeatureStore.open(here) if kind == "features" else None, seed=seed,
            dataset_name=args.name, split=args.split, predictions_file=folder / f"{args.split}.json", progress=False,
        )  # fmt: skip
        print(f"{name}, seed {seed}: average mAP {found.report.average_mAP:.4f}", flush=True)
        runs.append(found)
    return runs


def baseline_reports(annotations, args) -> dict[str, list]:
    truth = annotations.to_activitynet()
    names = {"dataset_name": args.name, "training_subset": "train", "subset": args.split, "seeds": range(DRAWS)}
    return {name: evaluate_without_pixels(name, truth, truth, **names) for name in BASELINES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--name", required=True, help="name of the data set in the results")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--root", help="folder with the videos")
    parser.add_argument("--split", default="validation")
    several = {"action": "append", "default": [], "metavar": "NAME=PLACE"}
    parser.add_argument("--features", **several)
    parser.add_argument("--pixels", **several)
    parser.add_argument("--frozen", **several)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=250, help="of arms on features")
    parser.add_argument("--pixel-steps", type=int, default=120, help="of arms on pixels")
    parser.add_argument(
        "--fps", type=float, help="frames per second that arms on pixels look at; default: follows from the data"
    )
    parser.add_argument("--note", action="append", default=[], help="remark for the results, such as what is composed")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--pictures", type=Path, help="folder for the errors of the first arm, first seed")
    args = parser.parse_args()
    annotations = load_detection_annotations(
        args.annotations, root=args.root, missing="error" if args.root else "keep"
    )
    truth = annotations.to_activitynet()

    baselines = baseline_reports(annotations, args)
    best = max(baselines, key=lambda name: np.mean([report.average_mAP for report in baselines[name]]))
    common = {"task": "temporal-action-detection", "dataset": args.name, "split": args.split}

    def mean_entry(model, variant, reports, extra=(), protocol=None):
        metrics = average_runs(reports)
        shown = metrics[0]
        print(f"{model}, {variant}: {shown.value:.4f} [{shown.interval[0]:.4f}, {shown.interval[1]:.4f}]", flush=True)
        described = {"evaluator": "default", "tious": list(THUMOS_TIOUS), "n_annotations": len(reports[0].data.truth)}
        return ResultEntry(
            **common, model=model, variant=variant, metrics=(*metrics, *extra), provenance=current_provenance(dtype="float32"),
            protocol=described | (protocol or {}), notes=tuple(args.note),
        )  # fmt: skip

    def save(*entries):
        if args.results:
            add_results(args.results, entries)

    save(*(mean_entry(f"baseline: {name}", f"mean of {DRAWS} draws", runs) for name, runs in baselines.items()))
    for _, name, place in (arm for arm in arms(args) if arm[0] == "features"):
        found = nearest_mean(annotations, place.format(seed=args.seeds[0]), args.split)
        report = evaluate_detector(truth, found, THUMOS_TIOUS, subset=args.split)
        save(mean_entry("baseline: nearest class mean, sliding windows", name, [report]))
    for number, (kind, name, place) in enumerate(arms(args)):
        runs = run_arm(kind, name, place, annotations, args)
        reports, notes = [run.report for run in runs], tuple(args.note)
        save(*(replace(run.to_result_entry(), model="actionformer-mini", variant=name, notes=notes) for run in runs))
        difference = replace(compare_runs(reports, baselines[best]), name=f"average_mAP minus {best}")
        how = {
            "input": {"features": "stored features", "frozen": "pixels, trunk frozen"}.get(kind, "pixels, all trained")
        }
        save(mean_entry("actionformer-mini", f"{name}, mean of {len(runs)} seeds", reports, [difference], how))
        if args.pictures and not number:
            reports[0].model_name = f"{name}, seed {args.seeds[0]}"
            errors = analyze_detections(reports[0], ERROR_BINS)
            print(errors.to_text())
            plot_errors(errors, args.pictures)


if __name__ == "__main__":
    main()
