"""Options that several commands share, and what they mean to the package."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run model code that comes with the checkpoint.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def print_json(value: Any) -> None:
    """A result on standard output, whatever the terminal can show."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8, or a terminal that is not
        text = json.dumps(value, indent=2, default=str)
    print(text)


def check_device(name: str | None) -> str | None:
    """A device that torch knows and this machine has: otherwise it fails deep inside, with a traceback."""
    if name is not None:
        import torch

        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:  # which of them depends on how torch was built
            reason = str(error).splitlines()[0]
            raise typer.BadParameter(f"{name!r} cannot be used here ({reason})") from None
    return name


def check_picture(path: Path | None) -> Path | None:
    """Before hours of work, not after them."""
    if path is not None and path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{path.name!r} must end in .png, .svg or .pdf")
    return path


def check_positive(value: float | None) -> float | None:
    """More than nothing, where the option was given."""
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value} is not greater than 0")
    return value


Device = Annotated[
    str | None,
    typer.Option(callback=check_device, help="cpu, cuda, cuda:1, mps; default: a GPU if there is one."),
]


Root = Annotated[
    Path | None, typer.Option(help="Folder that the paths of a list are relative to; default: the list's.")
]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="A video of a list has several labels, separated by |.")
]


Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Layout of official annotations: kinetics, ssv2, diving48, activitynet, activitynet-segments, epic100-verb, "
        "epic100-noun, epic100-action, hmdb51, ucf101 (hmdb51-2: its second split); default: recognised.",
    ),
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Class names in the order of their numbers: CSV 'id,name' or JSON.")
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave listed videos out that do not exist, with a warning.")
]

LabelMap = Annotated[
    Path | None, typer.Option(help="JSON with the teachers' class names to those of the data set, where they differ.")
]


def read_label_map(path: Path) -> dict[str, str]:
    """A teacher's name of a class -> that of the data set.

    Raises:
        AnnotationError: the file holds something else.
    """
    from ..data.annotations import AnnotationError, read_json

    names = read_json(path)
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise AnnotationError(str(path), f"{str(names)[:80]!r}", "Expected {a teacher's class: that of the data set}.")
    return names


def list_options(
    root: Path | None,
    multi_label: bool,
    format: str | None = None,
    labels: Path | None = None,
    skip_missing: bool = False,
) -> dict[str, Any]:
    """What `load_video_dataset` is told about a list; without the flag it sees for itself (lists of labels)."""
    given = {"format": format, "class_names": labels, "missing": "skip" if skip_missing else None}
    given = {name: value for name, value in given.items() if value is not None}
    return {"root": root, "multi_label": multi_label or None, **given}


def show_progress(quiet: bool) -> bool:
    """A bar for people; none in a log file."""
    return not quiet and sys.stderr.isatty()


def numbers(text: str, kind: type = int) -> tuple:
    """A comma-separated list of numbers."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        example = "1,8" if kind is int else "0.5,0.3"
        raise typer.BadParameter(f"{text!r}: expected numbers, such as {example}") from None


def check_task(name: str | None) -> str | None:
    """One of the tasks that are trained and measured."""
    if name not in (None, "classification", "detection"):
        raise typer.BadParameter(f"{name!r} is neither 'classification' nor 'detection'")
    return name


def task_of_checkpoint(model: str) -> str:
    """What a folder holds: a detector, or else a classifier; what is no folder is taken for one."""
    config = Path(model) / "config.json"
    if not config.is_file():
        return "classification"
    is_detector = json.loads(config.read_text(encoding="utf-8")).get("model_type") == "actionformer"
    return "detection" if is_detector else "classification"


TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        callback=check_task,
        help="classification, or detection: which actions, from when to when; DATA is then an annotation file, such as a CSV "
        "'file,start,end,label'. Default: what the recipe, or the folder of the model, says; else classification.",
    ),
]
Features = Annotated[
    Path | None,
    typer.Option(
        help="Folder of stored features, see `effvid cache --features`: a detector reads them instead of videos."
    ),
]
Predictions = Annotated[
    Path | None, typer.Option(help="Per-video predictions (.jsonl; detection: .json); makes the run resumable.")
]
Tious = Annotated[str, typer.Option(help="Detection: comma-separated overlaps, or activitynet for .5 to .95.")]
VideoScores = Annotated[
    Path | None,
    typer.Option(
        help="Detection: a classifier's scores of whole videos (JSON), which those of segments are combined with."
    ),
]
ErrorPictures = Annotated[
    Path | None, typer.Option("--errors", help="Detection: draw kinds of errors to this folder.")
]


def detection_options(
    root: Path | None, format: str | None, labels: Path | None, skip_missing: bool = False
) -> dict[str, Any]:
    """What `load_detection_annotations` is told."""
    given = {"root": root, "format": format, "class_names": labels, "missing": "skip" if skip_missing else None}
    return {name: value for name, value in given.items() if value is not None}
