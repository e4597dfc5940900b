"""Pictures and the overlay video: written with what they should show, on one scale, whatever the text."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_effvid import EffVidVideoProcessor, probe_video, read_video
from hf_effvid.explanation import explain_clip
from hf_effvid.explanation.contact_sheet import plot_contact_sheet
from hf_effvid.explanation.heat import HEAT_COLOURS, lay_over, scale_of, step_of_frame
from hf_effvid.explanation.overlay import write_overlay
from hf_effvid.explanation.rendering import render_explanation, seen_frames

from .test_modulators import tiny


FRAMES = torch.randint(0, 255, (4, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_low_sites_show_the_frame_and_high_sites_the_colour():
    maps = torch.zeros(4, 2, 3)
    maps[1, 0, 0] = 5.0
    laid = lay_over(FRAMES, maps, (0.0, 5.0))
    assert laid.shape == (4, 32, 48, 3) and laid.dtype == np.uint8
    brightest = HEAT_COLOURS[-1]
    corner, other = laid[1, 0, 0].astype(float), laid[0, 0, 0].astype(float)
    assert np.abs(corner - brightest).max() < 100 < np.abs(other - brightest).max()
    grey = laid[0].astype(int)
    assert np.abs(grey[..., 0] - grey[..., 1]).max() <= 3, "where a map is low the frame is grey"


def test_one_scale_for_several_maps():
    low, high = scale_of([torch.ones(4, 8, 8), torch.full((4, 8, 8), 3.0)])
    assert (low, high) == (1.0, 3.0)
    assert scale_of([torch.ones(1, 2, 2)]) == (0.0, 1.0) and scale_of([torch.zeros(1, 2, 2)])[1] > 0


@given(st.integers(1, 40), st.integers(1, 40))
def test_every_frame_has_a_step(num_frames, num_steps):
    steps = step_of_frame(num_frames, num_steps)
    assert len(steps) == num_frames and steps == sorted(steps) and 0 <= steps[0] and steps[-1] <= num_steps - 1
    if num_frames % num_steps == 0:
        assert [steps.count(step) for step in range(num_steps)] == [num_frames // num_steps] * num_steps


@pytest.mark.parametrize("encoding", ["parallel", "none"])
def test_all_files_are_written(tmp_path, encoding):
    explanation = explain_clip(tiny(temporal_encoding=encoding), torch.randn(1, 4, 3, 32, 48), block=0)
    seconds = [0.0, 0.5, 1.0, 1.5]
    files = render_explanation(explanation, FRAMES, tmp_path / "a b", title="class $x^2$ <b>\n", seconds=seconds)
    assert sorted(files) == ["contact_sheet", "gates", "overlay"]
    sheet = np.asarray(Image.open(files["contact_sheet"]).convert("RGB"))
    gates = np.asarray(Image.open(files["gates"]).convert("RGB"))
    assert sheet.shape[0] > 300 and sheet.std() > 10 and gates.std() > 10
    info = probe_video(files["overlay"])
    assert (info.num_frames, info.fps) == (4, 2.0)
    panels = 3 if encoding == "parallel" else 2
    assert info.width >= panels * 360


def test_the_overlay_shows_the_frames_in_order(tmp_path):
    frames = torch.zeros(5, 3, 40, 40, dtype=torch.uint8)
    for index in range(5):
        frames[index] += 50 * index
    path = write_overlay(tmp_path / "o.mp4", frames, {"map": torch.ones(5, 2, 2)}, weights=[0.2] * 5)
    seen = read_video(path).frames.float()
    values = seen[:, :, 80:280, 30:230].mean((1, 2, 3)).tolist()
    assert values == pytest.approx([0, 50, 100, 150, 200], abs=6)


def test_long_titles_and_slow_clips_are_cut_down(tmp_path):
    title = "a very long label " * 40
    path = write_overlay(
        tmp_path / "o.mp4", FRAMES, {"map": torch.ones(4, 2, 3)}, title=title, seconds=[0.0, 9e2, 1.8e3, 2.7e3]
    )
    info = probe_video(path)
    assert (info.num_frames, info.fps) == (4, 2.0)
    # white where the title has to end
    assert read_video(path).frames[0, :, 6:28, -9:].float().min() > 200
    short, long = (tmp_path / f"{name}.png" for name in ("short", "long"))
    explanation = explain_clip(tiny(), torch.randn(1, 4, 3, 32, 48))
    for picture, text in ((short, "short"), (long, title)):
        plot_contact_sheet(picture, FRAMES, explanation, title=text)
    assert Image.open(short).size == Image.open(long).size


@pytest.mark.parametrize("change", [{}, {"do_normalize": False}, {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}])
def test_the_frames_of_the_model_come_back_exactly(change):
    processor = EffVidVideoProcessor(num_frames=4, do_resize=False, do_center_crop=False, **change)
    pixels = processor(FRAMES, do_sample_frames=False)["pixel_values"][0]
    assert torch.equal(seen_frames(processor, pixels), FRAMES)
