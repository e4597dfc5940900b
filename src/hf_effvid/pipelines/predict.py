"""Classify files, folders and lists, and write what comes out as it comes: what `effvid predict` runs.

One record per prediction: `{"source", "predictions"}` for a video, `{"source", "start", "end", "last", "predictions"}` for a window,
`{"source", "error", "message"}` for a video that failed; with `explain=True` also `explanation`, in JSON lines. They are written one
by one, so a run that dies keeps everything that it had computed, and the same call again goes on behind it.
"""

import csv
import io
import json
import os
from pathlib import Path

from tqdm.auto import tqdm

from ..video_files import VIDEO_SUFFIXES


TABLE_SUFFIXES = (".csv", ".tsv")
LIST_SUFFIXES = (*TABLE_SUFFIXES, ".txt")
PATH_COLUMNS = ("path", "video", "file_name", "filename", "file", "video_path")
# A file name need not be valid UTF-8.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}
CSV_FIELDS = ("source", "start", "end", "last", "rank", "label", "score", "error", "message")


def predict_paths(
    pipe,
    inputs,
    *,
    window=None,
    stride=None,
    output=None,
    resume=True,
    retry_errors=True,
    suffixes=VIDEO_SUFFIXES,
    path_column=None,
    progress=False,
    **params,
):
    """Classify videos from files, folders and lists.

    Args:
        pipe: A `VideoClassificationPipeline`, loaded once for all of them.
        inputs: A path or several: a video; a folder, searched recursively; a `.csv`, `.tsv` or `.txt` that lists videos.
        window, stride: Seconds, for predictions along the time of each video.
        output: A `.jsonl` or `.csv` file to write to; None writes nothing.
        resume: Keep what `output` already holds and skip those videos; False starts it anew.
        retry_errors: When resuming, try again what failed before.
        suffixes: What counts as a video in a folder.
        path_column: Column of the paths in a `.csv`; by default one of `PATH_COLUMNS`, or the first.
        progress: Show a progress bar.
        **params: Further parameters of a call of the pipeline (`top_k`, `batch_size`, `multi_view`, `limits`, ...).

    Yields:
        Records (dicts that JSON can hold), as they are computed; not those that a resumed `output` already has.

    Raises:
        ValueError: nothing to classify, an unknown kind of output, or an output that was written with other settings.
    """
    if stride is not None and window is None:
        raise ValueError(f"stride={stride} needs a window: pass window=... seconds.")
    sources = list(expand_inputs(inputs, suffixes, path_column))
    writer = RecordFile(output, window is not None, resume, retry_errors) if output is not None else None
    if writer is not None:
        sources = [source for source in sources if source not in writer.done]
    params.setdefault("on_error", "record")
    with writer or NoFile() as file, tqdm(total=len(sources), unit="video", disable=not progress) as bar:
        for record in run_records(pipe, sources, window, stride, params):
            file.write(record)
            bar.update(int(is_final(record)))
            yield record


def run_records(pipe, sources, window, stride, params):
    """The records of the videos, in order."""
    if window is None:
        for source, result in zip(sources, pipe.iterate(sources, **params), strict=True):
            failed = isinstance(result, dict)
            yield {**result, "source": source} if failed else {"source": source, "predictions": result}
        return
    for source in sources:
        held = None  # a window is written when it is known whether it is the last
        for one in pipe.stream(source, window=window, stride=stride, **params):
            if held is not None:
                yield held
            if "error" in one:
                held = {**one, "source": source}
            else:
                held = {"source": source, "start": one["start"], "end": one["end"], "last": False}
                held.update((name, one[name]) for name in ("predictions", "explanation") if name in one)
        if "error" not in held:
            held["last"] = True
        yield held


def is_final(record):
    """Whether nothing more comes for the source of this record."""
    return "error" in record or "start" not in record or record["last"]


# ---- what to classify ------------------------------------------------------------------------------------------------------


def expand_inputs(inputs, suffixes=VIDEO_SUFFIXES, path_column=None):
    """Paths of videos (str), in a stable order, each once.

    Args:
        inputs: A path or a list of paths: videos, folders, `.csv`, `.tsv` or `.txt` lists.
        suffixes: What counts as a video in a folder.
        path_column: Column of the paths in a `.csv`.

    Raises:
        ValueError: a folder or a list without any video.
    """
    inputs = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    seen = set()
    for one in inputs:
        if not os.fspath(one):
            raise ValueError("an empty path was given: expected a video, a folder or a list.")
        path = Path(one)
        if path.is_dir():
            found = videos_in(path, suffixes)
        elif path.suffix.lower() in LIST_SUFFIXES and path.is_file():
            found = videos_listed_in(path, path_column)
        else:
            found = [os.fspath(one)]
        if not found:
            raise ValueError(
                f"{path} holds no videos: expected files ending in {', '.join(suffixes)}, or a list of paths."
            )
        for source in found:
            if source not in seen:
                seen.add(source)
                yield source


def videos_in(folder, suffixes):
    """Every video below a folder, sorted; hidden files and folders are left out, links to folders are not followed."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(parent, name)
            for name in sorted(names)
            if name.lower().endswith(tuple(suffixes)) and not name.startswith(".")
        ]
    return found


def videos_listed_in(path, path_column=None):
    """The paths in a `.csv` or `.tsv` (with or without a header) or in a `.txt` ("path" or "path label" per line).

    Relative paths are relative to the list. Addresses stay as they are; whether they are read is up to `allow_remote`.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason}). Save the list as UTF-8.") from None
    if path.suffix.lower() in TABLE_SUFFIXES:
        names = paths_of_rows(table_rows(lines), path, path_column)
    else:
        lines = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        names = [without_label(line, path.parent) for line in lines]
    return [name if "://" in name else os.path.join(path.parent, name) for name in names]


def table_rows(lines):
    """The cells of a table whose columns are separated by commas, semicolons (as spreadsheets write them in Europe) or tabs."""
    first = next((line for line in lines if line.strip()), "")
    delimiter = max(",", ";", "\t", key=first.count)
    return [row for row in csv.reader(lines, delimiter=delimiter) if row and any(cell.strip() for cell in row)]


def paths_of_rows(rows, path, path_column):
    header = [name.strip().lower() for name in rows[0]] if rows else []
    if path_column is not None and path_column.lower() not in header:
        raise ValueError(f"{path} has no column {path_column!r}, only {header}.")
    column = path_column.lower() if path_column else next((name for name in PATH_COLUMNS if name in header), None)
    position, first = (0, 0) if column is None else (header.index(column), 1)
    rows = rows[first:]
    empty = [number for number, row in enumerate(rows, 1 + first) if not "".join(row[position : position + 1]).strip()]
    if empty:
        raise ValueError(f"{path}: row {empty[0]} has no {column or 'path'}.")
    return [row[position].strip() for row in rows]


def without_label(line, folder):
    """A line may be a path with blanks in it, or a path and a label after a blank or a comma: the file system decides."""
    if (folder / line).exists():
        return line
    for separator in (",", "\t", " "):
        head, found, _ = line.rpartition(separator)
        if found:
            return head.strip()
    return line


# ---- what comes out --------------------------------------------------------------------------------------------------------


class NoFile:
    """Stands where nothing is to be written."""

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return False

    def write(self, record):
        """Forget it."""


class RecordFile:
    """A `.jsonl` or `.csv` file of records that survives the death of its writer.

    Args:
        path: Where; the suffix says which kind.
        in_windows: Whether the records are windows.
        resume: Keep the videos that are complete in it.
        retry_errors: Do not count a failure as complete.

    Attributes:
        done: Sources that are complete in it.
    """

    def __init__(self, path, in_windows, resume=True, retry_errors=True):
        self.path = Path(path)
        if self.path.suffix.lower() not in (".jsonl", ".csv"):
            raise ValueError(f"output must end in .jsonl or .csv, got {self.path.name!r}.")
        self.is_csv = self.path.suffix.lower() == ".csv"
        old = self.read() if resume and self.path.exists() else []
        if not all(isinstance(record, dict) and isinstance(record.get("source"), str) for record in old):
            raise self.foreign()
        if any(("start" in record) != in_windows for record in old if "error" not in record):
            raise ValueError(
                f"{self.path} holds predictions of {'whole videos' if in_windows else 'windows'}: choose another output, delete "
                "it, or pass resume=False to replace it."
            )
        finals = [record for record in old if is_final(record) and not (retry_errors and "error" in record)]
        self.done = {record["source"] for record in finals}
        self.keep([record for record in old if record["source"] in self.done])

    def read(self):
        """The records in the file; a line that was cut off by a crash is left out."""
        text = self.path.read_text(**TEXT)
        complete = text[: text.rfind("\n") + 1]
        try:
            if not self.is_csv:
                return [json.loads(line) for line in complete.splitlines() if line.strip()]
            return records_of_rows(csv.DictReader(io.StringIO(complete, newline="")))
        except (ValueError, LookupError, csv.Error) as error:
            raise self.foreign() from error

    def foreign(self):
        """The error for a file that somebody else wrote: it is not overwritten."""
        return ValueError(f"{self.path} holds something else than predictions: choose another output, or delete it.")

    def keep(self, records):
        """Replace the file by these records, at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(self.path.name + ".part")
        with open(draft, "w", newline="", **TEXT) as self.file:
            if self.is_csv:
                csv.DictWriter(self.file, CSV_FIELDS, lineterminator="\n").writeheader()
            for record in records:
                self.write(record)
        os.replace(draft, self.path)

    def __enter__(self):
        self.file = open(self.path, "a", newline="", **TEXT)
        return self

    def __exit__(self, *exception):
        self.file.close()
        return False

    def write(self, record):
        """Append one record; it is with the operating system when this returns."""
        text = io.StringIO(newline="")
        if self.is_csv:
            csv.DictWriter(text, CSV_FIELDS, lineterminator="\n").writerows(rows_of_record(record))
        else:
            text.write(json.dumps(record) + "\n")
        self.file.write(text.getvalue())
        self.file.flush()


def rows_of_record(record):
    """One CSV row per label, best first; a record without labels is one row."""
    base = {name: value for name, value in record.items() if name in CSV_FIELDS}
    if "last" in base:
        base["last"] = int(base["last"])
    ranked = enumerate(record.get("predictions", ()), start=1)
    return [{**base, "rank": rank, **one} for rank, one in ranked] or [base]


def records_of_rows(rows):
    """The inverse of `rows_of_record`."""
    records = []
    for row in rows:
        record = {"source": row["source"]}
        if row["error"]:
            records.append({**record, "error": row["error"], "message": row["message"]})
            continue
        if row["start"]:
            record.update(start=float(row["start"]), end=float(row["end"]), last=row["last"] == "1")
        if row["rank"] in ("", "1"):
            records.append({**record, "predictions": []})
        if row["rank"]:
            records[-1]["predictions"].append({"label": row["label"], "score": float(row["score"])})
    return records


def predictions_table(records, num_labels=3):
    """Records as a `rich` table. Labels come from a stranger's configuration: neither markup nor control characters take effect."""
    from rich.table import Table
    from rich.text import Text

    table = Table("video", "from", "to", "labels")
    for record in records:
        times = [f"{record[name]:.2f}" if record.get(name) is not None else "" for name in ("start", "end")]
        labels = [f"{one['label']} {one['score']:.3f}" for one in record.get("predictions", ())[:num_labels]]
        found = f"{record['error']}: {record['message']}" if "error" in record else ", ".join(labels)
        table.add_row(*(Text(printable(cell)) for cell in (record["source"], *times, found)))
    return table


def printable(text):
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
