"""The temporal shift: what moves where, in every way in which it is computed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.temporal_shift import FramePass, clip_borders, shift_both_ways, shift_from_past


def expected_shift(frames, fold, num_frames, causal, past=None):
    """Frame by frame, as the paper draws it."""
    shifted = frames.clone()
    for index in range(len(frames)):
        clip, time = divmod(index, num_frames)
        before = frames[index - 1] if time > 0 else torch.zeros_like(frames[index])
        after = frames[index + 1] if time < num_frames - 1 else torch.zeros_like(frames[index])
        if causal:
            shifted[index, :fold] = past[clip] if past is not None and time == 0 else before[:fold]
        else:
            shifted[index, :fold] = after[:fold]
            shifted[index, fold : 2 * fold] = before[fold : 2 * fold]
    return shifted


@settings(max_examples=40, deadline=None)
@given(
    clips=st.integers(1, 3),
    num_frames=st.integers(1, 5),
    channels=st.integers(2, 9),
    div=st.integers(2, 4),
    causal=st.booleans(),
    with_past=st.booleans(),
    gradients=st.booleans(),
)
def test_every_frame_gets_its_neighbours(clips, num_frames, channels, div, causal, with_past, gradients):
    frames = torch.randn(clips * num_frames, channels, 2, 3, generator=torch.Generator().manual_seed(0))
    fold = channels // div
    past = torch.randn(clips, fold, 2, 3) if with_past and causal else None
    frame_pass = FramePass(num_frames, *clip_borders(clips, num_frames, frames.device))
    with torch.set_grad_enabled(gradients):
        shifted = (
            shift_from_past(frames, fold, frame_pass, past) if causal else shift_both_ways(frames, fold, frame_pass)
        )
    torch.testing.assert_close(shifted, expected_shift(frames, fold, num_frames, causal, past), rtol=0, atol=0)


@pytest.mark.parametrize("causal", [False, True])
def test_channels_last_stays(causal):
    frames = torch.randn(8, 16, 4, 6).to(memory_format=torch.channels_last)
    frame_pass = FramePass(4, *clip_borders(2, 4, frames.device))
    with torch.no_grad():
        shifted = (shift_from_past if causal else shift_both_ways)(frames, 2, frame_pass)
    assert shifted.is_contiguous(memory_format=torch.channels_last)


def test_nothing_in_the_graph_has_more_than_four_axes():
    """Compilers of phones know no more."""

    class Shift(torch.nn.Module):
        def forward(self, frames):
            return shift_both_ways(frames, 2, FramePass(4, *clip_borders(2, 4, frames.device)))

    graph = torch.export.export(Shift(), (torch.randn(8, 16, 4, 6),)).graph
    shapes = [node.meta["val"].shape for node in graph.nodes if hasattr(node.meta.get("val"), "shape")]
    assert shapes and max(map(len, shapes)) == 4
