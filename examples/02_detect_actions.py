# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Second read: a long video in, actions with start and end in seconds out, and a picture of when they happened.

    python examples/02_detect_actions.py                    # a generated video, and the detector in examples/checkpoints
    python examples/02_detect_actions.py match.mp4 --model org/my-detector --output match.png

Without arguments it runs offline, in seconds; of the generated video the truth is known and printed beside what was found.
"""

import argparse
import tempfile
from pathlib import Path

from transformers import pipeline

import hf_effvid  # registers the task, the architecture and its processor with transformers
from hf_effvid.data import load_detection_annotations
from hf_effvid.pipelines.detection_timeline import plot_timeline


CHECKPOINT = Path(__file__).resolve().parent / "checkpoints" / "stream-detector"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("video", nargs="?", help="default: a generated stream, 24 seconds long")
parser.add_argument("--model", default=str(CHECKPOINT), help="folder or Hub id of a temporal action detector")
parser.add_argument("--output", default="actions.png", help="timeline picture to write, .png or .svg")
args = parser.parse_args()

detect = pipeline("temporal-action-detection", model=args.model)

with tempfile.TemporaryDirectory() as folder:
    video, truth = args.video, None
    if video is None:
        hf_effvid.make_action_streams(folder, 1, seconds=(24, 24), seed=2026, progress=False)
        generated = load_detection_annotations(Path(folder) / "annotations.csv").videos[0]
        video, truth = generated.path, [vars(one) for one in generated.segments]
    duration = hf_effvid.probe_video(video).duration
    found = detect(video)  # what passes the checkpoint's own thresholds; threshold=0.0 gives everything

print(f"{Path(video).name}, {duration:.1f} s: {len(found)} actions found")
for one in sorted(found, key=lambda one: one["start"]):
    print(f"  {one['start']:6.2f} s to {one['end']:6.2f} s  {one['score']:.2f}  {one['label']}")
if truth is not None:
    print(f"{len(truth)} really happened")
    for one in truth:
        print(f"  {one['start']:6.2f} s to {one['end']:6.2f} s        {one['label']}")
plot_timeline(found, args.output, duration=duration, truth=truth, title=Path(video).name)
print(f"timeline: {args.output}")
