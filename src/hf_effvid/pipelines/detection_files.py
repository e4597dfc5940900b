"""Detections as files: ActivityNet's JSON, a CSV of segments, SRT and VTT subtitles. Pure text; one writer per format.

`results` is `{video: [{"label", "score", "start", "end"}, ...]}` in seconds, as the pipeline says it.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path


CSV_COLUMNS = ("file", "start", "end", "label", "score")
SUBTITLE_SUFFIXES = (".srt", ".vtt")
# SRT has no escapes: what players take for tags is written with characters that look like it
_SRT_LOOKALIKES = str.maketrans({"<": "‹", ">": "›", "{": "(", "}": ")"})


def detections_json(results: Mapping, **about) -> str:
    """ActivityNet's result format, `{"results": {video: [{"label", "score", "segment": [start, end]}]}}`, as `evaluate_detector` reads it.

    Args:
        results: see above.
        **about: what else to say beside "results", such as the model.
    """
    content = {
        **about,
        "results": {
            video: [
                {"label": one["label"], "score": one["score"], "segment": [one["start"], one["end"]]} for one in found
            ]
            for video, found in results.items()
        },
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8
        text = json.dumps(content, indent=2)
    return text + "\n"


def detections_csv(results: Mapping) -> str:
    """Rows of file, start, end, label and score, to the millisecond; `load_detection_annotations` reads them as `segments`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for video, found in results.items():
        for one in found:
            start, end = (f"{milliseconds(one[name]) / 1000:.3f}" for name in ("start", "end"))
            writer.writerow([video, start, end, one_line(one["label"]), f"{one['score']:.6g}"])
    return text.getvalue()


def detections_srt(detections: Iterable[Mapping]) -> str:
    """SubRip: one numbered cue per detection, in the order of their starts. `<`, `>`, `{` and `}` become look-alikes."""
    cues = []
    for number, (start, end, text) in enumerate(_cues(detections), start=1):
        times = " --> ".join(_clock(time, ",") for time in (start, end))
        cues.append(f"{number}\n{times}\n{text.translate(_SRT_LOOKALIKES)}\n")
    return "\n".join(cues)


def detections_vtt(detections: Iterable[Mapping]) -> str:
    """WebVTT: one cue per detection, in the order of their starts; cues of actions at the same time overlap, which is legal."""
    cues = ["WEBVTT\n"]
    for start, end, text in _cues(detections):
        times = " --> ".join(_clock(time, ".") for time in (start, end))
        for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
            text = text.replace(plain, escaped)
        cues.append(f"{times}\n{text}\n")
    return "\n".join(cues)


def write_detections(path: str | os.PathLike, results: Mapping, **about) -> Path:
    """Write a file in the format that its suffix names: .json, .csv, .srt or .vtt. It is there whole or not at all.

    Args:
        path: where to.
        results: see above; subtitles belong to one video.
        **about: see `detections_json`.

    Returns:
        The path.

    Raises:
        ValueError: another suffix, or subtitles for several videos.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = detections_json(results, **about)
    elif suffix == ".csv":
        text = detections_csv(results)
    elif suffix in SUBTITLE_SUFFIXES:
        if len(results) != 1:
            raise ValueError(f"{path.name}: subtitles belong to one video, got {len(results)}: write one file each.")
        text = (detections_srt if suffix == ".srt" else detections_vtt)(next(iter(results.values())))
    else:
        raise ValueError(f"detections are written to .json, .csv, .srt or .vtt, got {path.name!r}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")
    os.replace(draft, path)
    return path


def read_detections(path: str | os.PathLike) -> dict:
    """What `write_detections` wrote to a .json file: the whole content, with "results" as they were given to it.

    Raises:
        ValueError: no such JSON.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        results = {
            video: [
                {
                    "label": one["label"],
                    "score": one["score"],
                    "start": one["segment"][0],
                    "end": one["segment"][1],
                }
                for one in found
            ]
            for video, found in content["results"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not hold detections ({type(error).__name__}: {error}).") from None
    return {**content, "results": results}


def milliseconds(seconds: float) -> int:
    """The nearest whole millisecond, not before the video begins."""
    return max(0, round(seconds * 1000))


def one_line(text: str) -> str:
    """A stranger's label in one line: line breaks become blanks, what cannot be shown a replacement character."""
    line = " ".join(str(text).split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def _cues(detections):
    """(start, end, text) in milliseconds, by start, then end; a cue that would have no length lasts one millisecond."""
    cues = []
    for one in detections:
        start, end = milliseconds(one["start"]), milliseconds(one["end"])
        cues.append((start, max(end, start + 1), f"{one_line(one['label'])} {one['score']:.2f}"))
    return sorted(cues, key=lambda cue: cue[:2])


def _clock(time: int, point: str) -> str:
    """HH:MM:SS.mmm of milliseconds; hours take as many digits as they need."""
    seconds, milli = divmod(time, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{point}{milli:03d}"
