# /// script
# dependencies = ["hf_effvid"]
# ///
"""Copies of videos at the rate and size that a detector looks at, so that reading them takes no time in every epoch.

    python examples/detection_small_copies.py annotations.json --root FOLDER --output small/ --fps 5 --size 64

Only for training from few videos many times over; times in seconds stay what they are. A finished copy is not made again.
"""

import argparse
from pathlib import Path

import numpy as np

from hf_effvid import iterate_video
from hf_effvid.data import load_detection_annotations
from hf_effvid.data.synthetic import write_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--root", required=True, help="folder with the videos")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fps", type=float, default=5.0, help="frames per second")
    parser.add_argument("--size", type=int, default=64, help="shorter side of a frame")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    videos = load_detection_annotations(args.annotations, root=args.root).videos
    for video in videos:
        copy = args.output / f"{video.name}.mp4"
        if copy.exists():
            continue
        frames = np.stack([frame for _, frame in iterate_video(video.path, target_fps=args.fps, size=args.size)])
        # channels last, and even sides, as encoders want them
        frames = frames.transpose(0, 2, 3, 1)[:, : frames.shape[2] // 2 * 2, : frames.shape[3] // 2 * 2]
        draft = copy.with_name(f"{video.name}.part.mp4")
        write_clip(draft, np.ascontiguousarray(frames), fps=args.fps)
        draft.rename(copy)
    print(f"{len(videos)} videos")


if __name__ == "__main__":
    main()
