# /// script
# dependencies = ["hf_effvid"]
# ///
"""Untrimmed feature streams composed from the features of trimmed clips.

    python examples/detection_clip_streams.py clips.npz --output streams/

The file holds `feats` (clips, steps, channels) and, per clip, `label`, `subject` and `split`. A stream shows clips of one subject, so
that streams of two splits share nobody; how they are joined stands in `hf_effvid.data.feature_streams`. Writes a feature store, and
annotations.json beside it.
"""

import argparse
from pathlib import Path

import numpy as np

from hf_effvid.data.feature_streams import StreamComposition, write_feature_streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with np.load(args.clips, allow_pickle=False) as data:
        clips = [data[name] for name in ("feats", "label", "subject", "split")]
    annotations = write_feature_streams(*clips, args.output, StreamComposition(seed=args.seed))
    for split in annotations.splits:
        videos = annotations.in_split(split).videos
        print(f"{split}: {len(videos)} streams, {sum(len(video.segments) for video in videos)} actions")


if __name__ == "__main__":
    main()
