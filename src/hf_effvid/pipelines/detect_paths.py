"""Detect actions in files, folders and lists, and write what is found as it is found: what `effvid detect` runs.

Every video has its own files, `<name>.json` first. A run that dies, or a file that cannot be read, costs nothing that was computed before, and the
same call again goes on behind it.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..models.video_errors import VideoError
from ..models.video_reader import probe_video
from ..video_files import VIDEO_SUFFIXES
from .detection_files import SUBTITLE_SUFFIXES, read_detections, write_detections
from .detection_timeline import plot_timeline
from .detection_video import write_detection_video
from .predict import expand_inputs, printable


FORMATS = ("json", "csv", "srt", "vtt", "png", "svg", "mp4")
_FEATURE_SUFFIXES = (".npy", ".npz", ".safetensors")
_MAX_ROWS = 10  # of a video in the table


def detect_paths(
    pipe,
    inputs,
    *,
    out_dir: str | os.PathLike | None = None,
    formats: Sequence[str] = ("json",),
    overwrite: bool = False,
    truth: Mapping[str, Sequence[Mapping]] | None = None,
    about: Mapping | None = None,
    progress: bool | None = False,
    **params,
) -> Iterator[dict]:
    """Detect actions in videos from files, folders and lists.

    Args:
        pipe: a `TemporalActionDetectionPipeline`.
        inputs: a path or several: a video; a folder, searched recursively; a `.csv`, `.tsv` or `.txt` that lists videos.
        out_dir: folder for `<name>.<format>` of every video; None writes nothing. The JSON is always there: it tells what is done.
        formats: which of `FORMATS` to write.
        overwrite: do again what is already there; otherwise it is read, and only formats that are missing are written.
        truth: annotations `[{"label", "start", "end"}]` by absolute path, for the timelines of these videos.
        about: what the JSON says of how it was made, such as the model; other files must have been made the same way.
        progress: see the pipeline.
        **params: further parameters of a call of the pipeline (`threshold`, `top_k`, `batch_size`, `window`, ...).

    Yields:
        `{"source", "detections", "files"}` per video, or `{"source", "error", "message"}`, in order, as soon as each is known.

    Raises:
        ValueError: nothing to look at, an unknown format, or `out_dir` holds detections that were made otherwise.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise ValueError(f"unknown formats {unknown}: choose from {', '.join(FORMATS)}.")
    sources = list(expand_inputs(inputs, VIDEO_SUFFIXES if pipe.reads_pixels else _FEATURE_SUFFIXES))
    settings = {name: value for name, value in params.items() if name not in ("batch_size", "limits", "allow_remote")}
    about = {**(about or {}), "settings": settings}
    places = {} if out_dir is None else _places(sources, Path(out_dir), formats)
    done = {} if overwrite else _read_done(places, about)
    pending = [source for source in sources if source not in done]
    results = iter(pipe.iterate(pending, on_error="record", progress=progress, **params) if pending else ())
    for source in sources:
        found = done[source] if source in done else next(results)
        if isinstance(found, dict):
            yield {**found, "source": source}
            continue
        record = {"source": source, "detections": found, "files": {}}
        if out_dir is not None:
            try:
                fresh = overwrite or source not in done
                record["files"] = _write_all(places[source], formats, source, found, about, truth, params, fresh)
            except (VideoError, OSError) as error:
                record |= {"error": type(error).__name__, "message": str(error)}
        yield record


def write_found(path: str | os.PathLike, results: Mapping[str, Sequence[Mapping]], truth=None, **reading) -> Path:
    """Write detections in the format that the suffix of `path` names, see `FORMATS`.

    Args:
        path: where to.
        results: detections by video; only .json and .csv hold several videos.
        truth: annotations of one video, for its timeline.
        **reading: `allow_remote` and `limits`, where the video itself is read.

    Raises:
        ValueError: another suffix, or several videos in a file of one.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".json", ".csv", *SUBTITLE_SUFFIXES):
        return write_detections(path, results)
    if len(results) != 1:
        raise ValueError(
            f"{path.name}: a picture or a video shows one video, got {len(results)}: write one file each."
        )
    ((source, found),) = results.items()
    if suffix == ".mp4":
        return write_detection_video(source, found, path, **reading)
    name = os.path.basename(source)
    return plot_timeline(found, path, duration=_duration(source, **reading), truth=truth, title=name)


def detections_table(records: Sequence[Mapping]):
    """Records as a `rich` table, the best of each video. Labels come from a stranger's configuration and stay text."""
    from rich.table import Table
    from rich.text import Text

    table = Table("video", "from", "to", "label", "score")
    for record in records:
        found = record.get("detections", ())
        rows = [(f"{one['start']:.2f}", f"{one['end']:.2f}", one["label"], f"{one['score']:.3f}") for one in found]
        if len(rows) > _MAX_ROWS:
            rows = [*rows[:_MAX_ROWS], ("", "", f"... and {len(rows) - _MAX_ROWS} more", "")]
        if "error" in record:
            rows.append(("", "", f"{record['error']}: {record['message']}", ""))
        for number, row in enumerate(rows or [("", "", "nothing found", "")]):
            name = record["source"] if number == 0 else ""
            table.add_row(*(Text(printable(cell)) for cell in (name, *row)))
    return table


def _places(sources, out_dir, formats):
    """{source: path of its files without suffix}: the name of the video, or its path below all of them where names are not unique."""
    given = {os.path.abspath(source) for source in sources}
    stems = [Path(source).stem for source in sources]
    parent = os.path.commonpath([os.path.abspath(os.path.dirname(source)) for source in sources])
    places = {}
    for source, stem in zip(sources, stems, strict=True):
        below = os.path.relpath(os.path.abspath(source), parent)
        places[source] = out_dir / (stem if stems.count(stem) == 1 else below)
        for name in formats:
            if os.path.abspath(_file(places[source], name)) in given:
                raise ValueError(
                    f"{_file(places[source], name)} is one of the videos: choose another folder to write to."
                )
    return places


def _file(place, name):
    return place.with_name(f"{place.name}.{name}")


def _read_done(places, about):
    """Detections of the videos whose JSON is there."""
    done = {}
    for source, place in places.items():
        path = _file(place, "json")
        if not path.is_file():
            continue
        content = read_detections(path)
        results = content.pop("results")
        if list(results) != [source] or content != _as_json(about):
            what = f"of {', '.join(results) or 'nothing'}" if list(results) != [source] else "made with other settings"
            raise ValueError(
                f"{path} holds detections {what}: choose another folder, or pass overwrite (--overwrite)."
            )
        done[source] = results[source]
    return done


def _as_json(about):
    """As it comes back from a file."""
    return json.loads(json.dumps(about))


def _write_all(place, formats, source, found, about, truth, params, fresh):
    """The files of one video, {format: path}; those that are there stay unless it was computed anew. The JSON comes first."""
    reading = {name: params[name] for name in ("allow_remote", "limits") if params.get(name) is not None}
    mine = None if truth is None else truth.get(os.path.abspath(source))
    files = {}
    for name in dict.fromkeys(["json", *formats]):
        path = _file(place, name)
        if name == "json":
            if fresh:
                write_detections(path, {source: found}, **about)
        elif fresh or not path.is_file():
            write_found(path, {source: found}, mine, **reading)
        files[name] = str(path)
    return files


def _duration(source, **reading):
    """Seconds of a video, None where it is none, such as features."""
    try:
        return probe_video(source, **reading).duration
    except VideoError:
        return None
