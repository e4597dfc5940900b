"""Token selection: train LITE's selector, and compare every way to spend fewer tokens."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from .application import app
from .options import (
    Device,
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
    numbers,
    print_json,
    show_progress,
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


@select.command()
def study(
    model: Annotated[
        list[str],
        typer.Option(
            "--model", "-m", help="Folder or Hub id; repeat it for several training seeds, which are averaged."
        ),
    ],
    data: Data,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Folder for tables, pictures and numbers; resumable.")
    ] = Path("token_selection"),
    split: Annotated[str, typer.Option(help="Split to study on; `train` trains the selector.")] = "test",
    keep_ratios: Annotated[str, typer.Option(help="Comma-separated budgets.")] = "0.9,0.7,0.5,0.3,0.2,0.1",
    arm: Annotated[
        list[str] | None, typer.Option(help="Only these arms, by their names in the table (repeatable).")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            help="Also train this selector: edges, peaks, sharpen, global, deep, transformer, shuffled; or all (repeatable)."
        ),
    ] = None,
    no_selector: Annotated[
        bool, typer.Option("--no-selector", help="Do not train a selector where the model brings none.")
    ] = False,
    selector_epochs: Epochs = None,
    draws: Annotated[int, typer.Option(min=1, help="Repetitions of random tokens.")] = 5,
    oracle_block: OracleBlock = -1,
    oracle_tensor: OracleTensor = "block_out",
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per forward pass.")] = 16,
    max_videos: Annotated[int | None, typer.Option(help="Only the first so many videos.")] = None,
    timing_rounds: Annotated[
        int, typer.Option(min=0, help="Interleaved rounds of the times; 0 measures no time.")
    ] = 7,
    timing_batch: Annotated[int, typer.Option(min=1, help="Clips per timed pass.")] = 1,
    examples: Annotated[int, typer.Option(min=0, help="Videos that masks are drawn on.")] = 4,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 0,
    device: Device = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set in the results.")] = None,
    model_name: Annotated[str | None, typer.Option(help="Name of the checkpoint in the results.")] = None,
    seed: Annotated[int | None, typer.Option(help="Training seed of the checkpoint, for the results.")] = None,
    results: Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete what an earlier study left.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Accuracy against arithmetic and milliseconds of every way to spend fewer tokens, and what tokens are worth.

    Trains LITE's selector if the model brings none. Each arm's answers are kept in OUTPUT_DIR: start again to continue.

    Example: `effvid select study --model run/model --data my_videos/ --output-dir study --results results.json`
    """
    from ..compression import OracleSettings
    from ..evaluation.results import ResultsFile, add_results
    from ..evaluation.selection_entries import result_entries
    from ..evaluation.selection_tables import markdown
    from ..training.selection_selectors import VARIANTS
    from ..training.selection_settings import StudySettings
    from ..training.selection_study import study_models

    arguments = {"num_train_epochs": selector_epochs, "seed": seed}
    settings = StudySettings(
        keep_ratios=numbers(keep_ratios, float),
        arms=arm or None,
        draws=draws,
        oracle=OracleSettings(oracle_block=oracle_block, oracle_tensor=oracle_tensor),
        batch_size=batch_size,
        max_videos=max_videos,
        timing_rounds=timing_rounds,
        timing_batch=timing_batch,
        examples=examples,
        num_workers=num_workers,
        train_selector=not no_selector,
        variants=tuple(VARIANTS) if "all" in (variant or ()) else tuple(variant or ()),
        selector_args={option: value for option, value in arguments.items() if value is not None},
    )
    with contextlib.redirect_stdout(sys.stderr):
        report = study_models(
            model,
            data,
            output_dir,
            settings,
            split=split,
            dataset_name=name,
            name=model_name,
            seed=seed,
            device=device,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
            progress=show_progress(quiet),
            **list_options(root, False, format, labels, skip_missing),
        )
    entries = result_entries(report)
    if as_json:
        print_json(ResultsFile(entries).to_dict())
    else:
        print(markdown(report))
    if results is not None:
        add_results(results, entries)
