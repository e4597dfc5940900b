# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Fourth read: two teachers and a small student, a transformer and a CNN, on generated clips.

    python examples/04_distill_model.py
    python examples/04_distill_model.py --student tsm:mobilenetv4-small --teacher-vit vit/model --teacher-cnn cnn/model --data my_videos/ --epochs 30

Without arguments it runs offline, in a few minutes: the transformer lies in this repository, the CNN teacher is trained first, and both trainings
stop long before they are done. What the terms mean and what they are worth stands in docs/students.md.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForVideoClassification

import hf_effvid
from hf_effvid import EffVidVideoProcessor, X3DConfig
from hf_effvid.training import train_classifier
from hf_effvid.training.distillation_comparison import compare_with_teachers
from hf_effvid.training.distillation_plan import plan_distillation


VIT = Path(__file__).resolve().parent / "checkpoints" / "videomae-motion-12"
# generated motion as the transformer sees it
SMALL = {"num_frames": 8, "image_size": 48, "frame_stride": 2, "classifier_dropout": 0.0}
TEACHER = X3DConfig(stem_size=16, hidden_sizes=[16, 32], depths=[2, 3], head_size=128, **SMALL)
STUDENT = X3DConfig(stem_size=12, hidden_sizes=[12, 24], depths=[1, 2], head_size=64, **SMALL)
TRAINING = {
    "learning_rate": 3e-3,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 16,
    "eval_strategy": "no",
    "logging_first_step": True,
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--student", default=STUDENT, help="folder, Hub id, or preset such as x3d:s")
parser.add_argument("--teacher-vit", default=str(VIT), help="folder or Hub id of a transformer that knows the classes")
parser.add_argument("--teacher-cnn", help="the same of a CNN; default: one that is trained first")
parser.add_argument("--data", help="videos of these classes; default: generated clips")
parser.add_argument("--epochs", type=float, help="epochs of the student; default: 200 steps")
parser.add_argument("--steps", type=int, default=200, help="steps of both trainings, where no epochs are given")
parser.add_argument("--output", type=Path, help="folder of the runs; default: one that is deleted again")
args = parser.parse_args()

generated = args.data is None
length = {"num_train_epochs": args.epochs} if args.epochs else {"max_steps": args.steps}
# of generated clips every model takes the whole picture, as it is: a mirrored one would show another motion
clips = EffVidVideoProcessor(
    num_frames=8, frame_stride=2, size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, num_clips=1, num_crops=1,
    image_mean=[0.45] * 3, image_std=[0.225] * 3,
) if generated else None  # fmt: skip
looks = {"processor": clips, "augmentation": "none" if generated else "light", "cache": "ram" if generated else None}

with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):  # what training loops print
    folder = args.output or Path(scratch)
    data = args.data
    if generated:
        classes = sorted(AutoModelForVideoClassification.from_pretrained(args.teacher_vit).config.label2id)
        data = hf_effvid.make_motion_dataset(folder / "clips", {"train": 40, "validation": 10}, classes=classes)

    # 1. Teachers know the classes of the data before they teach them. The CNN is of the student's own kind, and larger.
    cnn = args.teacher_cnn
    if cnn is None:
        print("the CNN teacher learns from labels", file=sys.stderr)
        settings = {**TRAINING, "max_steps": args.steps}
        cnn = train_classifier(TEACHER, data, output_dir=folder / "cnn", args=settings, overwrite=True, progress=False, **looks).model_dir  # fmt: skip

    run = {
        "teacher_vit": args.teacher_vit,
        "teacher_cnn": cnn,
        "output_dir": folder / "student",
        "args": {**TRAINING, **length},
        # two random views of each clip: both teachers answer to each once, and the student comes back to them
        "views": 2,
        "cache_teachers": folder / "answers",
        **looks,
    }
    # 2. What would be done: the models, the terms of the loss, what is trained beside the student and what a step costs.
    plan = plan_distillation(args.student, data, progress=False, **run)
    print(plan.to_text(), file=sys.__stdout__)

    # 3. The student. What helped it to learn is left behind: the folder holds an ordinary model.
    outcome = hf_effvid.distill_classifier(args.student, data, overwrite=True, progress=False, **run)
    last = [line for line in outcome.history if "kd_loss" in line][-1]
    print(
        f"\nat the end the transformer counts {last['weight_vit']:.2f}, the CNN {last['weight_cnn']:.2f}",
        file=sys.__stdout__,
    )

    # 4. Was it worth it? All three on the same held-out clips.
    teachers = {"teacher_vit": args.teacher_vit, "teacher_cnn": cnn}
    print(compare_with_teachers(outcome.model_dir, data, progress=False, **teachers).to_text(), file=sys.__stdout__)
    model = AutoModelForVideoClassification.from_pretrained(outcome.model_dir)
    print(f"{type(model).__name__}, {model.num_parameters():,} parameters, as it was alone", file=sys.__stdout__)
