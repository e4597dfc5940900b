"""`check_dataset`: look at every video of a data set before a training run does, and say what is wrong with it."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from tqdm.auto import tqdm

from ..models.video_errors import VideoError, VideoNotFound
from ..models.video_reader import probe_video, read_video
from .clip_reader import open_value
from .doctor_report import DatasetReport, FileRecord, Finding, plural
from .label_directions import labels_forbid_flips
from .loading import empty_class_folders, label_names, load_video_dataset


__all__ = ["DatasetReport", "check_dataset", "labels_forbid_flips"]

DEPTHS = ("probe", "ends", "full")
_IMBALANCE = 10  # times more videos in the largest class than in the smallest are worth a warning


def check_dataset(
    root_or_dataset,
    min_frames: int | None = None,
    depth: str = "ends",
    processor=None,
    num_workers: int | None = None,
    limits=None,
    isolate: bool = False,
    progress: bool = True,
    **load_kwargs,
) -> DatasetReport:
    """Check a data set of labelled videos.

    Args:
        root_or_dataset: what `load_video_dataset` takes, or what it gave (not a stream).
        min_frames: videos with fewer frames are reported; default: the processor's `num_frames`, or 8.
        depth: how much of each file is decoded: "probe" the first frame, "ends" also one in the middle and the last
            one, "full" all.
        processor: the recipe the videos are meant for.
        num_workers: files checked at once; default: as many as there are cores, at most 8.
        limits: what one file may cost, a `VideoLimits`.
        isolate: decode in worker processes that a hostile file may crash without harm; slower.
        progress: show a progress bar.
        **load_kwargs: passed to `load_video_dataset`.

    Returns:
        A `DatasetReport`; its `ok` says whether nothing was found that spoils training or its numbers.

    Raises:
        AnnotationError: there is no data set to check.
    """
    if depth not in DEPTHS:
        raise ValueError(f"`depth` must be one of {DEPTHS}, got {depth!r}")
    if isinstance(root_or_dataset, (str, os.PathLike)):
        name = str(root_or_dataset)
        splits = load_video_dataset(root_or_dataset, **{"missing": "keep"} | load_kwargs)
        empty_folders = [] if load_kwargs.get("format") else empty_class_folders(root_or_dataset)
    else:
        name, splits, empty_folders = "a data set in memory", root_or_dataset, []
    splits = splits if isinstance(splits, Mapping) else {str(getattr(splits, "split", None) or "train"): splits}
    if any(not hasattr(part, "__len__") for part in splits.values()):
        raise ValueError("a stream has no end to check up to: load the data set without `streaming`")
    names = label_names(splits)
    if min_frames is not None and min_frames < 1:
        raise ValueError(f"`min_frames` must be at least 1, got {min_frames}")
    if min_frames is None:
        min_frames = processor.num_frames if processor is not None else 8

    jobs = [(split, index, part) for split, part in splits.items() for index in range(len(part))]
    workers = num_workers or min(8, os.cpu_count() or 1)
    reading = {"depth": depth, "limits": limits, "isolate": isolate}

    def check(job):
        split, index, part = job
        return check_file(part[index], split, names, **reading)

    # Threads: FFmpeg and hashing release the interpreter's lock.
    with ThreadPoolExecutor(workers) as pool:
        bar = {"total": len(jobs), "desc": "checking videos", "unit": "file", "disable": not progress}
        files = list(tqdm(bounded_map(pool, check, jobs, 4 * workers), **bar))
    report = DatasetReport(name=name, class_names=names, files=files, min_frames=min_frames, depth=depth)
    report.findings = [
        *unreadable_findings(files),
        *duplicate_findings(files),
        *_class_findings(report, list(splits), empty_folders),
        *_video_findings(files, min_frames),
        *_flip_findings(names),
    ]
    return report


def check_file(row: dict, split: str, names: list[str], depth="ends", limits=None, isolate=False) -> FileRecord:
    """Hash, probe and partly decode the video of one row; what goes wrong is written into the record."""
    label = row["label"]
    value = row["video"]
    path = (value.get("path") if isinstance(value, dict) else None) or "<bytes>"
    record = FileRecord(
        path=str(path),
        split=split,
        labels=[names[i] for i in (label if isinstance(label, (list, tuple)) else [label])],
        start=row.get("start"),
        end=row.get("end"),
    )
    try:
        record.digest, record.num_bytes = _digest(value)
        info, record.notes = _look(open_value(value, limits), record, depth, limits, isolate)
    except VideoError as error:
        record.error, record.message = type(error).__name__, str(error)
        return record
    record.width, record.height = info.width, info.height
    record.fps, record.duration, record.num_frames = info.fps, info.duration, info.num_frames
    return record


def _look(source, record: FileRecord, depth: str, limits, isolate: bool):
    part = {"start": record.start, "end": record.end}
    if depth == "probe" and not isolate and record.start is None and record.end is None:
        return probe_video(source, limits=limits), []
    seen = []

    def choose(info):
        seen.append(info)
        last = info.num_frames - 1
        return {"probe": [0], "ends": sorted({0, last // 2, last}), "full": range(last + 1)}[depth]

    # Tiny frames: only whether they can be decoded matters, and a long file must not fill the memory.
    decoded = read_video(source, size=(8, 8), limits=limits, isolate=isolate, sampler=choose, **part)
    # In a worker process the sampler runs elsewhere, and what it saw stays there.
    return (seen[0] if seen else decoded.info), list(decoded.notes)


def _digest(value) -> tuple[str, int]:
    path, content = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
    digest = hashlib.blake2b(digest_size=16)
    if content is not None:
        digest.update(content)
        return digest.hexdigest(), len(content)
    if not isinstance(path, (str, os.PathLike)) or "://" in str(path):
        return "", 0
    if not os.path.isfile(path):
        raise VideoNotFound(path, "no such file", "Correct the list, or put the file there.")
    with open(path, "rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest(), os.path.getsize(path)


def bounded_map(pool, function, jobs, ahead: int):
    """`pool.map` that hands out only a few jobs ahead, so that rows with embedded videos are not all held at once."""
    jobs = iter(jobs)
    waiting = [pool.submit(function, job) for job in islice(jobs, ahead)]
    while waiting:
        yield waiting.pop(0).result()
        waiting += [pool.submit(function, job) for job in islice(jobs, 1)]


def unreadable_findings(files: list[FileRecord]) -> list[Finding]:
    """Files that cannot be read, by error, and those that can be read only in part."""
    findings = []
    by_kind = defaultdict(list)
    for file in files:
        if file.error:
            by_kind[file.error].append(file)
    for kind, bad in sorted(by_kind.items()):
        findings.append(
            Finding(
                "error", "unreadable", f"{plural(len(bad), 'file')} cannot be read ({kind})", [f.message for f in bad]
            )
        )
    damaged = [file for file in files if file.notes]
    if damaged:
        items = [f"{file.path}: {'; '.join(file.notes)}" for file in damaged]
        findings.append(Finding("warning", "damaged", f"{plural(len(damaged), 'file')} read only in part", items))
    return findings


def duplicate_findings(files: list[FileRecord]) -> list[Finding]:
    """The same bytes twice: in several splits, under different labels, or within a split."""
    groups = defaultdict(list)
    for file in files:
        if file.digest:
            groups[file.digest, file.start, file.end].append(file)
    across, conflicting, within = [], [], []
    for group in groups.values():
        if len(group) < 2:
            continue
        line = " = ".join(f"{file.path} ({file.split}: {', '.join(file.labels)})" for file in group)
        if len({tuple(sorted(file.labels)) for file in group}) > 1:
            conflicting.append(line)
        if len({file.split for file in group}) > 1:
            across.append(line)
        else:
            within.append(line)
    found = []
    if across:
        text = f"{plural(len(across), 'video')} found in several splits, byte for byte: results on them mean nothing"
        found.append(Finding("error", "duplicates_across_splits", text, across))
    if conflicting:
        found.append(
            Finding(
                "error",
                "conflicting_labels",
                f"{plural(len(conflicting), 'video')} found under different labels",
                conflicting,
            )
        )
    if within:
        found.append(
            Finding("warning", "duplicates", f"{plural(len(within), 'video')} found several times in a split", within)
        )
    return found


def _class_findings(report: DatasetReport, splits: list[str], empty_folders: list[str]) -> list[Finding]:
    found = []
    if empty_folders:
        text = f"{plural(len(empty_folders), 'class folder')} without a video"
        found.append(Finding("error", "empty_classes", text, empty_folders))
    if len(report.class_names) == 1 and not any(len(file.labels) != 1 for file in report.files):
        text = "only one class: there is nothing to tell apart"
        found.append(Finding("error", "single_class", text, list(report.class_names)))
    counts = {split: Counter() for split in splits}
    for file in report.files:
        if not file.error:
            counts[file.split].update(file.labels)
    learnt = "train" if "train" in counts else splits[0]
    repeated = Counter(tuple(sorted(file.labels)) for file in report.files if file.split == learnt).values()
    if "train" in counts and "validation" not in counts and max(repeated, default=2) < 2:
        text = "one video per class and no validation split: training has none to hold out (--validation-share 0 goes without)"
        found.append(Finding("error", "no_validation", text, []))
    for split in splits:
        absent = [name for name in report.class_names if not counts[split][name]]
        if absent:
            severity = "error" if split == learnt else "warning"
            text = f"{len(absent)} of {len(report.class_names)} classes without a readable video in {split}"
            found.append(Finding(severity, "classes_without_videos", text, absent))
    sizes = [counts[learnt][name] for name in report.class_names if counts[learnt][name]]
    if sizes and max(sizes) >= _IMBALANCE * min(sizes):
        text = f"classes of {learnt} have between {min(sizes)} and {max(sizes)} videos"
        found.append(Finding("warning", "imbalance", f"{text}: consider balanced sampling or class weights", []))
    return found


def _video_findings(files: list[FileRecord], min_frames: int) -> list[Finding]:
    found = []
    good = [file for file in files if not file.error]
    short = [file for file in good if file.num_frames < min_frames]
    if short:
        items = [f"{file.path}: {file.num_frames} frames" for file in short]
        text = f"{plural(len(short), 'file')} with fewer than {min_frames} frames: frames will be repeated"
        found.append(Finding("warning", "too_short", text, items))
    rates = sorted(file.fps for file in good if file.fps)
    if rates and rates[-1] > 1.2 * rates[0]:
        text = f"frame rates from {rates[0]:.4g} to {rates[-1]:.4g}: sample uniformly, or by `target_fps`"
        found.append(Finding("note", "mixed_frame_rates", text, []))
    unknown = [file.path for file in good if not file.fps]
    if unknown:
        found.append(
            Finding("note", "unknown_frame_rate", f"{plural(len(unknown), 'file')} without a frame rate", unknown)
        )
    return found


def _flip_findings(names: list[str]) -> list[Finding]:
    pairs = labels_forbid_flips(names)
    if not pairs:
        return []
    text = f"{plural(len(pairs), 'pair')} of labels mirror each other: training will not flip"
    return [Finding("note", "directional_labels", text, [f"{a} / {b}" for a, b in pairs])]
