"""`check_detection_data`: the dataset doctor for annotated actions: what is wrong with their times, and with their videos."""

import os
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor

from tqdm.auto import tqdm

from .detection_annotations import ActionSegment, AnnotatedVideo, DetectionAnnotations, load_detection_annotations
from .doctor import bounded_map, check_file, duplicate_findings, unreadable_findings
from .doctor_report import DatasetReport, FileRecord, Finding, plural


_MIN_DIFFERENCE = 1.0  # seconds that an annotated duration may differ from that of the file


def check_detection_data(
    source,
    depth: str = "probe",
    read_videos: bool = True,
    num_workers: int | None = None,
    limits=None,
    isolate: bool = False,
    progress: bool = True,
    **load_kwargs,
) -> DatasetReport:
    """Check annotated actions and the videos that they are in.

    Args:
        source: `DetectionAnnotations`, or what `load_detection_annotations` takes.
        depth: how much of each file is decoded, see `check_dataset`.
        read_videos: open the videos; False looks at the annotations alone.
        num_workers: files checked at once; default: as many as there are cores, at most 8.
        limits: what one file may cost, a `VideoLimits`.
        isolate: decode in worker processes that a hostile file may crash without harm; slower.
        progress: show a progress bar.
        **load_kwargs: passed to `load_detection_annotations`; videos that do not exist are reported.

    Returns:
        A `DatasetReport` with one record per video. Its findings name annotations that end before they start, have no length, are
        there twice, overlap within their class, or lie beyond the end of their video.

    Raises:
        AnnotationError: there is nothing to check.
    """
    if not isinstance(source, DetectionAnnotations):
        source = load_detection_annotations(source, **{"missing": "keep"} | load_kwargs)
    names = source.class_names
    number = {name: index for index, name in enumerate(names)}

    def check(video: AnnotatedVideo) -> FileRecord:
        labels = sorted({number[one.label] for one in video.segments})
        if not read_videos:
            return FileRecord(video.path, video.split, [names[label] for label in labels], duration=video.duration)
        row = {"video": {"path": video.path, "bytes": None}, "label": labels}
        return check_file(row, video.split, names, depth=depth, limits=limits, isolate=isolate)

    workers = num_workers or min(8, os.cpu_count() or 1)
    # threads: FFmpeg and hashing release the interpreter's lock
    with ThreadPoolExecutor(workers) as pool:
        bar = {"total": len(source.videos), "desc": "checking videos", "unit": "file", "disable": not progress}
        files = list(tqdm(bounded_map(pool, check, source.videos, 4 * workers), **bar))
    findings = [*unreadable_findings(files), *duplicate_findings(files)]
    findings += [*segment_findings(source.videos, files), *_class_findings(source)]
    return DatasetReport(source.name, list(names), files, min_frames=1, depth=depth, findings=findings)


def segment_findings(videos: list[AnnotatedVideo], files: list[FileRecord]) -> list[Finding]:
    """What is wrong with the times of annotations; durations are those of the files, where these can be read."""
    items = defaultdict(list)
    for video, file in zip(videos, files, strict=True):
        duration = (None if file.error else file.duration) or video.duration
        if file.duration and video.duration and not file.error:
            if abs(file.duration - video.duration) > max(_MIN_DIFFERENCE, 0.02 * video.duration):
                items["duration"].append(
                    f"{video.name}: {video.duration:g} s annotated, {file.duration:g} s in the file"
                )
        for one, count in Counter(video.segments).items():
            text = _describe(video, one)
            if one.end < one.start:
                items["reversed"].append(text)
            elif one.length == 0:
                items["empty"].append(text)
            if count > 1:
                items["repeated"].append(f"{text}, {count} times")
            if duration and one.start >= duration:
                items["beyond"].append(f"{text}; the video has {duration:g} s")
            elif duration and one.end > duration + _MIN_DIFFERENCE:
                items["sticking out"].append(f"{text}; the video has {duration:g} s")
        for first, second in _overlaps(video.usable()):
            kind = "overlapping" if first.label == second.label else "several classes"
            items[kind].append(f"{_describe(video, first)} and {_describe(video, second, with_name=False)}")
        if not video.segments:
            items["without"].append(video.name)
    return [
        Finding(severity, code, f"{plural(len(items[kind]), noun)} {text}", items[kind])
        for kind, (severity, code, noun, text) in _KINDS.items()
        if items[kind]
    ]


# what is found -> severity, code for programs, what is counted, sentence
_KINDS = {
    "reversed": ("error", "reversed_segments", "annotation", "end before they start"),
    "empty": ("warning", "zero_length_segments", "annotation", "without length: left out of training"),
    "repeated": ("warning", "repeated_segments", "annotation", "given more than once: evaluators count them differently"),
    "overlapping": ("warning", "overlapping_segments", "pair", "of annotations of one class overlap: suppression will merge them"),
    "several classes": ("note", "overlapping_classes", "pair", "of annotations of different classes overlap"),
    "beyond": ("error", "segments_beyond_video", "annotation", "beyond the end of their video"),
    "sticking out": ("warning", "segments_past_end", "annotation", "that last longer than their video"),
    "duration": ("warning", "duration_differs", "video", "whose annotated duration is not that of the file"),
    "without": ("note", "videos_without_segments", "video", "without any annotation: examples of nothing happening"),
}  # fmt: skip


def _overlaps(segments: list[ActionSegment]) -> list[tuple[ActionSegment, ActionSegment]]:
    """Every segment with the longest-lasting earlier one of its class, and of other classes, that it overlaps with."""
    found = []
    latest: dict[str, ActionSegment] = {}
    for one in sorted(segments, key=lambda segment: (segment.start, segment.end)):
        found += [(earlier, one) for earlier in latest.values() if earlier.end > one.start]
        if one.label not in latest or one.end > latest[one.label].end:
            latest[one.label] = one
    return found


def _class_findings(source: DetectionAnnotations) -> list[Finding]:
    found = []
    learnt = "train" if "train" in source.splits else source.splits[0]
    for split in source.splits:
        counts = Counter(one.label for video in source.videos if video.split == split for one in video.usable())
        absent = [name for name in source.class_names if not counts[name]]
        if absent:
            text = f"{len(absent)} of {len(source.class_names)} classes without an annotation in {split}"
            severity = "error" if split == learnt else "warning"
            found.append(Finding(severity, "classes_without_segments", text, absent))
    return found


def _describe(video: AnnotatedVideo, one: ActionSegment, with_name: bool = True) -> str:
    text = f"{one.label} {one.start:g}-{one.end:g}"
    return f"{video.name}: {text}" if with_name else text
