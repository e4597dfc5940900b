"""Training."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from .application import app
from .options import (
    Features,
    Format,
    JsonFlag,
    Labels,
    MultiLabel,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    TaskName,
    check_positive,
    detection_options,
    list_options,
    print_json,
)


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="Folder of class folders, list file, metadata.csv, or data set id.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the run.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, Hub id, or preset such as video_focalnet:tiny.")
    ] = None,
    task: TaskName = None,
    features: Features = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Recipe file (YAML), see examples/configs.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value: training.learning_rate=1e-3 (repeatable).")
    ] = None,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Share of each class to validate on when there is no such split; 0 for none; default: 0.2."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(callback=check_positive, help="Passes over the training clips.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per step and device.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", callback=check_positive, help="Peak learning rate.")
    ] = None,
    lora: Annotated[int | None, typer.Option(min=1, help="Rank of LoRA adapters; the base stays frozen.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest complete checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run in the folder.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Train a video classifier, or a detector of actions in long videos, on one's own data; ends with a Hub folder in OUTPUT_DIR/model.

    Example: `effvid train my_videos/ --model video_focalnet:tiny --output-dir run --epochs 30 --batch-size 8`

    Example: `effvid train actions.csv --task detection --root my_videos/ --output-dir run`
    """
    from ..training.recipe import load_recipe

    recipe = load_recipe(config, set_ or ())
    recipe.task = task or recipe.task
    if recipe.task == "classification" and features is not None:
        raise typer.BadParameter("stored features are for --task detection", param_hint="--features")
    flags = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "lora_r": lora,
        "seed": seed,
    }
    recipe.training.update({name: value for name, value in flags.items() if value is not None})
    if validation_share is not None:
        recipe.validation_share = validation_share
    run = {
        "output_dir": output_dir,
        "augmentation": recipe.build_augmentation(),
        "validation_share": recipe.validation_share,
        "args": recipe.training,
        "resume": resume,
        "overwrite": overwrite,
        "trust_remote_code": trust_remote_code,
        "progress": not quiet,
    }
    # stdout is for the result; what the training loop prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        if recipe.task == "detection":
            options = detection_options(root, format, labels, skip_missing)
            outcome = _train_detector(recipe, model, data, features, run | recipe.data | options)
        else:
            options = list_options(root, multi_label, format, labels, skip_missing)
            outcome = _train_classifier(recipe, model, data, run | recipe.data | options)
    if as_json:
        print_json({name: value for name, value in outcome.to_dict().items() if name != "history"})


def _train_classifier(recipe, model, data, options):
    from ..training.classification import train_classifier

    recipe.model = model or recipe.model
    return train_classifier(
        recipe.build_model_source(), data, processor=recipe.build_processor(), cache=recipe.cache, **options
    )


def _train_detector(recipe, model, data, features, options):
    from ..training.detection import train_detector

    named = recipe.model if isinstance(recipe.model, str) else recipe.backbone
    return train_detector(
        model or (named if features is None else None),
        data,
        features=None if features is None else recipe.open_features(features),
        config=recipe.detector_fields(),
        processor=recipe.detector_processor_fields(),
        windows=recipe.windows,
        **recipe.detection,
        **options,
    )
