"""Fewer blocks: the command that compresses a trained model."""

import contextlib
import sys
from pathlib import Path

import typer

from .application import app
from .compress_options import (
    Align,
    BatchSize,
    Blocks,
    Config,
    Criterion,
    Data,
    Drop,
    DryRun,
    Ema,
    Epochs,
    Head,
    LearningRate,
    Margin,
    MaxSteps,
    Metric,
    MlpWidth,
    ModelName,
    NoRecovery,
    Order,
    OutputDir,
    Overrides,
    Overwrite,
    Part,
    Preset,
    Rank,
    Relu,
    Results,
    Resume,
    ScoreOn,
    ScoreVideos,
    Seed,
    SplitSeed,
    TargetMacs,
    TargetMs,
    Teacher,
    Temperature,
    TimingRounds,
    TrainedModel,
    Tuning,
    ValidationShare,
)
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
    detection_options,
    list_options,
    numbers,
    print_json,
    task_of_checkpoint,
)


_ALIGNMENT = ("feature", "classification", "boundary")
# fields of BlockDropSettings that have a flag of the same name
_SETTINGS = (
    "drop", "target_ms", "target_macs", "margin", "order", "criterion", "score_on", "score_videos", "metric", "tuning", "rank", "head",
    "preset", "teacher", "temperature", "part", "mlp_width", "timing_rounds",
)  # fmt: skip
# fields of EffVidTrainingArguments -> their flags
_TRAINING = {
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "per_device_train_batch_size": "batch_size",
    "per_device_eval_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "ema_decay": "ema",
    "seed": "seed",
}


@app.command()
def compress(
    context: typer.Context,
    model: TrainedModel,
    data: Data,
    output_dir: OutputDir = Path("compressed"),
    drop: Drop = None,
    target_ms: TargetMs = None,
    target_macs: TargetMacs = None,
    margin: Margin = None,
    order: Order = None,
    blocks: Blocks = None,
    criterion: Criterion = None,
    score_on: ScoreOn = None,
    score_videos: ScoreVideos = None,
    metric: Metric = None,
    no_recovery: NoRecovery = False,
    tuning: Tuning = None,
    rank: Rank = None,
    head: Head = None,
    align: Align = None,
    preset: Preset = None,
    teacher: Teacher = None,
    temperature: Temperature = None,
    mlp_width: MlpWidth = None,
    relu: Relu = False,
    part: Part = None,
    task: TaskName = None,
    features: Features = None,
    config: Config = None,
    set_: Overrides = None,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    validation_share: ValidationShare = None,
    split_seed: SplitSeed = 0,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    ema: Ema = None,
    seed: Seed = None,
    timing_rounds: TimingRounds = None,
    results: Results = None,
    model_name: ModelName = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Drop the blocks of a trained model that matter least, and let it recover after each; ends with a Hub folder in OUTPUT_DIR/model.

    Example: `effvid compress run/model --data my_videos/ --drop 3 --output-dir compressed`

    Example: `effvid compress run/model --data actions.csv --root my_videos/ --margin 0.01 --criterion loss`
    """
    from ..training.progressive_block_drop import plan_block_drop, progressive_block_drop
    from ..training.recipe import load_recipe

    run = _run_options(load_recipe(config, set_ or ()), context.params)
    # stdout is for the result; what the training loop prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        if dry_run:
            outcome = plan_block_drop(model, data, **run)
        else:
            outcome = progressive_block_drop(model, data, resume=resume, overwrite=overwrite, **run)
    if results is not None and not dry_run:
        _keep(results, outcome, model_name or output_dir.resolve().name)
    if as_json:
        print_json(outcome.to_dict())
    elif dry_run:
        print(outcome.to_text())


def _keep(results: Path, outcome, name: str) -> None:
    """Adds the steps of a compression to a results file."""
    from ..evaluation.results import add_results
    from ..hub.compression_results import step_entries

    add_results(results, step_entries(outcome, name))


def _run_options(recipe, typed: dict) -> dict:
    """Arguments of `progressive_block_drop`: the recipe's, and over them what was typed."""
    settings = {name: typed[name] for name in _SETTINGS}
    # what is off says nothing: a recipe may have it on
    settings |= {"relu": typed["relu"] or None, "recovery": False if typed["no_recovery"] else None}
    settings |= {"blocks": typed["blocks"] and numbers(typed["blocks"])}
    settings |= {"align": None if typed["align"] is None else _alignment(typed["align"])}
    training = {field: typed[name] for field, name in _TRAINING.items()}
    listed = [typed[name] for name in ("format", "labels", "skip_missing")]
    if (typed["task"] or task_of_checkpoint(typed["model"])) == "detection":
        parts, loading = _of_detector(recipe, typed["features"]), detection_options(typed["root"], *listed)
    elif typed["features"] is not None:
        raise typer.BadParameter("stored features are for detectors", param_hint="--features")
    else:
        parts = {"processor": recipe.build_processor(), "cache": recipe.cache if typed["config"] else "ram"}
        loading = list_options(typed["root"], typed["multi_label"], *listed)
    share = typed["validation_share"]
    return {
        "output_dir": typed["output_dir"],
        "args": recipe.training | _chosen(training),
        "augmentation": recipe.build_augmentation(),
        "validation_share": recipe.validation_share if share is None else share,
        "split_seed": typed["split_seed"],
        "trust_remote_code": typed["trust_remote_code"],
        "progress": not typed["quiet"],
        **parts,
        **recipe.compression,
        **_chosen(settings),
        **recipe.data,
        **_chosen(loading),
    }


def _of_detector(recipe, features) -> dict:
    return {
        "features": None if features is None else recipe.open_features(features),
        "windows": recipe.windows,
        "processor": recipe.detector_processor_fields() or None,
        "detection": recipe.detection,
    }


def _chosen(options: dict) -> dict:
    """Those that were typed."""
    return {name: value for name, value in options.items() if value is not None}


def _alignment(text: str) -> tuple[str, ...]:
    if text == "none":
        return ()
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in _ALIGNMENT]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(_ALIGNMENT)}; or none alone")
    return names
