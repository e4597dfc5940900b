"""Blocks, tokens and number types together: the command that says which combination to use."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .application import app
from .options import (
    Format,
    JsonFlag,
    Labels,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    check_picture,
    check_positive,
    list_options,
    numbers,
    print_json,
    show_progress,
)


Models = Annotated[
    list[str],
    typer.Argument(
        help="The folder that `effvid compress` wrote; or folders or Hub ids of one classifier with 0, 1, 2, ... blocks dropped."
    ),
]
Data = Annotated[str, typer.Option("--data", "-d", help="Folder of class folders, list file or data set id.")]
Split = Annotated[str, typer.Option(help="Split to measure on; the best is not chosen on the test split.")]
KeepRatios = Annotated[str, typer.Option(help="Comma-separated shares of tokens; 1 keeps all.")]
Dtypes = Annotated[
    str, typer.Option(help="Comma-separated: float32, bfloat16, and as ONNX files onnx, int8, int8-weight-only.")
]
Scorer = Annotated[
    str | None, typer.Option(help="What decides which tokens stay; default: the model's own selector, else random.")
]
Budget = Annotated[
    float | None,
    typer.Option(callback=check_positive, help="Name the most accurate combination within so many milliseconds."),
]
Rounds = Annotated[int, typer.Option(min=1, help="Interleaved rounds; 6 or more give a 95 % interval.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.")]
Clock = Annotated[
    str, typer.Option(help="wall, or processor: seconds computed, with --threads 1, where others use the machine too.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Clips per forward pass of the evaluation.")]
MaxVideos = Annotated[int | None, typer.Option(min=1, help="Only the first so many videos.")]
NumWorkers = Annotated[int, typer.Option(min=0, help="Processes that decode.")]
DatasetName = Annotated[str | None, typer.Option(help="Name of the data set in the results.")]
ModelName = Annotated[str | None, typer.Option(help="Name of the checkpoint in the results.")]
Seed = Annotated[int | None, typer.Option(help="Training seed of the checkpoint, for the results.")]
Results = Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend.")]
Chart = Annotated[
    Path | None, typer.Option(callback=check_picture, help="Draw accuracy against time (PNG and SVG) to this file.")
]


@app.command()
def search(
    models: Models,
    data: Data,
    split: Split = "validation",
    keep_ratios: KeepRatios = "1,0.7,0.5",
    dtypes: Dtypes = "float32,bfloat16,onnx,int8",
    scorer: Scorer = None,
    budget_ms: Budget = None,
    rounds: Rounds = 8,
    threads: Threads = None,
    clock: Clock = "wall",
    batch_size: BatchSize = 8,
    max_videos: MaxVideos = None,
    num_workers: NumWorkers = 0,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    name: DatasetName = None,
    model_name: ModelName = None,
    seed: Seed = None,
    results: Results = None,
    chart: Chart = None,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Try dropped blocks x kept tokens x number types: accuracy on the same videos against milliseconds on this machine.

    Example: `effvid search compressed --data my_videos/ --keep-ratios 1,0.7,0.5 --budget-ms 20 --chart pareto.png`
    """
    from ..data.loading import load_video_dataset
    from ..evaluation.results import ResultsFile, add_results
    from ..export.compression_search import search_compression

    ratios = numbers(keep_ratios, float)
    videos = load_video_dataset(data, split=split, **list_options(root, False, format, labels, skip_missing))
    report = search_compression(
        models,
        videos,
        keep_ratios=ratios,
        number_types=tuple(dtypes.split(",")),
        scorer=scorer,
        batch_size=batch_size,
        max_videos=max_videos,
        num_workers=num_workers,
        rounds=rounds,
        threads=threads,
        clock=clock,
        split=split,
        dataset_name=name or Path(data).name,
        name=model_name,
        seed=seed,
        trust_remote_code=trust_remote_code,
        progress=show_progress(quiet),
    )
    entries = report.to_result_entries()
    if as_json:
        print_json(ResultsFile(entries).to_dict())
    else:
        Console().print(report.to_table())
        if budget_ms is not None:
            print(report.best_under_budget(budget_ms).reason)
    if results is not None:
        add_results(results, entries)
    if chart is not None:
        report.plot(chart, budget_ms)
