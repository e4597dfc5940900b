"""LITE++: a budget of tokens per clip, calibrated on held-out videos."""

import json
import os
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
    print_json,
    show_progress,
)
from .select import Data, select


Lite = Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a LITE checkpoint.")]
Gauge = Annotated[
    str,
    typer.Option(
        help="Who says how sure: probe (on patch embeddings, fitted on train), cascade (the model itself), or the folder or Hub id of "
        "another classifier, best a small one."
    ),
]
Share = Annotated[
    float | None, typer.Option(help="Share of the views on the small budget; default: 0.49, implied by the paper.")
]
MeanCost = Annotated[float | None, typer.Option(help="Mean cost of a view instead, in GMACs, the gauge's included.")]
EasyRatio = Annotated[
    float | None,
    typer.Option(help="Small budget; default: 0.3, or 0.2 at a base budget of 0.3, as published."),
]
Hopeless = Annotated[
    float | None, typer.Option(help="Share of the views given up as too hard; default: what is right most often.")
]
Split = Annotated[str | None, typer.Option(help="Split of the thresholds; default: validation, or a part of train.")]
EvaluateOn = Annotated[
    str | None,
    typer.Option(help="Also compare on this split: with one keep ratio of equal cost, and with chance."),
]
TimeRounds = Annotated[
    int, typer.Option(min=0, help="Rounds in which the gauge is timed against what it saves; 0: do not.")
]
Results = Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend with that.")]


@select.command()
def calibrate(
    model: Lite,
    data: Data,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the new checkpoint.")],
    gauge: Gauge = "probe",
    share: Share = None,
    mean_gmacs: MeanCost = None,
    keep_ratio: Annotated[float | None, typer.Option(help="Base budget; default: the checkpoint's.")] = None,
    easy_keep_ratio: EasyRatio = None,
    hopeless_share: Hopeless = None,
    split: Split = None,
    force: Annotated[bool, typer.Option("--force", help="Allow the test split.")] = False,
    evaluate_on: EvaluateOn = None,
    results: Results = None,
    time_rounds: TimeRounds = 15,
    multi_view: Annotated[bool, typer.Option("--multi-view", help="All views of the recipe, not one each.")] = False,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Views per forward pass.")] = 8,
    max_videos: Annotated[int | None, typer.Option(help="Only the first so many videos of each split.")] = None,
    num_workers: Annotated[int, typer.Option(min=0, help="Processes that decode.")] = 0,
    device: Device = None,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Give every clip its own budget (LITE++): thresholds from held-out videos, never from the test split.

    Example: `effvid select calibrate --model lite/model --data my_videos/ --output-dir litepp --share 0.49 --evaluate-on test`

    Example: `effvid select calibrate --model lite/model --data my_videos/ --output-dir litepp --gauge student/model`
    """
    from ..evaluation.benchmark_execution import resolve_device
    from ..evaluation.results import add_results
    from ..training.budget_calibration import calibrate_budget
    from ..training.budget_evaluation import evaluate_budget
    from ..training.budget_measuring import ClipReading

    if gauge not in ("probe", "cascade") and not os.path.isdir(gauge) and "/" not in gauge:
        raise typer.BadParameter(f"expected probe or cascade, or a folder or Hub id of a classifier, got {gauge!r}")
    if results is not None and evaluate_on is None:
        raise typer.BadParameter("--results needs --evaluate-on: a calibration alone is no result")
    reading = ClipReading(
        multi_view, batch_size, max_videos, num_workers, resolve_device(device), show_progress(quiet)
    )
    lists = list_options(root, False, format, labels, skip_missing)
    found = calibrate_budget(
        model,
        data,
        gauge=gauge,
        share=share,
        mean_gmacs=mean_gmacs,
        keep_ratio=keep_ratio,
        easy_keep_ratio=easy_keep_ratio,
        hopeless_share=hopeless_share,
        split=split,
        force=force,
        reading=reading,
        max_probe_videos=max_videos,
        time_rounds=time_rounds,
        trust_remote_code=trust_remote_code,
        **lists,
    )
    found.save(output_dir)
    report, entries = None, []
    if evaluate_on is not None:
        report, entries = evaluate_budget(
            str(output_dir), data, split=evaluate_on, reading=reading, trust_remote_code=trust_remote_code, **lists
        )
        (output_dir / "budget_evaluation.json").write_text(
            json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8"
        )
    if results is not None:
        add_results(results, entries)
    if as_json:
        print_json({"calibration": found.to_dict(), "evaluation": report.to_dict() if report else None})
    else:
        print(found.summary() + (f"\n{report.summary()}" if report else ""))
