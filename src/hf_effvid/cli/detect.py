"""Which actions videos show, and from when to when."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .application import app
from .options import Device, JsonFlag, Quiet, RemoteCode, Root, check_positive, print_json, show_progress


# what a detector without operating points of its own has to be sure of before it is believed
DEFAULT_THRESHOLD = 0.3


def check_formats(text: str) -> str:
    """Before hours of work, not after them."""
    from ..pipelines.detect_paths import FORMATS

    unknown = [name for name in text.split(",") if name not in FORMATS]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)!r}: expected some of {','.join(FORMATS)}")
    return text


def check_output(path: Path | None) -> Path | None:
    """A file of a kind that can be written."""
    if path is not None:
        check_formats(path.suffix.lower().removeprefix(".") or path.name)
    return path


Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        callback=check_output,
        help="Write all of it to one file: .json, .csv; of one video also .srt, .vtt, .png, .svg, .mp4.",
    ),
]
Write = Annotated[
    str,
    typer.Option(
        callback=check_formats,
        help="What to write there: json,csv,srt,vtt, png,svg (timeline), mp4 (labels burned in).",
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="Lowest score; 0 for everything; default: the operating points of the checkpoint, or 0.3."
    ),
]
Window = Annotated[
    float | None,
    typer.Option(callback=check_positive, help="Seconds that the detector sees at once; default: the checkpoint's."),
]
Truth = Annotated[
    Path | None, typer.Option(help="Annotations of actions, to be drawn below the detections of a timeline.")
]
Live = Annotated[
    bool, typer.Option("--live", help="VIDEOS is a camera, a pipe or an address: say what happens as it happens.")
]


@app.command()
def detect(
    videos: Annotated[list[str], typer.Argument(help="Videos, folders of videos, or CSV/TXT lists of them.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder or Hub id of a detector of actions (ActionFormer).")
    ],
    output: Output = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out-dir", help="Write files of every video to this folder; resumable.")
    ] = None,
    write: Write = "json",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do again what the folder already holds.")] = False,
    threshold: Threshold = None,
    top_k: Annotated[int | None, typer.Option(min=1, help="Actions per video at most.")] = None,
    window: Window = None,
    overlap: Annotated[float | None, typer.Option(min=0, help="Seconds of a window that the next sees again.")] = None,
    start: Annotated[float | None, typer.Option(min=0, help="First second to look at.")] = None,
    end: Annotated[float | None, typer.Option(help="Last second to look at.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per forward pass.")] = 4,
    annotations: Truth = None,
    root: Root = None,
    live: Live = False,
    device: Device = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let videos be http(s) addresses.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Find out which actions videos show, and from when to when.

    Example: `effvid detect match.mp4 --model org/name --output match.srt`

    Example: `effvid detect matches/ --model org/name --out-dir found/ --write json,csv,png`

    Example: `effvid detect /dev/video0 --model org/name --live`
    """
    from ..models.pipeline_temporal_action_detection import TemporalActionDetectionPipeline
    from ..pipelines.detect_paths import detect_paths, detections_table

    if output is not None and live:
        raise typer.BadParameter("--live prints and writes no file: leave --output out", param_hint="--output")
    pipe = TemporalActionDetectionPipeline(model, model_kwargs={"trust_remote_code": trust_remote_code}, device=device)
    if threshold is None and pipe.model.config.operating_points is None:
        threshold = DEFAULT_THRESHOLD
    params = {"threshold": threshold, "window": window, "overlap": overlap, "start": start, "end": end}
    params = {name: value for name, value in params.items() if value is not None}
    if live:
        _follow(pipe, videos, as_json, params)
        return
    truth = None if annotations is None else _annotated(annotations, root)
    params |= {"top_k": top_k} if top_k is not None else {}
    params |= {"allow_remote": True} if allow_remote else {}
    records = []
    for record in detect_paths(
        pipe,
        videos,
        out_dir=out_dir,
        formats=write.split(","),
        overwrite=overwrite,
        truth=truth,
        about={"model": model},
        progress=show_progress(quiet),
        batch_size=batch_size,
        **params,
    ):
        records.append(record)
        if "error" in record:
            name = "" if record["message"].startswith(record["source"]) else f"{record['source']}: "
            print(f"effvid: {name}{record['message']}", file=sys.stderr)
    if output is not None:
        _write(output, records, truth, allow_remote)
    if as_json:
        print_json(records)
    else:
        Console().print(detections_table(records))
    seen = [record["detections"] for record in records if "detections" in record]
    if threshold and seen and not any(seen):
        print(f"effvid: nothing scored {threshold:g} or more; --threshold 0 shows everything", file=sys.stderr)
    if all("error" in record for record in records):
        raise typer.Exit(1)


def _write(output: Path, records: list[dict], truth: dict | None, allow_remote: bool) -> None:
    from ..pipelines.detect_paths import write_found

    found = {record["source"]: record["detections"] for record in records if "detections" in record}
    mine = None if truth is None or len(found) != 1 else truth.get(os.path.abspath(next(iter(found))))
    if found:
        write_found(output, found, mine, allow_remote=allow_remote)


def _annotated(annotations: Path, root: Path | None) -> dict[str, list[dict]]:
    """What happens in every annotated video, by its absolute path."""
    from ..data.detection_annotations import load_detection_annotations

    found = load_detection_annotations(annotations, root=root, missing="keep")
    return {
        os.path.abspath(video.path): [
            {"label": one.label, "start": one.start, "end": one.end} for one in video.usable()
        ]
        for video in found.videos
    }


def _follow(pipe, videos: list[str], as_json: bool, params: dict) -> None:
    """One line per action, as soon as it is certain, until the source or the user ends."""
    if len(videos) != 1:
        raise typer.BadParameter("one camera or address at a time", param_hint="VIDEOS")
    from ..pipelines.predict import printable

    with pipe.stream(videos[0], live=True, **params) as stream:
        for one in stream:
            line = f"{one.start:9.2f} to {one.end:9.2f} s  {one.score:.3f}  {printable(one.label)}"
            print(json.dumps(one._asdict()) if as_json else line, flush=True)
