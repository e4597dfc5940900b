# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Trains the models of make_distilled_student.py: a larger X3D as CNN teacher, and very small ones that are taught in five ways with three seeds.

    python examples/train_motion_students.py                       # about twenty minutes of one CPU core
    python examples/train_motion_students.py --only cnn full-1     # some of them, so that several processes can share the work

The ViT teacher is examples/checkpoints/videomae-motion-12. The CNN teacher learns from the clips that the ViT learned from; a student gets a third
of these: alone, from one teacher, from the other, from both with equal weights, and by the whole method (docs/students.md). What is there is not
trained again, and every model answers the test clips once.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import hf_effvid
from hf_effvid import X3DConfig
from hf_effvid.data.synthetic import ALL_MOTION_CLASSES
from hf_effvid.evaluation.distillation_arms import ALONE, CNN_ONLY, CNN_TEACHER, FULL, UNIFORM, VIT_ONLY
from hf_effvid.training.classification import train_classifier
from hf_effvid.training.distillation import distill_classifier


CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
VIT = "videomae-motion-12"
CLASSES = tuple(name for name in ALL_MOTION_CLASSES if not name.startswith("turns_"))
# of each class; the teachers' are those of make_compressed_model.py, and the student's are among them
CLIPS = {"train": 300, "validation": 20, "test": 60}
STUDENT_CLIPS = 100
DATASET = "generated motions without rotation"

CLIP = {"num_frames": 8, "frame_stride": 2}
# as the ViT teacher, the CNN teacher sees larger pictures than the student
STUDENT = {
    "image_size": 32,
    "stem_size": 8,
    "hidden_sizes": [8, 12, 16],
    "depths": [1, 1, 2],
    "head_size": 32,
    "classifier_dropout": 0.0,
}
TEACHER = {
    "image_size": 48,
    "stem_size": 12,
    "hidden_sizes": [12, 20, 32],
    "depths": [1, 1, 2],
    "head_size": 64,
    "classifier_dropout": 0.0,
}
EPOCHS = {"student": 8, "cnn": 5}
LEARNING_RATES = {"student": 1.2e-2, "cnn": 4e-3}
TRAINING = {
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 50,
    "weight_decay": 0.02,
    "max_grad_norm": 1.0,
    "logging_steps": 75,
    "eval_strategy": "no",  # evaluated when it is done
    "save_strategy": "no",
    "load_best_model_at_end": False,
    "report_to": "none",
}


@dataclass(frozen=True)
class Arm:
    """How a student is taught: by which teachers, and what differs from the defaults of `DistillationSettings`."""

    name: str
    roles: tuple[str, ...]
    settings: dict


ARMS = {
    "alone": Arm(ALONE, (), {"kd_weight": 0.0, "residual": "none", "relation_weight": 0.0}),
    "vit": Arm(VIT_ONLY, ("vit",), {"residual": "none", "relation_weight": 0.0}),
    "cnn": Arm(CNN_ONLY, ("cnn",), {"residual": "none", "relation_weight": 0.0}),
    "uniform": Arm(UNIFORM, ("vit", "cnn"), {"weighting": "uniform", "residual": "none", "relation_weight": 0.0}),
    "full": Arm(FULL, ("vit", "cnn"), {}),
}

FOLDERS = {arm.name: f"{key}-{{}}" for key, arm in ARMS.items()} | {CNN_TEACHER: "cnn"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="RUN", help="train these alone: cnn, alone-0, full-2, ..."
    )
    args = parser.parse_args()
    train_all(args, args.only)


def add_options(parser) -> None:
    """Options of everything that works on these runs."""
    parser.add_argument("--work", type=Path, default=Path("outputs/distilled_student"), help="clips and runs; resumed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true", help="a handful of clips, two training steps, one seed")


def train_all(args, only=()):
    """Trains what is missing of the runs (or of `only` those), and gives the rows of the test clips."""
    if args.smoke:
        args.seeds = args.seeds[:1]
    clips = {"train": 8, "validation": 3, "test": 3} if args.smoke else CLIPS
    data = hf_effvid.make_motion_dataset(args.work / "clips", clips, classes=CLASSES)
    fewer = {"train": 4 if args.smoke else STUDENT_CLIPS, "validation": clips["validation"]}
    few = hf_effvid.make_motion_dataset(args.work / "fewer_clips", fewer, classes=CLASSES)
    test = hf_effvid.load_video_dataset(str(data), split="test")
    runs = {f"{arm}-{seed}": (ARMS[arm], seed) for arm in ARMS for seed in args.seeds}
    chosen = only or ["cnn", *runs]
    if "cnn" in chosen:
        train_teacher(data, args)
        look(args.work / "cnn", test)
    for run in chosen:
        if run in runs:
            train_student(*runs[run], few, args.work / run, args)
            look(args.work / run, test)
    return test


def train_teacher(data: Path, args) -> None:
    """The CNN teacher, from scratch; a finished run stays."""
    folder = args.work / "cnn"
    if not (folder / "training.json").exists():
        settings = training("cnn", 0, args)
        train_classifier(X3DConfig(**CLIP, **TEACHER), data, output_dir=folder, processor=processor(TEACHER["image_size"]), augmentation="none", cache="ram", args=settings, resume=True)  # fmt: skip


def train_student(arm: Arm, seed: int, data: Path, folder: Path, args) -> None:
    """One student; the teachers answer once, and every run reads what they said."""
    if (folder / "training.json").exists():
        return
    teachers = {
        f"teacher_{role}": {"vit": CHECKPOINTS / VIT, "cnn": args.work / "cnn" / "model"}[role] for role in arm.roles
    }
    distill_classifier(
        X3DConfig(**CLIP, **STUDENT),
        data,
        output_dir=folder,
        settings=arm.settings,
        processor=processor(STUDENT["image_size"]),
        augmentation="none",
        cache="ram",
        views=1,
        cache_teachers=args.work / ("answers-with-features" if arm.name == FULL else "answers") if arm.roles else None,
        args=training("student", seed, args),
        resume=True,
        **teachers,
    )


def training(kind: str, seed: int, args) -> dict:
    """Arguments of a run."""
    steps = {"max_steps": 2} if args.smoke else {"num_train_epochs": EPOCHS[kind]}
    return {**TRAINING, **steps, "learning_rate": LEARNING_RATES[kind], "seed": seed}


def processor(side: int):
    """What an X3D of this study sees."""
    return hf_effvid.EffVidVideoProcessor(
        num_frames=CLIP["num_frames"],
        sampling="dense",
        frame_stride=CLIP["frame_stride"],
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        num_clips=1,
        num_crops=1,
        image_mean=[0.45] * 3,
        image_std=[0.225] * 3,
    )


def look(run: Path, test, model_dir: Path | None = None):
    """A model's answers to the test clips, which it gives once and leaves in the folder of its run."""
    run.mkdir(parents=True, exist_ok=True)
    return hf_effvid.evaluate_classifier(
        str(model_dir or run / "model"),
        test,
        batch_size=48,
        dataset_name=DATASET,
        split="test",
        seed=0,
        predictions_file=run / "test.jsonl",
        progress=False,
    )


if __name__ == "__main__":
    main()
