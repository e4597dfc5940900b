"""Teachers and a student: the command that distils."""

import contextlib
import sys
from pathlib import Path

import typer

from .application import app
from .distill_options import (
    BatchSize,
    CacheTeachers,
    Compare,
    Config,
    Data,
    DryRun,
    Epochs,
    FeatureLoss,
    GatherRelations,
    KdLoss,
    LearningRate,
    LogitNorm,
    MaxSteps,
    NoKd,
    NoRelations,
    OutputDir,
    Overrides,
    Overwrite,
    Projection,
    Residual,
    Resume,
    Seed,
    Student,
    TeacherCnn,
    TeacherVit,
    Temperature,
    ValidationShare,
    Views,
    Weighting,
)
from .options import (
    Format,
    JsonFlag,
    LabelMap,
    Labels,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    list_options,
    print_json,
    read_label_map,
    show_progress,
)


# fields of DistillationSettings that have a flag of the same name
_SETTINGS = (
    "weighting", "kd_loss", "temperature", "logit_norm", "residual", "projection", "feature_loss",
)  # fmt: skip
# fields of EffVidTrainingArguments -> their flags
_TRAINING = {
    "num_train_epochs": "epochs",
    "max_steps": "max_steps",
    "per_device_train_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "seed": "seed",
}

# arguments of a run that do not change on what, and with which teachers, its student is compared
_OF_TRAINING = (
    "student", "output_dir", "settings", "processor", "args", "augmentation", "cache", "views", "view_seed", "cache_teachers",
)  # fmt: skip


@app.command()
def distill(
    context: typer.Context,
    data: Data,
    student: Student = None,
    teacher_vit: TeacherVit = None,
    teacher_cnn: TeacherCnn = None,
    output_dir: OutputDir = Path("distilled"),
    config: Config = None,
    set_: Overrides = None,
    weighting: Weighting = None,
    kd_loss: KdLoss = None,
    temperature: Temperature = None,
    logit_norm: LogitNorm = None,
    no_kd: NoKd = False,
    residual: Residual = None,
    projection: Projection = None,
    no_relations: NoRelations = False,
    gather_relations: GatherRelations = False,
    feature_loss: FeatureLoss = None,
    views: Views = None,
    cache_teachers: CacheTeachers = None,
    label_map: LabelMap = None,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    validation_share: ValidationShare = None,
    epochs: Epochs = None,
    max_steps: MaxSteps = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    seed: Seed = None,
    compare: Compare = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Train a small student with a transformer and a CNN as teachers, or one of them; ends with a Hub folder in OUTPUT_DIR/model.

    Both teachers look at the clips of the student, each in its own size, and count for a clip the more, the surer they are and the more they
    differ from the student. What is trained beside the student is left behind.

    Example: `effvid distill --student tsm:mobilenetv4-small --teacher-vit vit/model --teacher-cnn cnn/model --data my_videos/ -o distilled`
    """
    from ..training.distillation import distill_classifier
    from ..training.distillation_plan import plan_distillation
    from ..training.recipe import load_recipe

    run = _run_options(load_recipe(config, set_ or ()), context.params)
    comparison = None
    # stdout is for the result; what the training loop prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        if dry_run:
            outcome = plan_distillation(data=data, **run)
        else:
            outcome = distill_classifier(data=data, resume=resume, overwrite=overwrite, **run)
        if compare and not dry_run:
            comparison = _comparison(outcome.model_dir, data, run)
    document = {name: value for name, value in outcome.to_dict().items() if name != "history"}
    if comparison is not None:
        comparison.save(output_dir)
        document["comparison"] = comparison.to_dict()
    if as_json:
        print_json(document)
    elif dry_run:
        print(outcome.to_text())
    elif comparison is not None:
        print(comparison.to_text())


def _run_options(recipe, typed: dict) -> dict:
    """Arguments of `distill_classifier`: the recipe's, and over them what was typed."""
    recipe.model = typed["student"] or recipe.model
    if recipe.model is None:
        raise typer.BadParameter("name the student, or a recipe with a model", param_hint="--student")
    sources = recipe.distillation_options() | _typed(typed, ("teacher_vit", "teacher_cnn", "views"))
    if typed["cache_teachers"] is not None and not sources.get("views"):
        raise typer.BadParameter(
            "what teachers say is kept for views that come again: say how many with --views",
            param_hint="--cache-teachers",
        )
    training = {field: typed[name] for field, name in _TRAINING.items() if typed[name] is not None}
    share = typed["validation_share"]
    return {
        "student": recipe.build_model_source(),
        "output_dir": typed["output_dir"],
        "settings": recipe.distillation_fields() | _settings(typed),
        "processor": recipe.build_processor(),
        "args": recipe.training | training,
        "augmentation": recipe.build_augmentation(),
        "validation_share": recipe.validation_share if share is None else share,
        "cache": recipe.cache,
        "cache_teachers": typed["cache_teachers"],
        "label_map": None if typed["label_map"] is None else read_label_map(typed["label_map"]),
        "trust_remote_code": typed["trust_remote_code"],
        "progress": not typed["quiet"],
        **sources,
        **recipe.data,
        **list_options(typed["root"], False, typed["format"], typed["labels"], typed["skip_missing"]),
    }


def _comparison(model_dir: str, data: str, run: dict):
    """Student and teachers on the clips that the run was validated on; None in all but the first of several processes."""
    from accelerate import PartialState

    from ..training.distillation_comparison import DEFAULT_SEED, compare_with_teachers

    if not PartialState().is_main_process:
        return None
    told = {name: value for name, value in run.items() if name not in _OF_TRAINING}
    told["progress"] = show_progress(not run["progress"])
    told["batch_size"] = run["args"].get("per_device_eval_batch_size", 8)
    return compare_with_teachers(model_dir, data, seed=run["args"].get("seed", DEFAULT_SEED), **told)


def _settings(typed: dict) -> dict:
    # what is off says nothing: a recipe may have it on
    switched = {
        "kd_weight": 0.0 if typed["no_kd"] else None,
        "relation_weight": 0.0 if typed["no_relations"] else None,
        "gather_relations": typed["gather_relations"] or None,
    }
    return _typed(typed, _SETTINGS) | {name: value for name, value in switched.items() if value is not None}


def _typed(typed: dict, names) -> dict:
    return {name: typed[name] for name in names if typed[name] is not None}
