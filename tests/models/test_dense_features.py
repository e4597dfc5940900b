"""The backbone as a dense feature extractor over a long video: window by window, in constant memory, on the clock of the video."""

import gc
import os

import numpy as np
import psutil
import pytest
import torch

from hf_effvid import EffVidVideoProcessor, VideoFocalNetBackbone, VideoFocalNetConfig, iterate_video, read_video
from hf_effvid.data.synthetic import write_clip


FPS, SECONDS, TICKS, WINDOW = 10, 240, 5, 8
FLASH = (100.2, 101.4)


def long_video(path, flash):
    """Four minutes in which the brightness says the time; with `flash`, a white corner from 100.2 s to 101.4 s."""
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 60, (1, 32, 32, 3), dtype=np.uint8), FPS * SECONDS, axis=0)
    frames += (np.arange(len(frames)) % 150).astype(np.uint8)[:, None, None, None]
    if flash:
        first, last = (round(second * FPS) for second in FLASH)
        frames[first:last, :16, :16] = 255
    write_clip(path, frames, FPS)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long")
    return [long_video(folder / f"{name}.mp4", name == "flash") for name in ("plain", "flash")]


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    config = VideoFocalNetConfig(
        embed_dim=8, depths=[1, 1], focal_levels=[2, 2], focal_windows=[3, 3], initialization="fan_in",
        out_features=["stem", "stage1", "stage2"],
    )  # fmt: skip
    return VideoFocalNetBackbone(config).eval()


PROCESSOR = EffVidVideoProcessor(do_resize=False, do_center_crop=False)


@torch.no_grad()
def pyramid(backbone, frames):
    return backbone(PROCESSOR.transform_clip(frames)[None]).feature_maps


def windows(backbone, path):
    """(times (T,), feature pyramid) of consecutive windows; no more than one window of frames is held."""
    times, frames = [], []
    for seconds, frame in iterate_video(path, target_fps=TICKS):
        times.append(seconds)
        frames.append(frame)
        if len(frames) == WINDOW:
            yield times, pyramid(backbone, torch.stack(frames))
            times, frames = [], []
    if frames:
        yield times, pyramid(backbone, torch.stack(frames))


def test_the_pyramid_keeps_every_step_in_time(backbone, videos):
    times, maps = next(windows(backbone, videos[0]))
    assert [tuple(one.shape) for one in maps] == [(1, 8, 8, 8, 8), (1, 8, 8, 8, 8), (1, 16, 8, 4, 4)]
    assert times == pytest.approx([step / TICKS for step in range(WINDOW)])


@pytest.mark.slow
def test_features_line_up_with_the_clock_in_constant_memory(backbone, videos):
    process, resident, dense = psutil.Process(os.getpid()), [], []
    ticks = []
    for number, (times, maps) in enumerate(windows(backbone, videos[0])):
        ticks += times
        dense.append(maps[-1].mean((3, 4))[0].T)  # (T, C)
        if number % 25 == 0:
            gc.collect()
            resident.append(process.memory_info().rss)
    assert max(resident[1:]) - resident[1] < 20e6, resident
    dense = torch.cat(dense)
    assert len(dense) == len(ticks) == SECONDS * TICKS
    assert ticks == pytest.approx([step / TICKS for step in range(len(ticks))], abs=1e-6)
    # any window, read anew by its times, has the features that stand at its place
    for first in (0, 496, 1192):
        again = read_video(videos[0], start=ticks[first], end=ticks[first] + WINDOW / TICKS, target_fps=TICKS)
        assert again.timestamps.tolist() == pytest.approx(ticks[first : first + WINDOW], abs=1e-6)
        expected = pyramid(backbone, again.frames)[-1].mean((3, 4))[0].T
        torch.testing.assert_close(dense[first : first + WINDOW], expected, atol=1e-5, rtol=1e-5)


def test_an_event_changes_the_features_of_its_window_and_of_no_other(backbone, videos):
    changed = []
    for (times, plain), (_, flashed) in zip(*(windows(backbone, path) for path in videos), strict=True):
        if any((a - b).abs().max() > 1e-3 for a, b in zip(plain, flashed, strict=True)):
            changed.append((times[0], times[-1]))
            # the stem looks at single frames, so it dates the event to the tick
            steps = (plain[0] - flashed[0]).abs().amax((0, 1, 3, 4)) > 1e-3
            assert steps.tolist() == [FLASH[0] - 1e-6 <= seconds < FLASH[1] - 1e-6 for seconds in times]
    assert changed == [(pytest.approx(99.2), pytest.approx(100.6)), (pytest.approx(100.8), pytest.approx(102.2))]
