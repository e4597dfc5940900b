# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""One block of Video-FocalNet on the processor without gradients: one new tensor of its size, everything else in pieces.

    y = x + s1 out(q(n) * m_space(n) * m_time(n)),  n = LN(x);    result = y + s2 MLP(LN(y))

(with layer norms after modulation and MLP instead, where a configuration asks for that).

Operation by operation, half a dozen tensors as large as x come and go. The C library gives blocks of that size back to the system and
gets them again as pages to be cleared, which in the first stage takes as long as the products. Here the modulation in space goes over
some frames at a time, that in time over some sites at a time, the MLP over some rows at a time, and each writes its part of the result
where it belongs. The numbers are those of the same operations one after the other.
"""

import functools
import math

import torch

from .fast_temporal_convolution import temporal_convolution_gelu
from .focal_branch import gated_sum, in_space, in_time
from .processor_libraries import in_one_type


# What is worked on at a time, for each thread, in bytes of one tensor: what a core's own caches hold, more or less. It is also what
# the C library hands out again and again.
PIECE_BYTES = 2 << 20
MLP_PIECE_BYTES = 2 << 20
# ... but several times the size of the weights, which every piece rearranges anew
WEIGHT_MULTIPLE = 4


def focal_block(library, layer, hidden_states, grid):
    """The block's output for tokens (B, T * N, C) on a grid (T, H, W).

    `library`: one of `processor_libraries`. `layer`: a `VideoFocalNetLayer` that `is_plain()`.
    """
    hidden_states = hidden_states.contiguous()
    result = torch.empty_like(hidden_states, dtype=_result_type(layer, hidden_states))
    _modulate(library, layer, hidden_states, grid, result)
    _add_mlp(library, layer, result)
    return result


def num_mlp_pieces(rows, weight):
    """In how many pieces an MLP goes over so many rows. `weight`: (hidden, C), of its first layer."""
    return _num_pieces(rows * weight.shape[0] * weight.element_size(), MLP_PIECE_BYTES, weight.nbytes)


def _num_pieces(num_bytes, piece_bytes, weight_bytes):
    """Each piece rearranges the weights anew, so it has to be several times as large as they are."""
    return max(1, math.ceil(num_bytes / max(piece_bytes * torch.get_num_threads(), WEIGHT_MULTIPLE * weight_bytes)))


def _result_type(layer, hidden_states):
    """What sums of the tokens and the branches have: under autocast, branches and scales may be of other types than the tokens."""
    others = (*in_one_type(layer.modulation.projection_out.weight), layer.layer_scale1, layer.layer_scale2)
    return functools.reduce(
        torch.promote_types, [tensor.dtype for tensor in others if tensor is not None], hidden_states.dtype
    )


def _modulate(library, layer, hidden_states, grid, result):
    """Writes y into the result."""
    (steps, height, width), (batch, _, channels) = grid, hidden_states.shape
    modulation, (spatial_kernels, temporal_kernels) = layer.modulation, layer.modulation.kernels
    in_time_too = modulation.projection_in_temporal is not None
    kernels = temporal_kernels if in_time_too else spatial_kernels
    pieces = _num_pieces(hidden_states.nbytes, PIECE_BYTES, sum(kernel.nbytes for kernel in kernels))
    # one piece is normalised once for both branches; several are too much to keep
    before, _ = _norms(layer.norm1, layer.use_postln)
    normed = before(hidden_states) if pieces == 1 else None
    frames, tracks = (batch * steps, height, width, channels), (batch, steps, height * width, channels)
    divisor = len(kernels) + 1 if modulation.normalize else 1

    finish = functools.partial(_finish, library, layer, _linear(modulation.projection_out))
    space = in_space(list(in_one_type(*spatial_kernels)), divisor)
    query, *contexts = _parts_of(modulation.projection_in, channels, channels)
    project = _linear(modulation.projection_context)
    for tokens, residual, target in _pieces((normed, hidden_states, result), frames, pieces, 0, before):
        modulator = _modulator(library, space, tokens, *contexts, project)
        modulated = library.linear(tokens, *query, False)
        if not in_time_too:
            finish(modulated.mul_(modulator), residual, target)
        else:
            torch.mul(modulated, modulator, out=target)
    if not in_time_too:
        return

    time = in_time(in_one_type(*temporal_kernels), divisor)
    context, gates = _parts_of(modulation.projection_in_temporal, channels)
    folded = None
    if time.kernels:
        folded = library.folded(*context, temporal_kernels[0], steps, batch * height * width)
    if folded is not None:
        time, context = time._replace(first=functools.partial(_convolve, library, folded)), None
    project = _linear(modulation.projection_context_temporal)
    for tokens, residual, target in _pieces((normed, hidden_states, result), tracks, pieces, 2, before):
        modulated = _modulator(library, time, tokens, context, gates, project).mul_(target)
        finish(modulated, residual, target)


def _modulator(library, branch, tokens, context, gates, project):
    """Projection of the gated sum for normalised tokens. `context`: weight and bias; None where the first convolution has them."""
    gates = library.linear(tokens, *gates, False)
    # nothing here keeps the projected context, which is as large as the piece: the sum lets go of it after its first level
    gathered = gated_sum(
        library, branch, tokens if context is None else library.linear(tokens, *context, False), gates, False
    )
    return library.linear(gathered, *project, False)


def _finish(library, layer, project, modulated, residual, target):
    """Writes x + s1 out(...) where it belongs."""
    _, after = _norms(layer.norm1, layer.use_postln)
    branch = after(library.linear(*in_one_type(layer.modulation.norm(modulated)), *project, False))
    torch.add(residual, branch if layer.layer_scale1 is None else branch * layer.layer_scale1, out=target)


def _add_mlp(library, layer, result):
    """Adds the MLP's output to y, in place."""
    before, after = _norms(layer.norm2, layer.use_postln)
    expand, contract = _linear(layer.mlp.fc1), _linear(layer.mlp.fc2)
    rows = result.view(-1, result.shape[-1])
    for piece in rows.chunk(num_mlp_pieces(len(rows), expand[0])):
        hidden = library.linear_gelu(*in_one_type(before(piece)), *expand, False)
        branch = after(library.linear(hidden, *contract, False))
        piece.add_(branch if layer.layer_scale2 is None else branch * layer.layer_scale2)


def _norms(norm, postln):
    """What is done before and after a branch."""
    return (_as_it_is, norm) if postln else (norm, _as_it_is)


def _as_it_is(tokens):
    return tokens


def _convolve(library, folded, tokens):
    return temporal_convolution_gelu(tokens, folded.kernel, library, folded.tap_biases)


def _linear(module):
    return in_one_type(module.weight, module.bias)


def _parts_of(module, *sizes):
    """Weights and biases of the parts of a linear layer, the last of which is what the sizes leave."""
    weight, bias = _linear(module)
    sizes = [*sizes, len(weight) - sum(sizes)]
    biases = [None] * len(sizes) if bias is None else bias.split(sizes)
    return list(zip(weight.split(sizes), biases, strict=True))


def _pieces(tensors, shape, pieces, dim, norm):
    """(normalised tokens, residual, target) of each piece; tokens that have not been normalised are None and are here."""
    normed, *others = tensors
    views = [tensor.view(shape) for tensor in others]
    if normed is not None:
        yield (*in_one_type(normed.view(shape)), *views)
        return
    for residual, target in zip(*(view.chunk(pieces, dim) for view in views), strict=True):
        yield (*in_one_type(norm(residual).contiguous()), residual, target)
