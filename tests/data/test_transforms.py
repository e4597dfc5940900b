import json

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvF
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.data.color_and_shape import RANDAUGMENT_OPERATIONS, adjust_color, apply_randaugment
from hf_effvid.data.transforms import AugmentationConfig, TrainTransform, random_crop_box
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


@pytest.fixture
def frames():
    return torch.randint(0, 256, (5, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def transform(processor, allow_flip=True, **fields):
    return TrainTransform(processor, AugmentationConfig.from_preset("none", **fields), allow_flip=allow_flip)


@pytest.mark.parametrize("preset", ["none", "light", "recipe", "strong"])
def test_every_preset_gives_normalised_clips_of_the_models_size(frames, processor, preset):
    clip = TrainTransform(processor, AugmentationConfig.from_preset(preset))(frames, seed=1)
    assert clip.shape == (5, 3, 24, 24) and clip.dtype == torch.float32
    assert clip.isfinite().all() and -3 < clip.min() < clip.max() < 3


def test_none_is_the_recipe_itself(frames, processor):
    assert torch.equal(transform(processor)(frames, seed=1), processor.transform_clip(frames))


@pytest.mark.parametrize("preset", ["light", "recipe", "strong"])
def test_frames_of_a_clip_are_treated_alike(frames, processor, preset):
    """A still clip stays still, and a frame's place in the clip does not matter."""
    augment = TrainTransform(processor, AugmentationConfig.from_preset(preset))
    for seed in range(12):
        still = augment(frames[:1].expand(5, -1, -1, -1), seed)
        assert torch.equal(still, still[:1].expand_as(still)), seed
        backwards = augment(frames.flip(0), seed)
        assert torch.allclose(backwards.flip(0), augment(frames, seed), atol=1e-6), seed


def test_crops_vary_and_stay_the_same_for_a_seed(frames, processor):
    augment = transform(processor, scale=(0.2, 0.8))
    clips = [augment(frames, seed) for seed in (1, 2, 1)]
    assert torch.equal(clips[0], clips[2]) and not torch.equal(clips[0], clips[1])


def test_flips(frames, processor):
    augment = transform(processor, flip_probability=1.0)
    assert torch.equal(augment(frames, 1), processor.transform_clip(frames.flip(-1)))
    assert torch.equal(transform(processor, False, flip_probability=1.0)(frames, 1), processor.transform_clip(frames))
    half = [torch.equal(transform(processor, flip_probability=0.5)(frames, s), augment(frames, s)) for s in range(200)]
    assert 70 < sum(half) < 130


def test_grayscale_and_erasing(frames, processor):
    gray = transform(processor, grayscale_probability=1.0)(frames, 1)
    values = gray * torch.tensor(processor.image_std).view(3, 1, 1) + torch.tensor(processor.image_mean).view(3, 1, 1)
    assert torch.allclose(values[:, 0], values[:, 2], atol=1e-5)
    erased = transform(processor, erasing_probability=1.0)(frames, 1) == 0
    box = erased.all(dim=(0, 1))
    assert 0.01 < box.float().mean() < 0.4
    rows, columns = box.any(1).nonzero().flatten(), box.any(0).nonzero().flatten()
    assert box.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)


def test_colours_may_flicker_from_frame_to_frame(frames, processor):
    still = frames[:1].expand(5, -1, -1, -1)
    options = {"color_jitter_probability": 1.0, "brightness": 0.4, "hue": 0.1}
    flickering = transform(processor, color_per_frame=True, **options)(still, seed=3)
    assert len({frame.numpy().tobytes() for frame in flickering}) == 5
    assert torch.equal(flickering, transform(processor, color_per_frame=True, **options)(still, seed=3))
    # the first frame is what a clip that is treated alike shows in all of its frames
    assert torch.equal(transform(processor, **options)(still, seed=3), flickering[:1].expand_as(flickering))
    # whether colours change at all is decided once per clip
    half = transform(processor, color_per_frame=True, **options | {"color_jitter_probability": 0.5})
    plain = processor.transform_clip(still)
    changed = [(half(still, seed) != plain).flatten(1).any(1).tolist() for seed in range(40)]
    assert {tuple(frames) for frames in changed} == {(True,) * 5, (False,) * 5}


def test_erasing_with_noise_is_one_picture_for_all_frames(frames, processor):
    plain = transform(processor)(frames, 1)
    noisy = transform(processor, erasing_probability=1.0, erasing_fill="noise")(frames, 1)
    box = (noisy != plain).all(dim=(0, 1))
    assert torch.equal(box, (transform(processor, erasing_probability=1.0)(frames, 1) == 0).all(dim=(0, 1)))
    inside = noisy[..., box]
    assert torch.equal(inside, inside[:1].expand_as(inside)) and 0.5 < inside.std() < 1.5
    assert torch.equal(noisy[..., ~box], plain[..., ~box])


def test_randaugment_may_be_done_sometimes_and_at_varying_strength(frames, processor):
    plain = processor.transform_clip(frames)
    never = transform(processor, randaugment_operations=2, randaugment_probability=0.0)
    assert all(torch.equal(never(frames, seed), plain) for seed in range(10))
    always, sometimes = (
        transform(processor, randaugment_operations=1, randaugment_probability=probability)
        for probability in (1.0, 0.5)
    )
    changes = [
        seed for seed in range(200) if not torch.equal(always(frames, seed), plain)
    ]  # "identity" changes nothing
    done = sum(not torch.equal(sometimes(frames, seed), plain) for seed in changes) / len(changes)
    assert len(changes) > 120 and 0.38 < done < 0.62
    fixed, varying = ({"randaugment_operations": 2, "randaugment_std": std} for std in (0.0, 0.5))
    clips = [[transform(processor, **fields)(frames, seed) for seed in range(8)] for fields in (fixed, varying)]
    assert any(not torch.equal(a, b) for a, b in zip(*clips, strict=True))


def test_decode_size_leaves_room_for_the_crop(processor):
    assert transform(processor).decode_size is None
    assert transform(processor, scale=(0.5, 1.0)).decode_size == 28  # 1.15 x 24, rounded up
    uncropped = EffVidVideoProcessor(do_center_crop=False, size={"shortest_edge": 24})
    with pytest.raises(ValueError, match="fixed crop size"):
        transform(uncropped, scale=(0.5, 1.0))
    square = EffVidVideoProcessor(do_center_crop=False, size={"height": 16, "width": 20})
    assert transform(square, scale=(0.5, 1.0)).crop_size == (16, 20)


@pytest.mark.parametrize("operation", RANDAUGMENT_OPERATIONS)
def test_randaugment_operations(frames, operation):
    for seed in range(4):
        changed = apply_randaugment(frames, operation, 8, np.random.default_rng(seed))
        assert changed.shape == frames.shape and changed.dtype == torch.uint8
        if operation == "identity":
            assert torch.equal(changed, frames)
    nothing = apply_randaugment(frames, operation, 0, np.random.default_rng(0))
    if operation not in ("autocontrast", "equalize"):  # these two have no strength
        assert torch.equal(nothing, frames)


@pytest.mark.parametrize(
    "operation",
    ["identity", "brightness", "contrast", "saturation", "posterize", "solarize", "autocontrast", "equalize"],
)
def test_colour_operations_treat_equal_colours_equally_in_all_frames(operation):
    """Also when frames differ in their statistics: contrast is that of the clip."""
    clip = torch.full((2, 3, 8, 8), 60, dtype=torch.uint8)
    clip[0, :, :4] = 120
    clip[1, :, :4] = 250
    changed = apply_randaugment(clip, operation, 6, np.random.default_rng(1))
    assert torch.equal(changed[0, :, 4:], changed[1, :, 4:])


def test_unknown_operations_are_refused(frames):
    with pytest.raises(ValueError, match="invert"):
        apply_randaugment(frames, "invert", 5, np.random.default_rng(0))


def test_colour_jitter_agrees_with_torchvision(frames):
    class Fixed:
        """Gives chosen amounts and keeps the order of the operations."""

        def __init__(self, *values):
            self.values = list(values)

        def uniform(self, low, high):
            return self.values.pop(0)

        def permutation(self, names):
            return names

    found = adjust_color(frames[:1], Fixed(1.3, 0.8, 0.5, 0.1), 0.4, 0.4, 0.6, 0.2)
    expected = tvF.adjust_saturation(tvF.adjust_contrast(tvF.adjust_brightness(frames[:1], 1.3), 0.8), 0.5)
    assert torch.equal(found, tvF.adjust_hue(expected, 0.1))


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 90),
    st.integers(1, 90),
    st.floats(0.01, 1),
    st.floats(0.2, 1),
)
def test_boxes_lie_inside(seed, height, width, low, ratio):
    box = random_crop_box(np.random.default_rng(seed), height, width, (low, 1.0), (ratio, 1 / ratio))
    top, left, box_height, box_width = box
    assert 0 <= top <= top + box_height <= height and 0 <= left <= left + box_width <= width
    assert box_height > 0 and box_width > 0


def test_boxes_have_the_areas_and_ratios_asked_for():
    rng = np.random.default_rng(0)
    boxes = [random_crop_box(rng, 100, 100, (0.25, 0.5), (0.5, 2.0)) for _ in range(300)]
    areas = [height * width / 1e4 for _, _, height, width in boxes]
    ratios = [width / height for _, _, height, width in boxes]
    assert 0.24 < min(areas) < 0.27 and 0.48 < max(areas) < 0.52
    assert 0.48 < min(ratios) < 0.6 and 1.7 < max(ratios) < 2.1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flip_probability": 1.5}, "flip_probability"),
        ({"scale": (0.5, 0.2)}, "scale"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"hue": 0.7}, "hue"),
        ({"mixup_alpha": -1}, "mixup_alpha"),
        ({"randaugment_magnitude": 11}, "randaugment_magnitude"),
        ({"decode_scale": 0.5}, "decode_scale"),
    ],
)
def test_settings_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**fields)


def test_presets_have_names_and_settings_survive_json():
    with pytest.raises(ValueError, match="none, light, recipe, strong"):
        AugmentationConfig.from_preset("heavy")
    config = AugmentationConfig.from_preset("recipe", flip_probability=0.1)
    assert AugmentationConfig(**json.loads(json.dumps(config.to_dict()))) == config
    assert [AugmentationConfig.from_preset(name).mixes for name in ("none", "light", "recipe")] == [False, False, True]
