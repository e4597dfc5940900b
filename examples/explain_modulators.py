# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""Where and when does a Video-FocalNet look? Its modulators over the frames as an overlay video and pictures, and its gates as numbers.

    python examples/explain_modulators.py                            # a generated clip, and the checkpoint that `make quickstart` left
    python examples/explain_modulators.py my.mp4 --model my_model --output explanation --block 1

The last block has seen the whole network; earlier blocks (--block 0, 1, ...) have finer maps. docs/explain.md says how to read them, and
how far they can be trusted: on real videos they are scored by examples/score_explanations.py.
"""

import argparse
import tempfile
from pathlib import Path

import hf_effvid


QUICKSTART = "quickstart_work/staged/video-focalnet-motion-quickstart"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("video", nargs="?", help="default: a generated clip of the class `moves_right`")
parser.add_argument("--model", default=QUICKSTART, help="folder or Hub id of a Video-FocalNet classifier")
parser.add_argument(
    "--output", default="explanation", help="folder for the overlay video, the pictures and the numbers"
)
parser.add_argument(
    "--block", type=int, default=1, help="block that the maps come from, counted over all stages; -1: the last"
)
args = parser.parse_args()

model, processor = args.model, None
if model == QUICKSTART and not Path(QUICKSTART).is_dir():
    print(f"RANDOM WEIGHTS, the maps mean nothing: there is no {QUICKSTART}, which `make quickstart` writes")
    config = hf_effvid.VideoFocalNetConfig(
        num_frames=8, image_size=48, patch_size=8, embed_dim=32, depths=[2, 2], focal_levels=[2, 2],
        focal_windows=[3, 3], initialization="fan_in", num_labels=6,
    )  # fmt: skip
    model = hf_effvid.VideoFocalNetForVideoClassification(config)
    processor = hf_effvid.EffVidVideoProcessor(num_frames=8, size={"shortest_edge": 48}, crop_size=48)

with tempfile.TemporaryDirectory() as folder:
    if args.video is None:
        hf_effvid.make_motion_dataset(folder, 2, classes=["moves_right"], num_frames=20, progress=False)
    video = args.video or str(max(Path(folder).rglob("*.mp4")))
    found = hf_effvid.explain(video, model, args.output, processor=processor, block=args.block)

told = found["explanation"]
print(f"{Path(video).name}: {told['label']} {told['score']:.3f}, maps of block {told['block']}")
print(
    "share of each step in time in the temporal modulator: "
    + " ".join(f"{w:.3f}" for w in told["temporal_weight"] or [])
)
print("mean size of the gates, nearest focal level first, global context last:")
for block in told["gates"]:
    for branch in ("spatial", "temporal"):
        if block[branch] is not None:
            sizes = " ".join(f"{value:6.3f}" for value in block[branch]["mean_abs"])
            print(f"  stage {block['stage'] + 1}, block {block['block']}, {branch:<8} {sizes}")
for name, path in told["files"].items():
    print(f"{name:<14} {path}")
