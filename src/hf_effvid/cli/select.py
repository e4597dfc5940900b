"""Token selection: the group of its commands, and the one that trains LITE's selector."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from .application import app
from .options import (
    Format,
    JsonFlag,
    Labels,
    MultiLabel,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    check_positive,
    list_options,
    print_json,
)


select = typer.Typer(
    name="select",
    help="Fewer tokens: train LITE's selector (`train`), compare every way to spend fewer of them (`study`).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(select)

Data = Annotated[
    str, typer.Option("--data", "-d", help="Folder of class folders, list file, metadata.csv, or data set id.")
]
Recipe = Annotated[
    Path | None, typer.Option("--config", "-c", help="Recipe file (YAML), see examples/configs/token_selection.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: selection.keep_ratio=0.3 (repeatable).")
]
Epochs = Annotated[
    float | None, typer.Option(callback=check_positive, help="Passes over the training clips; default: 10.")
]
LearningRate = Annotated[float | None, typer.Option("--lr", callback=check_positive, help="Peak learning rate.")]
TargetVariants = Annotated[
    list[str] | None, typer.Option(help="What is done to the targets: edges, peaks, sharpen (repeatable).")
]
_SELECTION = ("keep_ratio", "oracle_block", "oracle_tensor", "label_source", "kind")
"""Flags of `train` that a recipe may set, too."""
OracleBlock = Annotated[int, typer.Option(help="Block that the oracle reads; -1 is the last.")]
OracleTensor = Annotated[
    str,
    typer.Option(help="What it reads there: block_out, or the paper's words, mlp_out or mlp_hidden."),
]


@select.command("train")
def train_selector(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a video transformer, trained.")],
    data: Data,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the run.")],
    config: Recipe = None,
    set_: Overrides = None,
    keep_ratio: Annotated[float, typer.Option(help="Share of the tokens that the checkpoint keeps.")] = 0.5,
    oracle_block: OracleBlock = -1,
    oracle_tensor: OracleTensor = "block_out",
    label_source: Annotated[str, typer.Option(help="Label that the oracle explains: true or predicted.")] = "true",
    kind: Annotated[str, typer.Option(help="Selector: mlp, deep, transformer or global.")] = "mlp",
    variant: TargetVariants = None,
    shuffled: Annotated[bool, typer.Option("--shuffled", help="The control: targets of other clips.")] = False,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Do not check the oracle first.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train even if the oracle fails its check.")] = False,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    epochs: Epochs = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per step and device.")] = None,
    learning_rate: LearningRate = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest complete checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run in the folder.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Train LITE's selector on a frozen model: it ends with a LITE checkpoint in OUTPUT_DIR/model.

    The oracle that the selector learns from is checked first; exit code 1 when it is no better than chance.

    Example: `effvid select train --model run/model --data my_videos/ --output-dir lite --keep-ratio 0.5`
    """
    from ..training.recipe import load_recipe
    from ..training.token_selector import train_token_selector

    recipe = load_recipe(config, set_ or ())
    # a flag that was typed wins over the recipe, a default does not
    chosen = {
        name: recipe.selection.get(name, value)
        if str(context.get_parameter_source(name)).endswith("DEFAULT")
        else value
        for name, value in context.params.items()
        if name in _SELECTION
    }
    arguments = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "report_to": "none",
    }
    # stdout is for the result; what the training loop prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        outcome = train_token_selector(
            model,
            data,
            output_dir=output_dir,
            keep_ratio=chosen["keep_ratio"],
            oracle={name: chosen[name] for name in ("oracle_block", "oracle_tensor", "label_source")},
            kind=chosen["kind"],
            hidden_sizes=recipe.selection.get("hidden_sizes"),
            variants=variant or recipe.selection.get("variants", ()),
            processor=recipe.build_processor(),
            augmentation="none" if config is None else recipe.build_augmentation(),
            shuffled=shuffled,
            gate=not no_gate,
            force=force,
            args=recipe.training | {name: value for name, value in arguments.items() if value is not None},
            cache="ram" if config is None else recipe.cache,
            validation_share=recipe.validation_share,
            resume=resume,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
            progress=not quiet,
            **recipe.data | list_options(root, multi_label, format, labels, skip_missing),
        )
    if as_json:
        document = outcome.to_dict()
        document["training"].pop("history", None)
        print_json(document)
