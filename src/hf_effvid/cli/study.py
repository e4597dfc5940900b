"""The study of token selection as one command."""

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Device,
    Format,
    JsonFlag,
    Labels,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    list_options,
    numbers,
    print_json,
    show_progress,
)
from .select import Data, Epochs, OracleBlock, OracleTensor, select


Models = Annotated[
    list[str],
    typer.Option("--model", "-m", help="Folder or Hub id; repeat it for several training seeds, which are averaged."),
]
OutputDir = Annotated[
    Path, typer.Option("--output-dir", "-o", help="Folder for tables, pictures and numbers; resumable.")
]
Split = Annotated[str, typer.Option(help="Split to study on; `train` trains the selector.")]
KeepRatios = Annotated[str, typer.Option(help="Comma-separated budgets.")]
Arms = Annotated[list[str] | None, typer.Option(help="Only these arms, by their names in the table (repeatable).")]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        help="Also train this selector: edges, peaks, sharpen, global, deep, transformer, shuffled; or all (repeatable)."
    ),
]
NoSelector = Annotated[
    bool, typer.Option("--no-selector", help="Do not train a selector where the model brings none.")
]
Draws = Annotated[int, typer.Option(min=1, help="Repetitions of random tokens.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Clips per forward pass.")]
MaxVideos = Annotated[int | None, typer.Option(help="Only the first so many videos.")]
TimingRounds = Annotated[int, typer.Option(min=0, help="Interleaved rounds of the times; 0 measures no time.")]
TimingBatch = Annotated[int, typer.Option(min=1, help="Clips per timed pass.")]
Examples = Annotated[int, typer.Option(min=0, help="Videos that masks are drawn on.")]
NumWorkers = Annotated[int, typer.Option(min=0, help="Processes that decode.")]
DatasetName = Annotated[str | None, typer.Option(help="Name of the data set in the results.")]
ModelName = Annotated[str | None, typer.Option(help="Name of the checkpoint in the results.")]
Seed = Annotated[int | None, typer.Option(help="Training seed of the checkpoint, for the results.")]
Results = Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete what an earlier study left.")]


@select.command()
def study(
    model: Models,
    data: Data,
    output_dir: OutputDir = Path("token_selection"),
    split: Split = "test",
    keep_ratios: KeepRatios = "0.9,0.7,0.5,0.3,0.2,0.1",
    arm: Arms = None,
    variant: Variants = None,
    no_selector: NoSelector = False,
    selector_epochs: Epochs = None,
    draws: Draws = 5,
    oracle_block: OracleBlock = -1,
    oracle_tensor: OracleTensor = "block_out",
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    batch_size: BatchSize = 16,
    max_videos: MaxVideos = None,
    timing_rounds: TimingRounds = 7,
    timing_batch: TimingBatch = 1,
    examples: Examples = 4,
    num_workers: NumWorkers = 0,
    device: Device = None,
    name: DatasetName = None,
    model_name: ModelName = None,
    seed: Seed = None,
    results: Results = None,
    overwrite: Overwrite = False,
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
