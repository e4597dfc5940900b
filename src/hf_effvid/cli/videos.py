"""Videos through a model: labels, and where it looked; and videos looked over before either."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

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
    check_picture,
    list_options,
    print_json,
    show_progress,
)


Stream = Annotated[
    bool,
    typer.Option(
        "--stream",
        help="Running predictions while a file, a camera or an address is read; for models that remember (causal TSM, MoViNet stream).",
    ),
]
StreamRate = Annotated[
    float | None, typer.Option(help="With --stream: frames per second to look at; default: the recipe's.")
]


@app.command()
def predict(
    inputs: Annotated[str, typer.Argument(help="A video, a folder of videos, or a CSV/TXT list of them.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder or Hub id of any Hugging Face video classifier.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write .jsonl or .csv, row by row; resumable.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Labels per video.")] = 5,
    window: Annotated[float | None, typer.Option(help="Classify every WINDOW seconds of a video.")] = None,
    stride: Annotated[float | None, typer.Option(help="Seconds from one window to the next; default: WINDOW.")] = None,
    start: Annotated[float | None, typer.Option(help="First second to look at.")] = None,
    end: Annotated[float | None, typer.Option(help="Last second to look at.")] = None,
    multi_view: Annotated[
        bool, typer.Option("--multi-view", help="Average the clips and crops of the recipe.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Clips per forward pass.")] = 8,
    threshold: Annotated[float | None, typer.Option(help="Only labels that score as much.")] = None,
    stream: Stream = False,
    target_fps: StreamRate = None,
    device: Device = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Decode in a worker that a hostile file may crash.")
    ] = False,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let inputs be http(s) addresses.")] = False,
    stop_on_error: Annotated[bool, typer.Option("--stop-on-error", help="Stop at the first unreadable file.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Classify videos.

    Example: `effvid predict holiday/ --model org/name --output predictions.csv`

    Example: `effvid predict /dev/video0 --model org/name --stream --target-fps 5`
    """
    from ..pipelines.predict import predict_paths, predictions_table
    from ..pipelines.video_classification import VideoClassificationPipeline

    if stream and (output is not None or window is not None or multi_view):
        raise typer.BadParameter("prints running predictions: leave --output, --window and --multi-view out")
    if target_fps is not None and not stream:
        raise typer.BadParameter("is for --stream", param_hint="--target-fps")
    pipe = VideoClassificationPipeline(model, model_kwargs={"trust_remote_code": trust_remote_code}, device=device)
    if stream:
        params = {"start": start, "end": end, "target_fps": target_fps, "top_k": top_k, "threshold": threshold}
        params = {name: value for name, value in params.items() if value is not None}
        _follow(pipe, inputs, as_json, {**params, "allow_remote": allow_remote})
        return
    records = predict_paths(
        pipe,
        inputs,
        output=output,
        top_k=top_k,
        window=window,
        stride=stride,
        start=start,
        end=end,
        multi_view=multi_view,
        batch_size=batch_size,
        threshold=threshold,
        isolate=isolate,
        allow_remote=allow_remote,
        on_error="raise" if stop_on_error else "record",
        progress=show_progress(quiet),
    )
    records = list(records)
    if output is not None and not records:
        print(f"effvid: {output} already holds all of them", file=sys.stderr)
    if as_json:
        print_json(records)
    else:
        Console().print(predictions_table(records))
    if records and all("error" in record for record in records):
        raise typer.Exit(1)


def _follow(pipe, source: str, as_json: bool, params: dict) -> None:
    """One line per frame that was looked at, until the source or the user ends."""
    from ..models.video_sources import URL_SCHEMES
    from ..pipelines.predict import printable

    live = not os.path.isfile(source) and not source.lower().startswith(URL_SCHEMES)
    with pipe.stream(source, live=live, **params) as stream:
        for one in stream:
            found = ", ".join(f"{label['label']} {label['score']:.3f}" for label in one["predictions"][:3])
            print(json.dumps(one) if as_json else f"{one['end']:9.2f} s  {printable(found)}", flush=True)


@app.command()
def explain(
    video: Annotated[str, typer.Argument(help="A video.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a Video-FocalNet classifier.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the overlay video, the pictures and the numbers.")
    ] = Path("explanation"),
    block: Annotated[
        int, typer.Option(help="Block that the maps come from, over all stages; earlier ones are finer.")
    ] = -1,
    window: Annotated[float | None, typer.Option(help="Explain every WINDOW seconds of a video.")] = None,
    stride: Annotated[float | None, typer.Option(help="Seconds from one window to the next; default: WINDOW.")] = None,
    start: Annotated[float | None, typer.Option(help="First second to look at.")] = None,
    end: Annotated[float | None, typer.Option(help="Last second to look at.")] = None,
    multi_view: Annotated[
        bool, typer.Option("--multi-view", help="Classify the clips and crops of the recipe, explain the clearest.")
    ] = False,
    device: Device = None,
    as_json: JsonFlag = False,
) -> None:
    """Show where and when a model looked: its modulators over the frames (mp4, PNG), its gates.

    Example: `effvid explain clip.mp4 --model run/model --output explanation/ --block 1`
    """
    from ..pipelines.explain_video import explain as explain_video

    found = explain_video(
        video,
        model,
        output,
        block=block,
        device=device,
        window=window,
        stride=stride,
        start=start,
        end=end,
        multi_view=multi_view,
    )
    if as_json:
        print_json(found)
        return
    for one in [found] if window is None else found:
        told = one["explanation"]
        print(f"{told['label']}  {told['score']:.3f}")
        for path in told["files"].values():
            print(f"  {path}")


@app.command()
def check(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of class folders, list file, metadata.csv, or data set id; annotations of actions."
        ),
    ],
    task: Annotated[
        str, typer.Option(help="classification, or detection: annotations of actions with start and end.")
    ] = "classification",
    depth: Annotated[str, typer.Option(help="How much of each file is decoded: probe, ends, full.")] = "ends",
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    min_frames: Annotated[int | None, typer.Option(help="Report videos with fewer frames.")] = None,
    annotations_only: Annotated[
        bool, typer.Option("--annotations-only", help="Detection: do not open the videos.")
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(callback=check_picture, help="Draw the report to this file (.png, .svg, .pdf).")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Decode in workers that a hostile file may crash.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Look a data set over before training on it: unreadable files, duplicates across splits, lengths, mirrored labels.

    With --task detection also annotations that are empty, repeated, overlapping or beyond the end of their video.
    Exit code 1 when something was found that spoils training or its numbers.

    Example: `effvid check my_videos/ --picture report.png`

    Example: `effvid check actions.csv --task detection --root my_videos/`
    """
    from ..data.detection_doctor import check_detection_data
    from ..data.doctor import check_dataset

    options = list_options(root, multi_label, format, labels, skip_missing)
    options |= {"depth": depth, "isolate": isolate, "progress": show_progress(quiet)}
    if task == "detection":
        options.pop("multi_label")
        report = check_detection_data(data, read_videos=not annotations_only, **options)
    elif task == "classification":
        report = check_dataset(data, min_frames=min_frames, **options)
    else:
        raise typer.BadParameter(f"{task!r}: expected classification or detection", param_hint="--task")
    if picture is not None:
        report.plot(picture)
    if as_json:
        print_json(report.to_dict())
    else:
        print(report.to_text())
    if not report.ok:
        raise typer.Exit(1)
