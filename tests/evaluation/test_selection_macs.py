"""Multiply-accumulates of VideoMAE-B with token selection: counted, by formula, and as the paper prints them."""

import math

import pytest
import torch

from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.models.token_merging_cost import selection_gmacs
from hf_effvid.models.token_selection import num_kept_tokens

from ..models.tiny_videomae import NUM_TOKENS, TINY_VIDEOMAE


# keep ratio -> tokens, GMACs of a view of 16 x 224 x 224 with 400 classes, what the paper prints as GFLOPs (rounded up)
PAPER = {
    1.0: (1568, 180.345, 181),
    0.9: (1411, 158.389, 159),
    0.7: (1097, 117.204, 118),
    0.5: (784, 79.768, 80),
    0.3: (470, 45.841, 46),
}


def count(model, keep_ratio, scorer):
    config = model.config
    config.keep_ratio, config.scorer = keep_ratio, scorer
    clip = torch.empty(1, config.num_frames, 3, config.image_size, config.image_size, device="meta")
    counted = count_macs(model, {"pixel_values": clip})
    assert counted.on_meta and not counted.uncounted
    return counted.total


@pytest.fixture(scope="module")
def small():
    with torch.device("meta"):
        return LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**TINY_VIDEOMAE)).eval()


@pytest.fixture(scope="module")
def videomae_base():
    with torch.device("meta"):
        return LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(num_labels=400)).eval()


@pytest.mark.parametrize("keep_ratio", PAPER)
def test_the_formula_gives_what_the_paper_prints(keep_ratio):
    tokens, gmacs, printed = PAPER[keep_ratio]
    config = LiteVideoMAEConfig(num_labels=400)
    assert num_kept_tokens(1568, keep_ratio) == tokens
    assert selection_gmacs(config, keep_ratio) == pytest.approx(gmacs, abs=1e-3)
    assert math.ceil(selection_gmacs(config, keep_ratio)) == printed


@pytest.mark.parametrize("keep_ratio", [1.0, 0.7, 0.3, 0.01])
def test_the_counter_agrees_with_the_formula(small, keep_ratio):
    counted = count(small, keep_ratio, "embedding_norm")
    assert counted == round(selection_gmacs(small.config, keep_ratio) * 1e9)


@pytest.mark.slow
@pytest.mark.parametrize("keep_ratio", PAPER)
def test_the_counter_agrees_with_the_formula_at_the_size_of_videomae_base(videomae_base, keep_ratio):
    counted = count(videomae_base, keep_ratio, "embedding_norm")
    assert counted == round(selection_gmacs(videomae_base.config, keep_ratio) * 1e9)


@pytest.mark.slow
def test_the_selector_costs_two_thousandths_of_videomae_base(videomae_base):
    selector = count(videomae_base, 0.5, "lite") - count(videomae_base, 0.5, "embedding_norm")
    assert selector == 1568 * (768 * 256 + 256 * 128 + 128)
    assert selector / count(videomae_base, 1.0, "lite") == pytest.approx(0.002, abs=1e-4)


@pytest.mark.parametrize("scorer", ["random", "stratified", "grid", "frame_difference", "run_length"])
def test_scorers_without_embeddings_embed_the_kept_patches_alone(small, scorer):
    saved = count(small, 0.25, "embedding_norm") - count(small, 0.25, scorer)
    assert saved == (NUM_TOKENS - NUM_TOKENS // 4) * 32 * 3 * 2 * 8 * 8
