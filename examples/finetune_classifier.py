# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Fine-tune a video classifier on a folder of videos, or train a small one from scratch.

`train_classifier` does the whole job: it finds the splits (class folders, CSV lists, Hub ids), gives the model a head of the right
size, follows the checkpoint's own recipe for frames and pixels, trains with transformers' `Trainer`, evaluates every epoch, keeps
the best weights, and ends with a folder that `from_pretrained` opens, with or without this package. This script only chooses.

What to choose:

* With some hundred clips per class, start from a pretrained checkpoint with `--model` and a small learning rate (1e-4 to 5e-4).
  `--layer_decay 0.75` lets the lower blocks, which know about pictures in general, move less.
* `--lora 8` trains small adapters beside frozen weights: less memory and less overfitting on small data, at some cost in accuracy
  where the new videos look unlike the old ones. The adapters are merged at the end, so the result is an ordinary model.
* From scratch only small models on many clips work. The default here is one: a 0.5 M parameter Video-FocalNet on generated clips
  whose classes are motions, so that no single frame tells the class (chance is 12.5 %).

Without arguments it makes those clips in a temporary folder, so it runs offline:

    python examples/finetune_classifier.py --max_steps 2                       # does everything run? (seconds)
    python examples/finetune_classifier.py --epochs 12                         # learns the motions
    python examples/finetune_classifier.py --data my_videos --model MCG-NJU/videomae-base-finetuned-kinetics \\
        --learning_rate 2e-4 --layer_decay 0.75 --epochs 10                    # one GPU
    python examples/finetune_classifier.py --data my_videos --model MCG-NJU/videomae-base-finetuned-kinetics --lora 8
    torchrun --nproc_per_node 4 examples/finetune_classifier.py --data my_videos --model ...   # several GPUs

A run that was killed goes on with the same command and `--resume`. With `--max_steps 2` it ends like this (nothing is learned yet):

    trained 510,128 of 510,128 parameters on 128 clips of 8 classes: 2 steps, 0.1 epochs, 1 s, mean loss 2.3498
    32 validation clips: loss 2.4232, top1 0.1562, mean_class_accuracy 0.1562, top5 0.6250
    best checkpoint: finetuned/checkpoint-2
    model: finetuned/model
"""

import argparse
import tempfile
from pathlib import Path

from hf_effvid import VideoFocalNetConfig
from hf_effvid.data import make_motion_dataset
from hf_effvid.training import train_classifier


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", help="folder, list file or Hub id of labelled videos; default: generated motions")
    parser.add_argument("--model", help="folder or Hub id of a video classifier; default: a small one from scratch")
    parser.add_argument("--output_dir", default="finetuned")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--max_steps", type=int, default=-1, help="stop after so many steps, whatever --epochs says")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--layer_decay", type=float, default=1.0, help="learning-rate factor per block downwards")
    parser.add_argument("--lora", type=int, default=0, metavar="RANK", help="train LoRA adapters of this rank")
    parser.add_argument("--augmentation", default="light", choices=["none", "light", "recipe", "strong"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run in --output_dir")
    return parser.parse_args()


def small_config():
    """A Video-FocalNet that learns from scratch: fan-in initialisation, layer scale and a norm in the modulation.

    The published initialisation of the big models is almost blind to time at this size.
    """
    return VideoFocalNetConfig(
        embed_dim=24,
        depths=[1, 1, 2],
        focal_levels=[2, 2, 2],
        focal_windows=[3, 3, 3],
        num_frames=8,
        image_size=48,
        drop_path_rate=0.0,
        use_layerscale=True,
        layerscale_value=0.1,
        use_postln_in_modulation=True,
        initialization="fan_in",
    )


def main():
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as scratch:
        data = arguments.data
        if data is None:
            clips = (
                {"train": 16, "validation": 4, "test": 4}
                if arguments.max_steps > 0
                else {"train": 200, "validation": 25, "test": 25}
            )
            data = make_motion_dataset(Path(scratch) / "motion", clips_per_class=clips, seed=arguments.seed)
        outcome = train_classifier(
            arguments.model or small_config(),
            data,
            output_dir=arguments.output_dir,
            augmentation=arguments.augmentation,
            resume=arguments.resume,
            args={
                "num_train_epochs": arguments.epochs,
                "max_steps": arguments.max_steps,
                "per_device_train_batch_size": arguments.batch_size,
                "learning_rate": arguments.learning_rate,
                "layer_decay": arguments.layer_decay,
                "lora_r": arguments.lora,
                "seed": arguments.seed,
                "report_to": "none",
            },
        )
    print(f"Classify a file with it:  effvid predict FILE --model {outcome.model_dir}")


if __name__ == "__main__":
    main()
