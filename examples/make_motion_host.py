# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Makes examples/checkpoints/videomae-motion: a small VideoMAE, trained on generated motion clips, to try token selection on.

    python examples/make_motion_host.py                       # about three minutes of one CPU core
    effvid select study --model examples/checkpoints/videomae-motion --data motion_clips --output-dir token_selection

The checkpoint is a stock VideoMAE: nothing in it knows of token selection. All of its biases are trained, that is, not zero.
"""

import argparse
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

import hf_effvid
from hf_effvid.training.classification import train_classifier
from hf_effvid.training.recipe import load_recipe


HERE = Path(__file__).resolve().parent
RECIPE = HERE / "configs" / "token_selection" / "motion_videomae.yaml"
CHECKPOINT = HERE / "checkpoints" / "videomae-motion"
CLIPS = {"train": 300, "validation": 20, "test": 30}
KEPT_FILES = ("config.json", "model.safetensors", "video_preprocessor_config.json", "preprocessor_config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("motion_clips"), help="where the clips are, or are written to"
    )
    parser.add_argument("--work", type=Path, default=Path("motion_host"), help="folder of the run")
    parser.add_argument("--output", type=Path, default=CHECKPOINT, help="folder of the checkpoint")
    parser.add_argument("--set", action="append", default=[], help="override of the recipe: section.key=value")
    args = parser.parse_args()

    data = hf_effvid.make_motion_dataset(args.data, clips_per_class=CLIPS)
    recipe = load_recipe(RECIPE, args.set)
    outcome = train_classifier(
        recipe.build_model_source(),
        data,
        output_dir=args.work,
        processor=recipe.build_processor(),
        augmentation=recipe.augmentation,
        cache=recipe.cache,
        args=recipe.training,
        resume=True,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    for name in KEPT_FILES:
        if (Path(outcome.model_dir) / name).is_file():
            shutil.copy(Path(outcome.model_dir) / name, args.output / name)
    weights = load_file(args.output / "model.safetensors")
    silent = [name for name, tensor in weights.items() if name.endswith("bias") and not tensor.any()]
    if silent:
        raise SystemExit(f"biases that are zero would hide mistakes in loading: {silent}")
    size = sum(path.stat().st_size for path in args.output.iterdir())
    print(json.dumps({"folder": str(args.output), "bytes": size, "validation": outcome.metrics}, indent=2))


if __name__ == "__main__":
    main()
