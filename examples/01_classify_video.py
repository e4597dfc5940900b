# /// script
# dependencies = ["hf_effvid[train]"]
# ///
"""First read: a video file in, labels out, step by step.

    python examples/01_classify_video.py        # a generated clip, and the quickstart's checkpoint if `make quickstart` was run
    python examples/01_classify_video.py my.mp4 --model MCG-NJU/videomae-base-finetuned-kinetics

Without arguments it runs offline, in seconds. After `make quickstart` the first line should be the true class, `grows`; before it, the
weights are random, and the output says so.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

import hf_effvid  # registers the architectures and processors with transformers


QUICKSTART = "quickstart_work/staged/video-focalnet-motion-quickstart"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("video", nargs="?", help="default: a generated clip of the class `grows`")
parser.add_argument("--model", default=QUICKSTART, help="folder or Hub id of any Hugging Face video classifier")
args = parser.parse_args()

if args.model == QUICKSTART and not Path(QUICKSTART).is_dir():
    print(f"RANDOM WEIGHTS, the scores mean nothing: there is no {QUICKSTART}, which `make quickstart` writes")
    model = hf_effvid.VideoFocalNetForVideoClassification(
        hf_effvid.VideoFocalNetConfig.from_preset("tiny", num_labels=6)
    )
    processor = hf_effvid.EffVidVideoProcessor()
else:
    model = AutoModelForVideoClassification.from_pretrained(args.model)
    processor = AutoVideoProcessor.from_pretrained(args.model)
model.eval()

with tempfile.TemporaryDirectory() as folder:
    if args.video is None:
        hf_effvid.make_motion_dataset(folder, 1, classes=["grows"], num_frames=20, progress=False)
    video = args.video or str(next(Path(folder).rglob("*.mp4")))
    if isinstance(processor, hf_effvid.EffVidVideoProcessor):
        inputs = processor(video, return_tensors="pt")  # the checkpoint's recipe says which frames, and at what size
    else:
        frames = hf_effvid.read_video(video, num_frames=getattr(model.config, "num_frames", 16)).frames
        inputs = processor(frames, return_tensors="pt")

with torch.no_grad():
    scores = model(**inputs).logits[0].softmax(-1)

print(f"{Path(video).name}: " + ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items()))
for index in scores.argsort(descending=True)[:5].tolist():
    print(f"  {scores[index]:.3f}  {model.config.id2label[index]}")
