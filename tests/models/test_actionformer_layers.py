"""The parts of ActionFormer against their equations, written out step by step for one video without padding."""

import math

import pytest
import torch

from hf_effvid import ActionFormerConfig, ActionFormerModel
from hf_effvid.models.actionformer_layers import ActionFormerConvolutionLayer, ActionFormerLayer
from hf_effvid.models.modeling_actionformer import ActionFormerEmbeddings, ActionFormerNeck


def make_config(**options):
    fields = {
        "input_size": 4,
        "hidden_size": 6,
        "num_attention_heads": 2,
        "num_stem_layers": 1,
        "num_branch_layers": 2,
    }
    return ActionFormerConfig(**{**fields, "attention_window": 3, "num_labels": 2, **options})


def drawn(module, seed=0):
    """The module in double precision with every parameter drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def draw(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normed(x, norm):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def convolved(x, weight, bias=None, stride=1):
    """(T, C_in) to (ceil(T / stride), C_out): a sum over the taps of the kernel, zeros outside."""
    steps, half = len(x), weight.shape[2] // 2
    rows = []
    for center in range(0, steps, stride):
        row = torch.zeros(weight.shape[0], dtype=x.dtype)
        for tap in range(weight.shape[2]):
            if 0 <= center + tap - half < steps:
                seen = x[center + tap - half]
                row = row + (weight[:, 0, tap] * seen if weight.shape[1] == 1 else weight[:, :, tap] @ seen)
        rows.append(row if bias is None else row + bias)
    return torch.stack(rows)


def attended(attention, x, stride):
    """Depth-wise convolution, LayerNorm, linear layer for q, k and v; softmax over the window; output layer."""
    q, k, v = (
        normed(convolved(x, conv.weight, stride=stride), norm) @ linear.weight.T + linear.bias
        for conv, norm, linear in (
            (attention.query_convolution, attention.query_norm, attention.query),
            (attention.key_convolution, attention.key_norm, attention.key),
            (attention.value_convolution, attention.value_norm, attention.value),
        )
    )
    steps, size = len(q), attention.head_size
    radius = attention.window // 2 if attention.window else steps
    output = torch.zeros_like(q)
    for head in range(attention.num_heads):
        part = slice(head * size, (head + 1) * size)
        for step in range(steps):
            near = [other for other in range(steps) if abs(other - step) <= radius]
            scores = k[near, part] @ q[step, part] / math.sqrt(size)
            if attention.relative_bias is not None:
                scores = scores + attention.relative_bias[head, [other - step + radius for other in near]]
            output[step, part] = scores.softmax(0) @ v[near, part]
    return output @ attention.output.weight.T + attention.output.bias


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [3, None])
@pytest.mark.parametrize("relative", [False, True])
def test_transformer_block(stride, window, relative):
    layer = drawn(ActionFormerLayer(make_config(use_relative_positions=relative), stride, window))
    x = draw(7, 6)
    pooled = x if stride == 1 else torch.stack([x[max(0, i - 1) : i + 2].amax(0) for i in range(0, 7, 2)])
    h = pooled + layer.layer_scale1 * attended(layer.attention, normed(x, layer.norm1), stride)
    inner = torch.nn.functional.gelu(normed(h, layer.norm2) @ layer.mlp.fc1.weight.T + layer.mlp.fc1.bias)
    expected = h + layer.layer_scale2 * (inner @ layer.mlp.fc2.weight.T + layer.mlp.fc2.bias)
    mask = torch.ones(1, 7, dtype=torch.bool)
    torch.testing.assert_close(layer(x[None], mask, mask[:, ::stride], False)[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_block(stride):
    layer = drawn(ActionFormerConvolutionLayer(make_config(), stride, None))
    x = draw(7, 6)
    branch = convolved(x, layer.convolution1.weight, layer.convolution1.bias, stride).relu()
    branch = convolved(branch, layer.convolution2.weight, layer.convolution2.bias)
    skip = x
    if stride == 2:
        skip = x[::2] @ layer.downsample.weight[..., 0].T + layer.downsample.bias
    mask = torch.ones(1, 7, dtype=torch.bool)
    found = layer(x[None], mask, mask[:, ::stride], False)[0]
    torch.testing.assert_close(found, (branch + skip).relu(), rtol=1e-9, atol=1e-9)


def test_embedding_of_two_kinds_of_features_with_positions():
    config = make_config(
        input_size=[3, 1], projection_sizes=[4, 2], use_absolute_positions=True, max_sequence_length=16
    )
    embeddings = drawn(ActionFormerEmbeddings(config))
    x = draw(9, 4)
    first, second = embeddings.projections
    states = torch.cat([x[:, :3] @ first.weight.T + first.bias, x[:, 3:] @ second.weight.T + second.bias], dim=1)
    for layer in embeddings.layers:
        states = normed(convolved(states, layer.convolution.weight), layer.norm).relu()
    for step in range(9):
        for channel in range(6):
            angle = step / 10000 ** (2 * (channel // 2) / 6)
            wave = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            states[step, channel] += wave / math.sqrt(6)
    found = embeddings(x[None], torch.ones(1, 9, dtype=torch.bool))[0]
    torch.testing.assert_close(found, states, rtol=1e-6, atol=1e-6)


def test_feature_pyramid():
    """Levels of 7, 4 and 2 steps: step i of a finer level gets step i // 2 of the coarser one."""
    neck = drawn(ActionFormerNeck(make_config(neck_type="fpn", neck_size=5)))
    levels = [draw(steps, 6, seed=steps) for steps in (7, 4, 2)]
    summed = [states @ lateral.weight.T for states, lateral in zip(levels, neck.laterals, strict=True)]
    for fine, coarse in ((1, 2), (0, 1)):
        for step in range(len(summed[fine])):
            summed[fine][step] += summed[coarse][step // 2]
    masks = [torch.ones(1, len(states), dtype=torch.bool) for states in levels]
    found = neck([states[None] for states in levels], masks)
    for states, convolution, norm, ours in zip(summed, neck.convolutions, neck.norms, found, strict=True):
        torch.testing.assert_close(ours[0], normed(convolved(states, convolution.weight), norm), rtol=1e-9, atol=1e-9)


def test_windows_per_level():
    model = ActionFormerModel(make_config(attention_window=[5, 3, -1]))
    blocks = [*model.encoder.stem, *model.encoder.branch]
    assert [block.attention.window for block in blocks] == [5, 3, None]
    assert [block.stride for block in blocks] == [1, 2, 2]


def test_stochastic_depth_leaves_out_branches_of_whole_videos():
    layer = drawn(ActionFormerLayer(make_config(drop_path_rate=0.5), 1, 3)).train()
    x, mask = draw(64, 5, 6), torch.ones(64, 5, dtype=torch.bool)
    torch.manual_seed(0)
    with torch.no_grad():
        untouched = (layer(x, mask, mask, False) == x).flatten(1).all(dim=1)
    # both branches of a video are left out with probability 1/4
    assert 5 < untouched.sum() < 30
