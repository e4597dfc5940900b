"""Models that a benchmark of token selection compares: VideoMAE with tokens selected, merged, or frames left out, on the same weights.

An arm's name says what it is: `full`, `random 0.5` (any scorer and its keep ratio), `tome r=118` (`plain` behind it: attention counts a merged
token once), `sta 0.3` (merging at the multiply-accumulates of that keep ratio), `frames 8` (evenly left out), `choosing alone`.
"""

import copy
from functools import partial

import torch
from torch import nn
from transformers import VideoMAEForVideoClassification

from ..models.configuration_lite_videomae import LiteVideoMAEConfig
from ..models.merging_videomae import merge_tokens
from ..models.modeling_lite_videomae import LiteVideoMAEForVideoClassification
from ..models.token_merging_cost import merging_gmacs, r_for_macs, selection_gmacs
from ..models.token_selection import gather_tokens, num_kept_tokens, top_k_indices
from .benchmark_variants import BenchmarkVariant


FULL, CHOOSING = "full", "choosing alone"


class FewerFrames(nn.Module):
    """A model that looks at every n-th frame of the clips that the others get."""

    def __init__(self, model, step):
        super().__init__()
        self.model, self.step = model, step

    def forward(self, pixel_values):
        return self.model(pixel_values[:, :: self.step])


class Choosing(nn.Module):
    """Selector, top-k and gather on embeddings that are made once for each shape, outside of what is timed."""

    def __init__(self, lite, keep_ratio):
        super().__init__()
        self.selector, self.num_tokens = lite.selector, lite.videomae.embeddings.num_patches
        self.width, self.kept = lite.config.hidden_size, num_kept_tokens(self.num_tokens, keep_ratio)
        self._embeddings = {}

    def forward(self, pixel_values):
        key = (len(pixel_values), pixel_values.dtype, pixel_values.device)
        if key not in self._embeddings:
            self._embeddings[key] = pixel_values.new_zeros(len(pixel_values), self.num_tokens, self.width).normal_()
        embeddings = self._embeddings[key]
        return gather_tokens(embeddings, top_k_indices(self.selector(embeddings), self.kept))


def with_weights(model_class, config, weights, device):
    """A model with these very tensors as its weights, and its positions where it runs."""
    with torch.device("meta"):
        model = model_class(config)
    model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
    embeddings = model.videomae.embeddings
    # VideoMAE keeps this table on the processor and copies it in every pass, which no CUDA graph can hold
    embeddings.position_embeddings = embeddings.position_embeddings.to(device)
    return model.eval()


def make_arm(name, config, weights, device):
    """The model of an arm, on shared weights.

    Raises:
        ValueError: it cannot be made at this size, for example a merger that does not reach its budget.
    """
    config = copy.deepcopy(config)
    kind, _, value = name.partition(" ")
    if name == CHOOSING:
        lite = LiteVideoMAEConfig(**config.to_diff_dict())
        return Choosing(with_weights(LiteVideoMAEForVideoClassification, lite, weights, device), 0.5)
    if kind == "frames":
        step = config.num_frames // int(value)
        config.num_frames = int(value)
        return FewerFrames(with_weights(VideoMAEForVideoClassification, config, weights, device), step)
    if kind in ("tome", "sta"):
        stock = with_weights(VideoMAEForVideoClassification, config, weights, device)
        return merge_tokens(stock, kind, number_merged(name, config), proportional_attention="plain" not in name)
    if name == FULL:
        return with_weights(VideoMAEForVideoClassification, config, weights, device)
    settings = config.to_diff_dict() | {"keep_ratio": float(value), "scorer": kind, "selector_trained": True}
    return with_weights(LiteVideoMAEForVideoClassification, LiteVideoMAEConfig(**settings), weights, device)


def number_merged(name, config):
    """r of a merging arm: given, or the one that costs what keeping a share of the tokens costs."""
    kind, value = name.split()[:2]
    if value.startswith("r="):
        return int(value[2:])
    return r_for_macs(config, kind, selection_gmacs(config, float(value)))


def speed_variants(arms, size, config, device):
    """Variants to benchmark, the full model first, on one set of random weights.

    Args:
        arms: names, without `full`.
        size: what the names of the variants begin with, after `videomae-`.
        config: a `VideoMAEConfig`.
        device: where positions are kept.

    Returns:
        The variants, and remarks: the r of mergers, and which arms this size cannot have.
    """
    torch.manual_seed(0)
    weights = LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**config.to_diff_dict())).state_dict()
    shape = (config.num_frames, config.num_channels, config.image_size, config.image_size)
    variants, remarks = [], []
    for name in [FULL, *arms]:
        try:
            r = number_merged(name, config) if name.split()[0] in ("tome", "sta") else None
        except ValueError as error:
            remarks.append(f"{name} is left out: {error}")
            continue
        if r is not None:
            remarks.append(
                f"{name}: r = {r}, {merging_gmacs(config, name.split()[0], r):.4g} GMACs with the search for pairs"
            )
        make = partial(make_arm, name, config, weights, device)
        variants.append(BenchmarkVariant(f"videomae-{size}, {name}", make, clip_shape=shape))
    return variants, remarks
