# /// script
# dependencies = ["hf_effvid"]
# ///
"""Annotations of a folder of untrimmed videos, with a validation split where it has none.

    python examples/detection_splits.py FOLDER --output annotations.json

FOLDER holds annotations.json (ActivityNet's layout) and the videos. Without a validation split, every fourth training video of a class
(that of its first action, videos by name) is held out. Videos that look alike may still lie on both sides where the folder itself mixes them.
"""

import argparse
import json
from pathlib import Path

from hf_effvid.data import DetectionAnnotations, load_detection_annotations


def hold_out(annotations: DetectionAnnotations, every: int = 4) -> DetectionAnnotations:
    """The annotations with every so many training video of each class moved to "validation"."""
    by_class: dict[str, list] = {}
    for video in sorted(annotations.in_split("train").videos, key=lambda one: one.name):
        by_class.setdefault(video.segments[0].label if video.segments else "", []).append(video)
    for videos in by_class.values():
        for video in videos[every - 1 :: every]:
            video.split = "validation"
    return annotations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="annotations to write")
    args = parser.parse_args()
    annotations = load_detection_annotations(args.folder / "annotations.json")
    if "validation" not in annotations.splits:
        hold_out(annotations)
    for split in annotations.splits:
        videos = annotations.in_split(split).videos
        seconds = sum(video.duration or 0 for video in videos)
        print(f"{split}: {len(videos)} videos, {seconds:.0f} s, {sum(len(v.segments) for v in videos)} actions")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(annotations.to_activitynet(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
