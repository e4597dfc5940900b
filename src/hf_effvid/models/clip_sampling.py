"""Which frames of a video make a clip: pure arithmetic, without torch and without any video.

Let n be the number of frames, T the frames of a clip, s the stride, K the clips.

* `uniform`: the video is cut into T equal bins; clip k takes from bin i the frame floor((i + (k + 1/2) / K) * n / T),
  so a single clip takes the centres of the bins.
* `dense`: T neighbouring points of the grid 0, s, 2s, ... below n. The K starts are spread evenly over the grid, the
  first clip at its beginning and the last at its end; a single clip lies in the middle. With `fps` and `target_fps`
  one step is s * fps / target_fps frames, so that a recipe written for 30 fps reads the same seconds at 60 fps.
* `segment` (temporal segments, the recipe of Video-FocalNet): with a = (n - s + 1) / T, frame floor((i + 1/2) * a) of
  each segment. Several clips take floor((i + (k + 1/2) / K) * n / T), the centres of what the published protocol draws
  at random from.

That is `clip_draw="even"`. With "random" each of several clips is drawn as in training (`segment` with a stride of 1), which is the
published test of Video-FocalNet; here the draw is a function of a seed.
"""

import math
import os
import random
from numbers import Integral, Real

from .video_errors import VideoTooShort


SAMPLINGS = ("uniform", "dense", "segment")
SHORT_CLIP_POLICIES = ("repeat_last", "loop", "error")
CLIP_DRAWS = ("even", "random")


def sample_clips(
    total_frames,
    num_frames,
    *,
    sampling="uniform",
    frame_stride=1,
    fps=None,
    target_fps=None,
    num_clips=1,
    short_clip_policy="repeat_last",
    clip_draw="even",
    seed=0,
):
    """Return the frames of the clips that a video is tested with. The same arguments always give the same frames.

    Args:
        total_frames: Frames in the video, n >= 1.
        num_frames: Frames per clip, T >= 1.
        sampling: One of `SAMPLINGS`.
        frame_stride: Frames between two frames of a dense clip; the sampling interval of `segment`.
        fps: Frame rate of the video; needed for `target_fps` to have an effect.
        target_fps: Frame rate for which `frame_stride` is meant (dense only).
        num_clips: Clips, K >= 1.
        short_clip_policy: What fills a clip that the video is too short for: `repeat_last` frame, `loop` over the
            frames, or `error`. Under `repeat_last`, `segment` repeats frames in place, as its recipe does.
        clip_draw: One of `CLIP_DRAWS`; a single clip is never drawn.
        seed: Integer or string that decides random draws.

    Returns:
        `num_clips` lists of `num_frames` indices in [0, total_frames), each sorted (but for `loop`).

    Raises:
        ValueError: for arguments out of range.
        VideoTooShort: for a short video under `error`.
    """
    _check(total_frames, num_frames, sampling, frame_stride, fps, target_fps, num_clips, short_clip_policy)
    check_choice("clip_draw", clip_draw, CLIP_DRAWS)
    if clip_draw == "random" and num_clips > 1:
        return [
            sample_train_clip(
                total_frames,
                num_frames,
                sampling=sampling,
                frame_stride=1 if sampling == "segment" else frame_stride,
                fps=fps,
                target_fps=target_fps,
                short_clip_policy=short_clip_policy,
                seed=f"{seed}/{total_frames}/{k}",
            )
            for k in range(num_clips)
        ]
    if sampling == "dense":
        return _dense_clips(
            total_frames, num_frames, _step(frame_stride, fps, target_fps), num_clips, short_clip_policy
        )
    short = _fill_short(total_frames, num_frames, total_frames, 1, short_clip_policy, sampling)
    if short is not None:
        return [list(short) for _ in range(num_clips)]
    if sampling == "segment" and num_clips == 1:
        room = max(total_frames - frame_stride + 1, 0)
        return [[(2 * i + 1) * room // (2 * num_frames) for i in range(num_frames)]]
    return [
        [((2 * num_clips * i + 2 * k + 1) * total_frames) // (2 * num_clips * num_frames) for i in range(num_frames)]
        for k in range(num_clips)
    ]


def sample_train_clip(
    total_frames,
    num_frames,
    *,
    sampling="uniform",
    frame_stride=1,
    fps=None,
    target_fps=None,
    short_clip_policy="repeat_last",
    seed,
):
    """Return the frames of one random clip for training; a function of its arguments and `seed` alone.

    `uniform` draws one frame from each bin, `dense` draws the start, `segment` follows the training recipe of
    Video-FocalNet. Arguments, result and errors are those of `sample_clips`.

    Args:
        seed: Integer or string that decides the draw, such as a hash of (run seed, epoch, index of the video); or a
            `random.Random` to draw from.
    """
    _check(total_frames, num_frames, sampling, frame_stride, fps, target_fps, 1, short_clip_policy)
    generator = seed if isinstance(seed, random.Random) else random.Random(seed)
    if sampling == "dense":
        step = _step(frame_stride, fps, target_fps)
        points = _grid_points(total_frames, step)
        short = _fill_short(points, num_frames, total_frames, step, short_clip_policy, sampling)
        if short is not None:
            return short
        offsets = [math.floor(j * step) for j in range(num_frames)]
        start = generator.randrange(total_frames - offsets[-1])
        return [start + offset for offset in offsets]
    short = _fill_short(total_frames, num_frames, total_frames, 1, short_clip_policy, sampling)
    if short is not None:
        return short
    if sampling == "segment":
        return _segment_train(total_frames, num_frames, frame_stride, generator)
    edges = [i * total_frames // num_frames for i in range(num_frames + 1)]
    return [generator.randrange(low, high) for low, high in zip(edges, edges[1:], strict=False)]


def draw_seed(clip_seed, source):
    """Return the seed of a video's random test clips: the same wherever the file lies, another for every file name."""
    return f"{clip_seed}/{os.path.basename(str(source))}"


def sliding_windows(duration, window, stride):
    """Return (start, end) pairs in seconds that cover [0, duration].

    Windows start at 0, stride, 2 * stride, ...; the one that reaches the end is cut there and is the last.

    Args:
        duration: Seconds, > 0.
        window: Length of a window in seconds, > 0.
        stride: Seconds from one start to the next, > 0.

    Raises:
        ValueError: for values that are not positive and finite.
    """
    for name, value in (("duration", duration), ("window", window), ("stride", stride)):
        if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number of seconds, got {value!r}.")
    windows = []
    # Multiplying instead of adding keeps a long list of starts free of accumulated rounding.
    while (start := len(windows) * stride) < duration - 1e-9:
        end = start + window
        if end >= duration - 1e-9:
            return [*windows, (start, float(duration))]
        windows.append((start, end))
    return windows


def _step(frame_stride, fps, target_fps):
    return frame_stride if fps is None or target_fps is None else frame_stride * fps / target_fps


def _grid_points(total_frames, step):
    """Count the points 0, step, 2 * step, ... whose floor is below `total_frames`."""
    return max(math.ceil(total_frames / step - 1e-9), 1)


def _dense_clips(total_frames, num_frames, step, num_clips, policy):
    points = _grid_points(total_frames, step)
    short = _fill_short(points, num_frames, total_frames, step, policy, "dense")
    if short is not None:
        return [list(short) for _ in range(num_clips)]
    room = points - num_frames
    starts = [room // 2] if num_clips == 1 else [k * room // (num_clips - 1) for k in range(num_clips)]
    return [[_on_grid(start + j, step, total_frames) for j in range(num_frames)] for start in starts]


def _on_grid(point, step, total_frames):
    return min(math.floor(point * step + 1e-9), total_frames - 1)


def _fill_short(points, num_frames, total_frames, step, policy, sampling):
    """Return the clip of a video that offers fewer than `num_frames` points, or None if it offers enough."""
    if points >= num_frames:
        return None
    if policy == "error":
        raise VideoTooShort(
            f"a video of {total_frames} frames",
            f"only {points} of {num_frames} frames at a step of {step:g}",
            "Use short_clip_policy='repeat_last' or 'loop', fewer frames or a smaller stride",
        )
    if policy == "loop":
        return [_on_grid(i % points, step, total_frames) for i in range(num_frames)]
    if sampling == "segment":
        return None
    return [_on_grid(min(i, points - 1), step, total_frames) for i in range(num_frames)]


def _segment_train(total_frames, num_frames, interval, generator):
    room = total_frames - interval + 1
    if room >= num_frames:
        length = room // num_frames
        return [i * length + generator.randrange(length) for i in range(num_frames)]
    if room <= 0:
        return [0] * num_frames
    if total_frames > num_frames:
        return sorted(generator.randrange(room) for _ in range(num_frames))
    return [min(int(round(i * room / num_frames)), total_frames - 1) for i in range(num_frames)]


def check_count(name, value):
    """Raise ValueError for what is no number of things."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, got {value!r}.")


def check_rate(name, value):
    """Raise ValueError for what is no number per second; None means unknown."""
    if value is not None and not (isinstance(value, Real) and math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive number or None, got {value!r}.")


def check_choice(name, value, allowed):
    """Raise ValueError for what is none of the allowed values."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {allowed}, got {value!r}.")


def _check(total_frames, num_frames, sampling, frame_stride, fps, target_fps, num_clips, policy):
    check_count("total_frames", total_frames)
    check_count("num_frames", num_frames)
    check_count("frame_stride", frame_stride)
    check_count("num_clips", num_clips)
    check_rate("fps", fps)
    check_rate("target_fps", target_fps)
    check_choice("sampling", sampling, SAMPLINGS)
    check_choice("short_clip_policy", policy, SHORT_CLIP_POLICIES)
