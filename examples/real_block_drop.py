# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Fewer blocks on a real data set: progressive drops beside drops in random order, all at once, without recovery, and beside no drop at all.

    python examples/real_block_drop.py DATA --hosts 'outputs/host-{seed}/model' --name gestures --work outputs/gestures --drop 4 --steps 200 \\
        --split test --results model_cards/results/block-drop-gestures.json --picture docs/images/block-drop-gestures.png

DATA is a folder of clips with train, validation and test, for classifiers, or an annotation file (and --root with the videos), for detectors.
`--hosts` are the uncompressed models, one per seed. Blocks are scored on the training part and every step is measured on the validation
part; `--split` is looked at only when every arm of every seed is ready. Every drop is followed by `--steps` steps of recovery; arms that drop
several blocks at once get as many steps in one piece. The arm "trained on" drops nothing and gets the steps of all drops: without it, what
training longer brings would be credited to the compression.

`--train-only` stops before that look, so that several seeds or arms can run beside each other. Started again, it takes finished arms as
they are and goes on with the others. `examples/real_block_drop.sh` trains the hosts, too, and calls this.
"""

import argparse
from pathlib import Path

from compare_block_drops import PROGRESSIVE, RANDOM, TRAINED_ON, compare

from hf_effvid import progressive_block_drop
from hf_effvid.training.recipe import load_recipe


RECOVERY = {
    "warmup_steps": 0.1,
    "max_grad_norm": 1.0,
    "ema_decay": 0.0,
    "save_strategy": "no",
    "logging_steps": 50,
    "report_to": "none",
}


def arms_of(drop: int, steps: int) -> dict[str, dict]:
    """What `progressive_block_drop` is asked for, by arm, and for how many steps of one recovery."""
    together = {
        f"{count} at once": {"order": "at_once", "drop": count, "steps": count * steps}
        for count in sorted({max(2, drop // 2), max(2, drop)})
    }
    return {
        PROGRESSIVE: {"drop": drop, "steps": steps},
        RANDOM: {"order": "random", "drop": drop, "steps": steps},
        **together,
        "no recovery": {"drop": drop, "recovery": False, "steps": steps},
        TRAINED_ON: {"order": "at_once", "drop": 0, "steps": drop * steps},
    }


def options_of(args, seed: int, steps: int) -> dict:
    """What all arms are told alike."""
    training = {
        "max_steps": steps,
        "learning_rate": args.learning_rate,
        "per_device_train_batch_size": args.batch_size,
    }
    options = {"args": RECOVERY | training, "seed": seed, "progress": False, "timing_rounds": args.timing_rounds}
    return options | {
        "augmentation": load_recipe(args.config).build_augmentation(), **({"root": args.root} if args.root else {})
    }  # fmt: skip


def compress(arm: str, seed: int, args) -> Path:
    """The folder of one arm of one seed; a finished one is taken as it is."""
    folder = args.work / f"{arm.replace(' ', '-')}-{seed}"
    if not (folder / "model" / "config.json").exists():
        told = arms_of(args.drop, args.steps)[arm]
        options = options_of(args, seed, told.pop("steps"))
        host = args.hosts.format(seed=seed)
        progressive_block_drop(host, args.data, output_dir=folder, resume=folder.exists(), **options, **told)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--hosts", required=True, help="folder of the uncompressed model; {seed} becomes the seed")
    parser.add_argument("--root", help="folder with the videos of an annotation file")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", default="validation", help="what is looked at")
    parser.add_argument("--name", default="unnamed", help="name of the data set in the results")
    parser.add_argument("--model-name", default="videomae-thin", help="name of the model in the results")
    parser.add_argument("--note", action="append", default=[], help="remark for the results, such as what is composed")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--drop", type=int, default=4, help="blocks to drop, one by one")
    parser.add_argument("--steps", type=int, default=200, help="steps of recovery per dropped block")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument(
        "--config",
        type=Path,
        help="recipe whose augmentation recovery uses; default: light, flips where labels allow it",
    )
    parser.add_argument("--arms", nargs="+", help="some of them; default: all")
    parser.add_argument("--timing-rounds", type=int, default=2)
    parser.add_argument("--train-only", action="store_true", help="leave the comparison to another call")
    args = parser.parse_args()
    known = list(arms_of(args.drop, args.steps))
    if unknown := [arm for arm in args.arms or () if arm not in known]:
        parser.error(f"no such arms: {unknown}; there are {known}")
    args.note.append(
        f"{args.steps} steps of recovery per dropped block, {args.batch_size} clips or windows each, LoRA"
    )

    folders = {}
    for arm in args.arms or known:
        folders[arm] = [compress(arm, seed, args) for seed in args.seeds]
        print(f"{arm}: ready", flush=True)
    if not args.train_only:
        compare(folders, args)


if __name__ == "__main__":
    main()
