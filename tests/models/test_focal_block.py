"""A block in pieces gives what its operations give one after the other, and only where nobody would notice the difference."""

import copy
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.models import focal_block, focal_ops, focal_processor, processor_libraries
from hf_effvid.models.fast_temporal_convolution import PAIRS
from hf_effvid.models.focal_ops import focal_implementation
from hf_effvid.models.processor_libraries import onednn_can
from hf_effvid.models.video_focalnet_layers import VideoFocalNetLayer


DOUBLE = ("channels_last", torch.float64)
SETTINGS = [DOUBLE, ("channels_last", torch.float32), ("channels_last", torch.bfloat16)]
SETTINGS += [("onednn", dtype) for dtype in (torch.float32, torch.bfloat16) if onednn_can(dtype)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 0.05}
ON_PROCESSOR = ["channels_last"] + ["onednn"] * onednn_can(torch.float32)

blocks = st.fixed_dictionaries(
    {
        "temporal_encoding": st.sampled_from(["parallel", "none"]),
        "normalize_modulator": st.booleans(),
        "use_layerscale": st.booleans(),
        "use_postln": st.booleans(),
        "use_postln_in_modulation": st.booleans(),
        "layerscale_value": st.just(0.5),
    }
)


def make_block(channels=8, levels=2, window=3, seed=0, drop_path_rate=0.0, dtype=torch.float32, **options):
    config = VideoFocalNetConfig(embed_dim=channels, **options)
    layer = VideoFocalNetLayer(config, channels, levels, window, drop_path_rate).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter.copy_(0.5 + 0.3 * torch.randn(parameter.shape, generator=generator))
            else:
                scale = parameter[0].numel() ** -0.5
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return layer.to(dtype)


def make_tokens(batch, grid, channels, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, grid[0] * grid[1] * grid[2], channels, generator=generator, dtype=torch.float64).to(
        dtype
    )


@pytest.fixture
def whole(monkeypatch):
    """Blocks that were computed as one."""
    calls, run = [], focal_processor.focal_block
    monkeypatch.setattr(focal_processor, "focal_block", lambda *arguments: calls.append(arguments) or run(*arguments))
    monkeypatch.setattr(focal_ops, "_failed", set())
    return calls


@pytest.mark.parametrize(("name", "dtype"), SETTINGS)
@settings(max_examples=25, deadline=None)
@given(
    options=blocks,
    batch=st.integers(1, 3),
    grid=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    channels=st.integers(2, 12),
    levels=st.integers(0, 3),
    window=st.sampled_from([1, 3, 5]),
    piece_bytes=st.sampled_from([100, 1000, 1 << 20]),
    fewer_products=st.booleans(),
    contiguous=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_it_is_its_operations(
    name, dtype, options, batch, grid, channels, levels, window, piece_bytes, fewer_products, contiguous, seed
):
    layer = make_block(channels, levels, window, seed, dtype=dtype, **options)
    tokens = make_tokens(batch, grid, channels, seed, dtype)
    if not contiguous:
        tokens = torch.cat([tokens, tokens], dim=-1)[..., :channels]
    before = tokens.clone()
    with torch.no_grad():
        exact = copy.deepcopy(layer).double()
        reference, _ = exact._by_operation(tokens.double(), grid)
        with (
            focal_implementation(name),
            mock.patch.object(focal_ops, "_failed", set()),
            mock.patch.object(layer, "_by_operation", side_effect=AssertionError("was not done as one")),
            mock.patch.multiple(focal_block, PIECE_BYTES=piece_bytes, MLP_PIECE_BYTES=piece_bytes, WEIGHT_MULTIPLE=0),
            mock.patch.object(processor_libraries, "is_faster", lambda *call: fewer_products and call[-1] in PAIRS),
            mock.patch.object(processor_libraries, "pays", return_value=True),
        ):
            result, shown = layer(tokens, grid)
    assert shown is None and result.dtype == dtype and result.shape == tokens.shape
    assert torch.equal(tokens, before)
    allowed = TOLERANCE[dtype] * reference.abs().max().clamp(min=1.0)
    if dtype == torch.bfloat16:  # layer norms of two or three channels make much of rounding, whoever rounds
        with torch.no_grad():
            allowed += 3 * (layer._by_operation(tokens, grid)[0].double() - reference).abs().max()
    assert (result.double() - reference).abs().max() <= allowed


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_pieces_change_nothing(name):
    layer, tokens, grid = make_block(32, dtype=torch.float32), make_tokens(2, (4, 6, 6), 32), (4, 6, 6)
    with torch.no_grad(), focal_implementation(name):
        whole, _ = layer(tokens, grid)
        with mock.patch.multiple(focal_block, PIECE_BYTES=4000, MLP_PIECE_BYTES=16000, WEIGHT_MULTIPLE=0):
            in_pieces, _ = layer(tokens, grid)
        apart, _ = layer._by_operation(tokens, grid)
    torch.testing.assert_close(in_pieces, whole, rtol=0, atol=1e-6)
    torch.testing.assert_close(apart, whole, rtol=0, atol=1e-6)


def test_it_needs_little_memory(whole):
    """Beside its result, nothing as large: half a dozen such tensors come and go operation by operation."""
    grid, channels = (8, 28, 28), 96
    layer, tokens = make_block(channels), make_tokens(1, grid, channels)
    with mock.patch.multiple(focal_block, PIECE_BYTES=100_000, MLP_PIECE_BYTES=100_000, WEIGHT_MULTIPLE=0):
        peaks = {}
        for name, run in {"block": layer, "operations": layer._by_operation}.items():
            with torch.no_grad(), focal_implementation("channels_last"):
                run(tokens, grid)
                with torch.profiler.profile(
                    activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
                ) as profiler:
                    run(tokens, grid)
            held = peak = 0
            for event in profiler.profiler.kineto_results.events():
                if event.name() == "[memory]":
                    held += event.nbytes()
                    peak = max(peak, held)
            peaks[name] = peak / tokens.nbytes
    assert whole and peaks["block"] < 1.7
    assert peaks["operations"] > 4


def model_and_clips(batch=1, **options):
    torch.manual_seed(0)
    config = VideoFocalNetConfig(embed_dim=8, depths=[1, 1], focal_levels=[2, 1], focal_windows=[3, 5], **options)
    return VideoFocalNetForVideoClassification(config).eval(), torch.randn(batch, 4, 3, 40, 24)


NUM_BLOCKS = 2


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_every_block_of_an_ordinary_network_is_one(name, whole):
    model, clips = model_and_clips()
    with torch.no_grad(), focal_implementation(name):
        model(clips)
        assert len(whole) == NUM_BLOCKS
        model(clips, output_hidden_states=True)
        assert len(whole) == 2 * NUM_BLOCKS
        model.train()  # nothing is dropped in these
        for module in model.modules():
            if hasattr(module, "rate"):
                module.rate = 0.0
        model(clips)
    assert len(whole) == 3 * NUM_BLOCKS


def with_gradients(model):
    return {}


def explained(model):
    return {"output_modulators": True}


def in_training(model):
    model.train()
    for module in model.modules():
        if hasattr(module, "rate"):
            module.rate = 0.5
    return {}


def hooked(part):
    def change(model):
        for name, module in model.named_modules():
            if name.endswith(part):
                module.register_forward_hook(lambda module, inputs, output: output)
        return {}

    return change


def another_mlp(model):
    for stage in model.video_focalnet.encoder.stages:
        stage.layers[0].mlp = nn.Sequential(stage.layers[0].mlp.fc1, nn.ReLU(), stage.layers[0].mlp.fc2)
    return {}


def another_norm(model):
    for stage in model.video_focalnet.encoder.stages:
        layer = stage.layers[0]
        layer.norm1 = nn.RMSNorm(layer.norm1.normalized_shape)
    return {}


def another_drop_path(model):
    for stage in model.video_focalnet.encoder.stages:
        stage.layers[0].drop_path = Kept()
    return {}


class Kept(nn.Module):
    def forward(self, hidden_states, num_frames):
        return hidden_states


PARTS = ["modulation", "mlp", "norm1", "norm2", "drop_path", "dropout", "projection_out", "modulation.norm", "fc1"]


@pytest.mark.parametrize("name", ON_PROCESSOR)
@pytest.mark.parametrize(
    "change",
    [with_gradients, explained, in_training, another_mlp, another_norm, another_drop_path, *map(hooked, PARTS)],
    ids=["gradients", "explained", "training", "another mlp", "another norm", "another drop path", *PARTS],
)
def test_it_stays_away_where_somebody_would_notice(name, change, whole):
    model, clips = model_and_clips()
    arguments = change(model)
    with torch.set_grad_enabled(change is with_gradients), focal_implementation(name):
        model(clips, **arguments)
    assert not whole


@pytest.mark.parametrize(
    "options",
    [{"temporal_encoding": "joint"}, {"temporal_encoding": "sequential"}]
    + [{"modulator_fusion": fusion} for fusion in ("sum", "learned")],
)
def test_ablations_are_done_operation_by_operation(options, whole):
    model, clips = model_and_clips(**options)
    with torch.no_grad(), focal_implementation("channels_last"):
        model(clips)
    assert not whole


def test_compilers_and_exports_see_operations(whole):
    """Not even what it takes to find out, which looks into modules as no compiler can."""
    model, clips = model_and_clips()
    seen = mock.patch.object(VideoFocalNetLayer, "is_plain", side_effect=AssertionError("was looked for"))
    with torch.no_grad(), focal_implementation("channels_last"), seen:
        compiled = torch.compile(model.video_focalnet.encoder.stages[0], fullgraph=True, backend="eager")
        compiled(torch.randn(1, 4 * 6 * 5, 8), (4, 6, 5))
        exported = torch.export.export(model.video_focalnet.encoder.stages[0], (torch.randn(1, 120, 8), (4, 6, 5)))
        model.to("meta")(clips.to("meta"))
    assert not whole and exported is not None


@pytest.mark.parametrize("name", ON_PROCESSOR)
@pytest.mark.parametrize("layerscale", [False, True])
def test_autocast_is_as_good_as_the_composite(name, layerscale, whole):
    model, clips = model_and_clips(
        8, use_layerscale=layerscale, layerscale_value=0.5, initialization="fan_in", num_labels=20
    )
    with torch.no_grad():
        exact = model(clips).logits
        errors, types = {}, {}
        for chosen in ("composite", name):
            with torch.autocast("cpu", torch.bfloat16), focal_implementation(chosen):
                outputs = model(clips, output_hidden_states=True)
            types[chosen] = [state.dtype for state in outputs.hidden_states]
            errors[chosen] = (outputs.logits.float() - exact).square().mean().sqrt()
    assert len(whole) == NUM_BLOCKS
    assert types[name] == types["composite"]
    assert errors[name] <= 1.5 * errors["composite"]


@pytest.mark.parametrize("name", ON_PROCESSOR)
def test_a_failure_falls_back_with_a_line(name, whole, monkeypatch):
    model, clips = model_and_clips()
    lines = []
    monkeypatch.setattr(focal_ops.logger, "warning_once", lines.append)
    with torch.no_grad(), focal_implementation("composite"):
        expected = model(clips).logits

    def fail(*arguments):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(focal_processor, "focal_block", fail)
    with torch.no_grad(), focal_implementation(name):
        for _ in range(2):
            torch.testing.assert_close(model(clips).logits, expected)
    assert len(lines) == 1 and f"{name} failed at block on cpu in torch.float32 (RuntimeError: no such" in lines[0]
