"""Interpolated positions: untouched at the native size, right elsewhere, refused where impossible."""

import pytest
import torch
from transformers import VideoMAEForVideoClassification, ViTConfig, ViTForImageClassification

from hf_effvid.pipelines import PositionInterpolationError, interpolate_positions
from hf_effvid.pipelines.position_interpolation import module_with, resize_grid

from .hosts import FRAMES, HOSTS, SIZE, randomise, timesformer, video_focalnet, videomae, videoprism, vivit, vjepa2


def pixels(num_frames=FRAMES, size=SIZE):
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(2, num_frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def logits_of(model, clip):
    with torch.no_grad():
        return model(**{model.main_input_name: clip}).logits.flatten(1)


@pytest.mark.parametrize("host", HOSTS)
def test_native_size_is_bit_equal(host):
    model, _ = HOSTS[host]()
    before = logits_of(model, pixels())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert interpolate_positions(model, num_frames=FRAMES, image_size=SIZE) is model
    assert torch.equal(logits_of(model, pixels()), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("num_frames", "size"), [(8, SIZE), (2, SIZE), (FRAMES, 48), (6, 24)])
def test_other_sizes_run(host, num_frames, size):
    model, _ = HOSTS[host]()
    interpolate_positions(model, num_frames=num_frames, image_size=size)
    logits = logits_of(model, pixels(num_frames, size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()


def test_a_constant_table_stays_constant():
    table = torch.full((1, 3 * 5 * 7, 4), 0.25)
    torch.testing.assert_close(resize_grid(table, (3, 5, 7), (6, 2, 9)), torch.full((1, 6 * 2 * 9, 4), 0.25))
    assert resize_grid(table, (3, 5, 7), (3, 5, 7)) is table


def test_a_linear_table_is_interpolated_linearly_and_other_axes_keep_their_values():
    times = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(1, 4, 3, 5, 2).reshape(1, 60, 2).contiguous()
    doubled = resize_grid(times, (4, 3, 5), (8, 3, 5)).reshape(8, 3, 5, 2)
    assert torch.equal(doubled, doubled[:, :1, :1, :1].expand_as(doubled))
    # half-pixel centres: new frame j lies at (j + 1/2) / 2 - 1/2 of the old ones, clamped at both ends
    expected = ((torch.arange(8) + 0.5) / 2 - 0.5).clamp(0, 3)
    torch.testing.assert_close(doubled[:, 0, 0, 0], expected)
    places = torch.randn(1, 60, 2, generator=torch.Generator().manual_seed(0))
    longer = resize_grid(places, (1, 12, 5), (1, 12, 10)).reshape(12, 10, 2)
    rows = resize_grid(places.reshape(12, 5, 2)[3].reshape(1, 5, 2), (1, 1, 5), (1, 1, 10))
    torch.testing.assert_close(longer[3], rows[0])


def test_class_positions_are_kept():
    for build in (vivit, timesformer):
        model, _ = build()
        before = module_with(model, "position_embeddings").position_embeddings[:, 0].clone()
        interpolate_positions(model, image_size=48)
        assert torch.equal(module_with(model, "position_embeddings").position_embeddings[:, 0], before)


def test_saved_models_open_at_the_new_size(tmp_path):
    for build in (vivit, timesformer, videoprism, vjepa2, video_focalnet):
        model, _ = build()
        interpolate_positions(model, num_frames=8, image_size=48)
        model.save_pretrained(tmp_path / build.__name__)
        loaded = type(model).from_pretrained(tmp_path / build.__name__)
        assert torch.equal(logits_of(loaded, pixels(8, 48)), logits_of(model, pixels(8, 48)))


def test_videomae_remembers_where_its_table_comes_from(tmp_path):
    model, _ = videomae()
    interpolate_positions(model, num_frames=8, image_size=48)
    model.save_pretrained(tmp_path)
    loaded = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert loaded.config.positions_trained_at == [FRAMES, SIZE, SIZE]
    assert not torch.equal(logits_of(loaded, pixels(8, 48)), logits_of(model, pixels(8, 48)))
    interpolate_positions(loaded)
    assert torch.equal(logits_of(loaded, pixels(8, 48)), logits_of(model, pixels(8, 48)))


@pytest.mark.parametrize("build", [videomae, vivit, timesformer, videoprism, vjepa2])
def test_there_and_back(build):
    model, _ = build()
    if build is not videomae:  # a learned table is overwritten: it comes back only if it is smooth
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(("position_embeddings", "time_embeddings")):
                    parameter.fill_(0.3)
    before = logits_of(model, pixels())
    interpolate_positions(model, num_frames=8, image_size=64)
    interpolate_positions(model, num_frames=FRAMES, image_size=SIZE)
    if build is videomae:
        assert torch.equal(logits_of(model, pixels()), before)
    torch.testing.assert_close(logits_of(model, pixels()), before)


def test_rectangles():
    for build in (videomae, vivit):
        model, _ = build()
        interpolate_positions(model, image_size=(24, 40))
        assert logits_of(model, pixels(size=(24, 40))).shape == (2, 7)
    with pytest.raises(PositionInterpolationError, match="square"):
        interpolate_positions(HOSTS["vjepa2"]()[0], image_size=(24, 40))


@pytest.mark.parametrize("host", ["videomae", "vivit", "vjepa2"])
def test_sizes_that_do_not_fit_the_patches_are_refused(host):
    model, _ = HOSTS[host]()
    for wrong in ({"num_frames": 5}, {"image_size": 33}, {"image_size": 4}):
        with pytest.raises(PositionInterpolationError, match="multiples"):
            interpolate_positions(model, **wrong)
    assert torch.isfinite(logits_of(model, pixels())).all()


def test_unknown_hosts_are_refused_unless_nothing_changes():
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = randomise(ViTForImageClassification(config))
    assert interpolate_positions(model, image_size=32) is model
    with pytest.raises(PositionInterpolationError, match="'vit'"):
        interpolate_positions(model, image_size=48)


def test_half_precision_tables_keep_their_type():
    model, _ = vivit()
    model = model.to(torch.bfloat16)
    interpolate_positions(model, num_frames=8)
    assert model.dtype == torch.bfloat16
    assert logits_of(model, pixels(8).bfloat16()).dtype == torch.bfloat16


def test_a_host_that_selects_tokens_is_resized_like_the_stock_one():
    from hf_effvid import LiteVideoMAEForVideoClassification

    stock, _ = videomae()
    lite = LiteVideoMAEForVideoClassification(
        LiteVideoMAEForVideoClassification.config_class(**stock.config.to_dict())
    )
    lite.load_state_dict(stock.state_dict(), strict=False)
    for model in (stock, lite.eval()):
        interpolate_positions(model, num_frames=6, image_size=24)
    torch.testing.assert_close(logits_of(lite, pixels(6, 24)), logits_of(stock, pixels(6, 24)), rtol=0, atol=0)
