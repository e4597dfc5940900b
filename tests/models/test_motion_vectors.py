"""Motion vectors of real files: an object that moves must be found where it is, upright, after resizing and cropping."""

import numpy as np
import pytest
import torch

from hf_effvid.models.motion_vectors import (
    MotionVectorsUnavailable,
    lengths_per_cell,
    motion_vector_tokens,
    read_motion,
)
from hf_effvid.models.token_selection import ScorerInputs, TokenGrid, score_tokens
from hf_effvid.models.video_errors import VideoNotFound
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor
from tests.video_corpus.cases import MIRRORS, ROTATIONS
from tests.video_corpus.encode import encode
from tests.video_corpus.mp4_edit import set_matrix


WIDTH, HEIGHT, SIDE, STEP = 160, 96, 32, 4


def moving_square(num_frames=16, top=48):
    """A still, textured background, and a textured square that moves right by 4 pixels per frame along the lower half."""
    generator = np.random.default_rng(0)
    background = np.kron(generator.integers(60, 120, (HEIGHT // 4, WIDTH // 4, 3)), np.ones((4, 4, 1))).astype(
        np.uint8
    )
    square = np.kron(generator.integers(0, 255, (SIDE // 4, SIDE // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    frames = []
    for index in range(num_frames):
        frame = background.copy()
        frame[top : top + SIDE, 16 + STEP * index : 16 + STEP * index + SIDE] = square
        frames.append(frame)
    return frames


def video(codec="libx264", container="mp4", num_frames=16, **options):
    settings = {"g": "8", "bf": "0"} if codec == "libx264" else {"g": "8"}
    frames = moving_square(num_frames)
    return encode(
        container, codec, size=(WIDTH, HEIGHT), frames=frames, num_frames=num_frames, options=settings | options
    )


def processor(**recipe):
    settings = {"num_frames": 8, "size": {"height": HEIGHT, "width": WIDTH}, "crop_size": {"height": 96, "width": 96}}
    return EffVidVideoProcessor(**settings | {"do_center_crop": False} | recipe)


def centre(scores):
    """(row, column) of the centre of motion of a map."""
    rows, columns = torch.meshgrid(*(torch.arange(n).float() for n in scores.shape), indexing="ij")
    return [(scores * axis).sum().item() / scores.sum().item() for axis in (rows, columns)]


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {}),
        ("libx264", "matroska", {"bf": "2"}),
        ("libx264", "flv", {}),
        ("mpeg4", "avi", {}),
        ("mpeg2video", "mpegts", {}),
    ],
)
def test_the_tokens_of_a_moving_object_score_highest(codec, container, options):
    grid = (4, 6, 10)  # (16 frames / 2 sampled) / 2, 96 / 16, 160 / 16
    scores = motion_vector_tokens(video(codec, container, **options), processor(), tubelet_size=2, patch_size=16)
    assert scores.shape == (1, 240) and scores.dtype == torch.float32 and (scores >= 0).all()
    for t, frame in enumerate(scores[0].view(grid)):
        # sampled frames of the step: 4 t + 1 and 4 t + 3
        middle = (16 + STEP * (4 * t + 2) + SIDE / 2) / 16 - 0.5
        row, column = centre(frame)
        assert row == pytest.approx((48 + SIDE / 2) / 16 - 0.5, abs=0.6) and column == pytest.approx(middle, abs=0.8)
        best = frame.flatten().topk(4).indices
        assert {int(place) // 10 for place in best} <= {3, 4}
        assert max(abs(int(place) % 10 - middle) for place in best) <= 2
        assert frame[:2].max() < 0.25 * frame.max()


def test_lengths_are_pixels_per_frame():
    # one reference frame: a vector that reaches over three frames would be three times as long
    clip = read_motion(video(refs="1"), indices=[2, 3])
    assert clip.indices == clip.donors == [2, 3] and clip.lengths.shape == (2, 1, HEIGHT, WIDTH)
    inside = clip.lengths[1, 0, 52:76, 16 + 12 + 8 : 16 + 12 + 24]
    assert inside.median().item() == pytest.approx(STEP, abs=0.5)
    assert clip.lengths[1, 0, :32].median().item() == 0


def test_key_frames_take_the_vectors_of_the_next_frame():
    clip = read_motion(video(), indices=[0, 7, 8, 15])
    assert clip.donors == [1, 7, 9, 15]
    assert torch.equal(clip.lengths[0], read_motion(video(), indices=[1]).lengths[0])


@pytest.mark.parametrize("degrees", [*ROTATIONS, *MIRRORS])
@pytest.mark.parametrize("matrices", [ROTATIONS, MIRRORS], ids=["rotated", "mirrored"])
def test_maps_are_upright_like_the_frames(degrees, matrices):
    stored = read_motion(video(num_frames=6), indices=[3]).lengths
    turned = read_motion(set_matrix(video(num_frames=6), matrices[degrees]), indices=[3])
    expected = stored.flip(3) if matrices is MIRRORS else stored
    assert torch.equal(turned.lengths, torch.rot90(expected, -degrees // 90, (2, 3)))
    assert turned.lengths.shape[2:] == (turned.info.height, turned.info.width)


def test_frames_and_crops_are_those_of_the_processor():
    """The object's own colour, put through the processor, must lie where its motion lies: every view of a multi-view test."""
    recipe = processor(
        do_center_crop=True, size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48}, num_clips=2, num_crops=3,
        num_frames=4, sampling="dense",
    )  # fmt: skip
    data = video()
    still = np.stack(moving_square())
    batch = recipe(data, multi_view=True, return_metadata=True)
    scores = motion_vector_tokens(data, recipe, tubelet_size=2, patch_size=8, multi_view=True)
    assert scores.shape == (batch["pixel_values"].shape[0], 2 * 6 * 6)
    # where the object is, known from how the file was made, cut by the same processor from frames in memory
    known = np.zeros((16, HEIGHT, WIDTH, 3), np.uint8)
    for index in range(16):
        known[index, 48 : 48 + SIDE, 16 + STEP * index : 16 + STEP * index + SIDE] = 255
    assert still.shape == known.shape
    masks = recipe(list(known), multi_view=True, do_normalize=False)["pixel_values"][:, :, 0]
    cells = masks.reshape(6, 2, 2, 6, 8, 6, 8).mean((2, 4, 6)).flatten(1)
    visible = cells.amax(1) > 0.5
    assert visible.sum() >= 3 and not visible.all()
    for row in range(6):
        if visible[row]:
            assert torch.corrcoef(torch.stack([scores[row], cells[row]]))[0, 1] > 0.7
        else:
            assert scores[row].max() <= 0.3 * scores.max()


def test_a_part_of_the_video():
    data, recipe = video(num_frames=24), processor(num_frames=4)
    part = motion_vector_tokens(data, recipe, start=1.0)
    indices = recipe(data, start=1.0, return_metadata=True)["video_metadata"][0].frames_indices
    lengths = read_motion(data, indices=indices).lengths
    assert min(indices) >= 12
    torch.testing.assert_close(part, lengths.reshape(2, 2, 6, 16, 10, 16).mean((1, 3, 5)).reshape(1, -1))


def test_it_feeds_the_scorer():
    data, recipe = [video(), video("mpeg4", "avi")], processor()
    pixels = recipe(data)["pixel_values"]
    tokens = motion_vector_tokens(data, recipe)
    inputs = ScorerInputs(TokenGrid(4, 6, 10), pixels, 2, (16, 16), extras={"motion_vectors": tokens})
    assert torch.equal(score_tokens("motion_vectors", inputs), tokens)


@pytest.mark.parametrize(("codec", "container"), [("libvpx-vp9", "webm"), ("mjpeg", "avi")])
def test_codecs_without_vectors_are_a_typed_error_or_the_named_fallback(codec, container, caplog):
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    data = encode(container, codec, pixel_format, size=(WIDTH, HEIGHT), frames=moving_square(8), num_frames=8)
    with pytest.raises(MotionVectorsUnavailable, match="gives no motion vectors.*frame_difference"):
        motion_vector_tokens(data, processor())
    pixels = processor()(data)["pixel_values"]
    inputs = ScorerInputs(TokenGrid(4, 6, 10), pixels, 2, (16, 16))
    found = motion_vector_tokens([data], processor(), fallback="frame_difference")
    assert torch.equal(found, score_tokens("frame_difference", inputs))


def test_a_still_video_has_no_motion():
    data = encode(size=(WIDTH, HEIGHT), frames=[moving_square(1)[0]] * 8, num_frames=8, options={"bf": "0"})
    assert motion_vector_tokens(data, processor()).max() == 0


def test_what_has_no_stream_is_refused(tmp_path):
    frames = torch.zeros(8, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    for source in (frames, list(frames.numpy())):
        with pytest.raises(MotionVectorsUnavailable, match="Give the video file"):
            motion_vector_tokens(source, processor())
    with pytest.raises(MotionVectorsUnavailable):
        read_motion(frames)
    with pytest.raises(VideoNotFound):
        motion_vector_tokens(tmp_path / "none.mp4", processor(), fallback="frame_difference")
    with pytest.raises(ValueError, match="isolate=True is not possible"):
        motion_vector_tokens(video(), processor(), isolate=True)
    with pytest.raises(ValueError, match="fallback must be"):
        motion_vector_tokens(video(), processor(), fallback="zeros")
    with pytest.raises(TypeError, match="expected an EffVidVideoProcessor"):
        motion_vector_tokens(video(), object())


def test_blocks_cover_cells():
    kind = [(name, "i4") for name in ("w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")]
    vectors = np.array([(8, 8, 4, 4, 12, 16, 4), (4, 8, 2, 4, 0, 0, 4), (16, 16, 16, 0, 6, 8, 2)], kind)
    # 5 pixels, and 0 on its left half: 2.5 there; 5 pixels on a block that reaches beyond the top and the right side
    assert lengths_per_cell(vectors, 12, 18).tolist() == [[2.5, 5, 5, 5, 5], [2.5, 5, 5, 5, 5], [0, 0, 0, 0, 0]]
    assert lengths_per_cell(vectors[:0], 5, 4).tolist() == [[0.0], [0.0]]
