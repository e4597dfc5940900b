"""The claim of the motion data set: no single frame, and within a pair no unordered set of frames, tells the class."""

import av
import numpy as np
import pytest

from hf_effvid.data.synthetic import (
    ALL_MOTION_CLASSES,
    MOTION_CLASSES,
    REVERSED_CLASS,
    draw_motion_clip,
    make_motion_dataset,
)
from hf_effvid.models.video_reader import read_video


CLIPS, SIZE, FRAMES = 120, 32, 16


@pytest.fixture(scope="module")
def clips():
    """uint8 (class, clip, T, H, W, 3) of the default classes."""
    drawn = [
        [draw_motion_clip(name, np.random.default_rng([11, k, i]), SIZE, FRAMES) for i in range(CLIPS)]
        for k, name in enumerate(MOTION_CLASSES)
    ]
    return np.array(drawn)


def coarse(frames):
    """Means over blocks of 4x4 pixels, flattened, roughly of unit scale: (..., 192) for 32x32."""
    *lead, height, width, _ = frames.shape
    blocks = frames.reshape(*lead, height // 4, 4, width // 4, 4, 3).astype(np.float64).mean((-4, -2))
    return blocks.reshape(*lead, -1) / 64


def held_out_accuracies(features):
    """Accuracy of ridge regression and of nearest centroids on the second half of the clips.

    Args:
        features: (class, clip, D).
    """
    classes, count, _ = features.shape
    half = count // 2
    train, test = features[:, :half].reshape(classes * half, -1), features[:, half:].reshape(classes * half, -1)
    truth = np.repeat(np.arange(classes), half)
    mean = train.mean(0)
    train, test = train - mean, test - mean
    targets = np.eye(classes)[truth] - 1 / classes
    weights = np.linalg.solve(train.T @ train + 10 * np.eye(train.shape[1]), train.T @ targets)
    ridge = (test @ weights).argmax(1) == truth
    centroids = np.stack([train[truth == k].mean(0) for k in range(classes)])
    distances = ((test[:, None] - centroids[None]) ** 2).sum(-1)
    nearest = distances.argmin(1) == truth
    return {"ridge": ridge.mean(), "nearest centroid": nearest.mean()}


def upper_bound(chance, n, deviations=3.7):
    return chance + deviations * np.sqrt(chance * (1 - chance) / n)


@pytest.mark.parametrize("frame", [0, 5, FRAMES - 1])
def test_no_single_frame_tells_the_class(clips, frame):
    bound = upper_bound(1 / len(MOTION_CLASSES), len(MOTION_CLASSES) * CLIPS // 2)
    for name, accuracy in held_out_accuracies(coarse(clips[:, :, frame])).items():
        assert accuracy < bound, f"{name} on frame {frame}: {accuracy:.3f}"


def test_the_single_frame_test_sees_a_small_leak(clips):
    leaky = clips[:, :, 0].astype(np.float64)
    leaky[3, :, :8, :8] += 40  # a mark in the corner of one class
    bound = upper_bound(1 / len(MOTION_CLASSES), len(MOTION_CLASSES) * CLIPS // 2)
    assert held_out_accuracies(coarse(leaky))["ridge"] > bound


@pytest.mark.parametrize("name", [n for n in MOTION_CLASSES if n < REVERSED_CLASS[n]])
def test_no_unordered_set_of_frames_tells_a_class_from_its_reversal(clips, name):
    pair = clips[[MOTION_CLASSES.index(name), MOTION_CLASSES.index(REVERSED_CLASS[name])]]
    seen = coarse(pair)
    unordered = np.concatenate([seen.mean(2), seen.std(2), seen.max(2), seen.min(2)], axis=-1)
    for method, accuracy in held_out_accuracies(unordered).items():
        assert accuracy < upper_bound(0.5, CLIPS), f"{method}: {accuracy:.3f}"


def object_masks(clip):
    """Where the vivid object is in front of the dull background: (T, H, W) bool."""
    colour = clip.astype(np.float64)
    vividness = colour.max(-1) - colour.min(-1)
    return vividness > 95


def turned_angle(masks):
    steps = []
    for mask in masks:
        y, x = np.nonzero(mask)
        if len(x) < 12:
            return None
        covariance = np.cov(np.stack([x, y]))
        steps.append(0.5 * np.arctan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1]))
    difference = (np.diff(steps) + np.pi / 2) % np.pi - np.pi / 2
    return np.sign(np.median(difference))


def centred(clip):
    """The clip with its object in the middle: the picture wraps around at its borders, so rolling changes nothing else."""
    y, x = np.nonzero(object_masks(clip).any(0))
    size = clip.shape[1]
    middle = [np.angle(np.exp(2j * np.pi * values / size).mean()) * size / (2 * np.pi) for values in (y, x)]
    return np.roll(clip, [size // 2 - round(value) for value in middle], axis=(1, 2))


def test_the_order_of_frames_tells_growth_and_rotation_and_direction(clips):
    """Hand-made detectors that look at the order are nearly always right where they see the object."""
    hits = {name: [] for name in ("grows", "shrinks", "turns_clockwise", "turns_counter_clockwise", "moves_right")}
    for k, name in enumerate(MOTION_CLASSES):
        if name not in hits:
            continue
        for clip in clips[k]:
            masks = object_masks(clip if name.startswith("moves") else centred(clip))
            if masks.sum((1, 2)).min() < 12 or masks[:, [0, -1]].any() or masks[:, :, [0, -1]].any():
                continue  # at the border an object is in two pieces
            if name in ("grows", "shrinks"):
                found = np.sign(np.median(np.diff(masks.sum((1, 2)))))
                hits[name].append(found == (1 if name == "grows" else -1))
            elif name.startswith("turns"):
                # The picture's y axis points down, so clockwise is the direction of growing angles.
                hits[name].append(turned_angle(masks) == (1 if name == "turns_clockwise" else -1))
            else:
                centres = [np.nonzero(mask)[1].mean() for mask in masks]
                hits[name].append(np.median(np.diff(centres)) > 0)
    for name in ("grows", "shrinks", "turns_clockwise", "turns_counter_clockwise"):
        assert len(hits[name]) >= 10 and np.mean(hits[name]) > 0.85, (name, len(hits[name]), np.mean(hits[name]))


def test_red_then_green_then_blue_shows_that_order():
    for seed in range(5):
        clip = draw_motion_clip("red_then_green_then_blue", np.random.default_rng(seed), 48, 24, noise=0)
        vivid = object_masks(clip)
        shown = [int(np.median(frame[mask].argmax(-1))) for frame, mask in zip(clip, vivid, strict=True) if mask.any()]
        changes = [(a, b) for a, b in zip(shown, shown[1:], strict=False) if a != b]
        assert changes and all((b - a) % 3 == 1 for a, b in changes), shown


def test_files_hold_what_was_drawn_and_every_frame_stands_alone(tmp_path):
    make_motion_dataset(tmp_path, 1, size=48, num_frames=12, fps=12.5, classes=("grows",), noise=2, progress=False)
    path = tmp_path / "train" / "grows" / "grows_00000.mp4"
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        assert len(packets) == 12 and all(packet.is_keyframe for packet in packets)
    decoded = read_video(path)
    assert decoded.frames.shape == (12, 3, 48, 48)
    assert decoded.info.fps == pytest.approx(12.5)


def test_clips_depend_on_seed_split_class_and_number_alone(tmp_path):
    few = make_motion_dataset(tmp_path / "few", {"train": 1}, size=16, num_frames=4, progress=False)
    many = make_motion_dataset(
        tmp_path / "many", {"train": 2, "test": 1}, size=16, num_frames=4, progress=False, classes=ALL_MOTION_CLASSES
    )
    other = make_motion_dataset(tmp_path / "other", {"train": 1}, size=16, num_frames=4, seed=1, progress=False)
    name = "moves_left/moves_left_00000.mp4"
    first = (few / "train" / name).read_bytes()
    assert first == (many / "train" / name).read_bytes()
    assert first != (many / "test" / name).read_bytes()
    assert first != (other / "train" / name).read_bytes()
    assert first != (many / "train" / name.replace("00000", "00001")).read_bytes()


def test_a_complete_data_set_is_kept_and_an_incomplete_one_is_completed(tmp_path):
    request = {"size": 16, "num_frames": 4, "classes": MOTION_CLASSES[:2], "progress": False}
    make_motion_dataset(tmp_path, 2, **request)
    clip = tmp_path / "train/moves_left/moves_left_00001.mp4"
    stamp = clip.stat().st_mtime_ns
    make_motion_dataset(tmp_path, 2, **request)
    assert clip.stat().st_mtime_ns == stamp
    clip.unlink()
    make_motion_dataset(tmp_path, 2, **request)
    assert clip.is_file()


@pytest.mark.slow
def test_workers_write_the_same_files(tmp_path):
    for workers in (1, 2):
        make_motion_dataset(
            tmp_path / str(workers), 3, size=16, num_frames=4, num_workers=workers, progress=False, seed=5
        )
    one, two = (sorted((tmp_path / str(w)).rglob("*.mp4")) for w in (1, 2))
    assert len(one) == 3 * len(MOTION_CLASSES)
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("jumps",)}, "jumps"),
        ({"classes": ()}, "not empty"),
        ({"size": 33}, "even"),
        ({"num_frames": 1}, "2 frames"),
        ({"clips_per_class": {"train": -1}}, "negative"),
    ],
)
def test_impossible_requests_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        make_motion_dataset(tmp_path, **{"clips_per_class": 1} | change)
