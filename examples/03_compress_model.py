# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Third read: a trained model in, the same model with fewer blocks out, step by step.

    python examples/03_compress_model.py                                      # a small VideoMAE on generated clips
    python examples/03_compress_model.py --model run/model --data my_videos/ --drop 2 --epochs 5

Without arguments it runs offline, in a minute or two: it scores blocks on a part of the clips and recovers for a few steps only. What
`effvid compress` does without such savings stands in docs/block_drop.md.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from transformers import AutoModelForVideoClassification

import hf_effvid


DEFAULT = Path(__file__).resolve().parent / "checkpoints" / "videomae-motion-12"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", default=str(DEFAULT), help="folder or Hub id of a trained video classifier")
parser.add_argument("--data", default="motion", help="videos of its classes; motion: generated clips")
parser.add_argument("--drop", type=int, default=2, help="blocks to drop")
parser.add_argument("--epochs", type=float, help="epochs of each recovery; default: 50 steps")
parser.add_argument("--output", type=Path, help="folder of the run; default: one that is deleted again")
args = parser.parse_args()

# 1. The loop: leave every block out in turn, take the one away that is missed least, train what is left to be what the whole model was.
with tempfile.TemporaryDirectory() as scratch:
    with contextlib.redirect_stdout(sys.stderr):  # what the training loop prints
        outcome = hf_effvid.progressive_block_drop(
            args.model,
            args.data,
            output_dir=args.output or Path(scratch) / "run",
            drop=args.drop,
            score_videos=160,
            args={"num_train_epochs": args.epochs} if args.epochs else {"max_steps": 50},
            overwrite=True,
            progress=False,
        )

    # 2. How much each block was missed: top-1 on training clips without it. The held-out clips are kept for what comes below.
    first = outcome.steps[1]
    print(f"with all {outcome.depth} blocks: {first.full_score:.3f}")
    for block, score in sorted(first.scores.items()):
        print(f"  without block {block:2d}: {score:.3f}" + ("   <- goes first" if block in first.dropped else ""))

    # 3. What every step cost and gave, on held-out clips.
    print(f"\n{outcome.table()}\n")

    # 4. The result is an ordinary checkpoint, which needs nothing of this package.
    model = AutoModelForVideoClassification.from_pretrained(outcome.model_dir)
    config = model.config
    print(
        f"{type(model).__module__}.{type(model).__name__}, {config.num_hidden_layers} blocks; once they were {config.kept_blocks}"
    )
