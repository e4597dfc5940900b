"""The designs of the ablations against their definitions, and what each of them can and cannot know."""

import math

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification, VideoFocalNetModel
from hf_effvid.models.focal_designs import gather_joint_context
from hf_effvid.models.focal_ops import gather_spatial_context, gather_temporal_context


TINY = {
    "embed_dim": 8,
    "depths": [1, 2],
    "focal_levels": [2, 1],
    "focal_windows": [3, 3],
    "num_frames": 4,
    "image_size": 16,
    "num_labels": 5,
    "initialization": "fan_in",
}
DESIGNS = {
    "parallel": {},
    "none": {"temporal_encoding": "none"},
    "sequential": {"temporal_encoding": "sequential"},
    "joint": {"temporal_encoding": "joint"},
    "sum": {"modulator_fusion": "sum"},
    "learned": {"modulator_fusion": "learned"},
}


def make_model(cls=VideoFocalNetForVideoClassification, **options):
    torch.manual_seed(0)
    return cls(VideoFocalNetConfig(**{**TINY, **options})).eval()


def make_clips(batch=2, frames=4, size=16):
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def gelu(value):
    return 0.5 * value * (1 + math.erf(value / math.sqrt(2)))


def joint_by_definition(context, gates, kernels):
    """Site by site; the paper's hierarchical contextualisation with cubes instead of squares."""
    result, (batch, steps, height, width, channels) = torch.zeros_like(context), context.shape
    for b in range(batch):
        volume = context[b]
        for level, kernel in enumerate(kernels):
            half, wider = kernel.shape[-1] // 2, torch.zeros_like(volume)
            for t in range(steps):
                for y in range(height):
                    for x in range(width):
                        for c in range(channels):
                            total = 0.0
                            for dt in range(-half, half + 1):
                                for dy in range(-half, half + 1):
                                    for dx in range(-half, half + 1):
                                        if 0 <= t + dt < steps and 0 <= y + dy < height and 0 <= x + dx < width:
                                            weight = kernel[c, 0, dt + half, dy + half, dx + half].item()
                                            total += weight * volume[t + dt, y + dy, x + dx, c].item()
                            wider[t, y, x, c] = gelu(total)
            volume = wider
            result[b] += volume * gates[b, ..., level, None]
        everywhere = torch.tensor([gelu(mean) for mean in volume.mean(dim=(0, 1, 2)).tolist()], dtype=volume.dtype)
        result[b] += everywhere * gates[b, ..., -1, None]
    return result


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_joint_context_is_its_definition(levels):
    generator = torch.Generator().manual_seed(levels)
    draw = lambda *size: torch.randn(*size, generator=generator, dtype=torch.float64)  # noqa: E731
    context, gates = draw(1, 3, 3, 4, 2), draw(1, 3, 3, 4, levels + 1)
    kernels = [draw(2, 1, *[3 + 2 * level] * 3) for level in range(levels)]
    torch.testing.assert_close(
        gather_joint_context(context, gates, kernels), joint_by_definition(context, gates, kernels)
    )


def by_equation(module, tokens, design):
    """The modulated query as the equations of `focal_designs` say, from the module's weights."""
    channels, levels = tokens.shape[-1], module.num_levels
    divisor = levels + 1 if module.normalize else 1
    query, context, gates = module.projection_in(tokens).split([channels, channels, levels + 1], dim=-1)
    kernels, temporal_kernels = module.kernels
    if design == "joint":
        return query * module.projection_context(gather_joint_context(context, gates, kernels) / divisor)
    m_s = module.projection_context(gather_spatial_context(context, gates, kernels) / divisor)
    if design == "none":
        return query * m_s
    read = tokens
    if design == "sequential":
        read = nn.functional.layer_norm(query * m_s, (channels,), eps=1e-5)  # its weights are 1 and 0 at the start
    context, gates = module.projection_in_temporal(read).split([channels, levels + 1], dim=-1)
    m_t = module.projection_context_temporal(gather_temporal_context(context, gates, temporal_kernels) / divisor)
    if design == "sum":
        return query * (m_s + m_t)
    if design == "learned":
        weight, bias = module.projection_fusion.weight, module.projection_fusion.bias
        return query * (m_s @ weight[:, :channels].T + m_t @ weight[:, channels:].T + bias)
    return query * m_s * m_t


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("design", DESIGNS)
def test_modulation_follows_the_equation_of_its_design(design, normalize):
    model = make_model(VideoFocalNetModel, normalize_modulator=normalize, **DESIGNS[design]).double()
    module = model.encoder.stages[0].layers[0].modulation
    tokens = torch.randn(2, 3 * 4 * 5, 8, dtype=torch.float64)
    output, _ = module(tokens, (3, 4, 5))
    expected = module.projection_out(by_equation(module, tokens.unflatten(1, (3, 4, 5)), design))
    torch.testing.assert_close(output, expected.flatten(1, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("design", DESIGNS)
def test_every_parameter_learns_and_comes_back(design, tmp_path):
    model, clips = make_model(**DESIGNS[design], use_layerscale=True).train(), make_clips()
    model(clips, labels=torch.tensor([0, 3])).loss.backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert without == []
    model.eval().save_pretrained(tmp_path)
    again, report = VideoFocalNetForVideoClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert (again.config.temporal_encoding, again.config.modulator_fusion) == (
        model.config.temporal_encoding,
        model.config.modulator_fusion,
    )
    with torch.no_grad():
        torch.testing.assert_close(again(clips).logits, model(clips).logits, rtol=0, atol=0)


@pytest.mark.parametrize("design", DESIGNS)
def test_all_but_one_see_the_order_of_frames(design):
    model, clips = make_model(**DESIGNS[design]).double(), make_clips().double()
    with torch.no_grad():
        moved = (model(clips).logits - model(clips.flip(1)).logits).abs().max().item()
    assert moved < 1e-12 if design == "none" else moved > 1e-4


@pytest.mark.parametrize("design", DESIGNS)
def test_any_number_of_frames_one_included(design):
    model = make_model(**DESIGNS[design])
    with torch.no_grad():
        assert all(model(make_clips(frames=frames)).logits.isfinite().all() for frames in (1, 7))


@pytest.mark.parametrize("design", DESIGNS)
def test_modulators_mean_what_the_outputs_say(design):
    model = make_model(VideoFocalNetModel, **DESIGNS[design])
    with torch.no_grad():
        outputs = model(make_clips(), output_modulators=True)
    grids, channels, levels = [(4, 4, 4), (4, 2, 2), (4, 2, 2)], [8, 16, 16], [2, 1, 1]
    for kind in ("spatial", "temporal"):
        modulators, gates = getattr(outputs, f"{kind}_modulators"), getattr(outputs, f"{kind}_gates")
        if kind == "temporal" and design in ("none", "joint"):
            assert modulators is None and gates is None
            continue
        assert [tuple(m.shape) for m in modulators] == [(2, *g, c) for g, c in zip(grids, channels, strict=True)]
        assert [tuple(m.shape) for m in gates] == [(2, *g, n + 1) for g, n in zip(grids, levels, strict=True)]


def test_designs_share_every_weight_that_need_not_differ():
    shapes = {}
    for design, options in DESIGNS.items():
        module = make_model(VideoFocalNetModel, **options).encoder.stages[0].layers[0].modulation
        shapes[design] = {name: tuple(value.shape) for name, value in module.named_parameters()}
    own = {name: set(found.items()) - set(shapes["parallel"].items()) for name, found in shapes.items()}
    assert own["none"] == own["sum"] == set() and shapes["sum"] == shapes["parallel"]
    assert own["sequential"] == {("norm_temporal.weight", (8,)), ("norm_temporal.bias", (8,))}
    assert own["learned"] == {("projection_fusion.weight", (8, 16)), ("projection_fusion.bias", (8,))}
    assert own["joint"] == {("joint_kernel_0", (8, 1, 3, 3, 3)), ("joint_kernel_1", (8, 1, 5, 5, 5))}
    assert not [name for name in shapes["joint"] if "spatial" in name or "temporal" in name]


def test_published_start_treats_new_projections_as_the_convolutions_they_stand_beside():
    options = {"initialization": "published", "depths": [1], "focal_levels": [1], "focal_windows": [3]}
    learned = make_model(embed_dim=32, modulator_fusion="learned", **options)
    fusion = learned.video_focalnet.encoder.stages[0].layers[0].modulation.projection_fusion
    assert 0.9 / 8 < fusion.weight.abs().max() <= 1 / 8 and fusion.bias.any()
    joint = make_model(embed_dim=32, temporal_encoding="joint", **options)
    kernel = joint.video_focalnet.encoder.stages[0].layers[0].modulation.joint_kernel_0
    assert 0.9 / math.sqrt(27) < kernel.abs().max() <= 1 / math.sqrt(27)


@pytest.mark.parametrize("value", ["factorised", "", None])
@pytest.mark.parametrize("name", ["temporal_encoding", "modulator_fusion"])
def test_unknown_values_are_refused(name, value):
    with pytest.raises(StrictDataclassError, match=name):
        VideoFocalNetConfig(**{name: value})


@pytest.mark.parametrize("design", ["none", "sequential", "joint"])
def test_a_fusion_needs_two_parallel_modulators(design, tmp_path):
    message = "combines the two modulators"
    with pytest.raises(StrictDataclassError, match=message):
        VideoFocalNetConfig(temporal_encoding=design, modulator_fusion="sum")
    make_model(temporal_encoding=design).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):  # set after the configuration's own check
        VideoFocalNetForVideoClassification.from_pretrained(tmp_path, modulator_fusion="sum")


@pytest.mark.parametrize("design", ["sequential", "joint"])
def test_designs_export_with_any_batch_size(design):
    model = make_model(**DESIGNS[design])
    shapes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
    exported = torch.export.export(model, (make_clips(batch=2),), dynamic_shapes=shapes).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(make_clips(batch=3))["logits"], model(make_clips(batch=3)).logits)
