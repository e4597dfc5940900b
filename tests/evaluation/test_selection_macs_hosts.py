"""Multiply-accumulates of ViViT, V-JEPA 2 and TimeSformer with token selection: counted and by formula, for one view."""

import pytest
import torch

from hf_effvid import (
    LiteTimesformerConfig,
    LiteTimesformerForVideoClassification,
    LiteVivitConfig,
    LiteVivitForVideoClassification,
    LiteVJEPA2Config,
    LiteVJEPA2ForVideoClassification,
)
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.models.token_selection import num_kept_tokens


WIDTH, LAYERS, LABELS = 768, 12, 174
# LITE's paper prints 180 / 158 / 117 / 79 / 45 / 15 for TimeSformer-B, which is joint attention; divided would be 196 at P = 1
TIMESFORMER_JOINT = {1.0: 179.563, 0.9: 157.601, 0.7: 116.405, 0.5: 78.957, 0.3: 45.018, 0.1: 14.714}
TIMESFORMER_DIVIDED = {1.0: 195.830, 0.9: 175.452, 0.7: 136.053, 0.5: 97.103, 0.3: 57.620, 0.1: 19.579}
VIVIT = {1.0: 451.525, 0.9: 390.361, 0.7: 279.103, 0.5: 182.337, 0.3: 99.944, 0.1: 32.186}
VJEPA2 = {1.0: 935.243, 0.9: 821.059, 0.7: 606.634, 0.5: 411.255, 0.3: 233.966, 0.1: 75.267}


def blocks(tokens, attended):
    """MACs of blocks on `tokens` tokens in sequences of `attended`: 12 n d^2 of the linear layers and 2 n m d of attention."""
    return LAYERS * (12 * tokens * WIDTH**2 + 2 * tokens * attended * WIDTH)


def joint(keep_ratio, num_tokens=1568, patch_values=3 * 16 * 16):
    tokens = num_kept_tokens(num_tokens, keep_ratio) + 1
    return num_tokens * WIDTH * patch_values + blocks(tokens, tokens) + WIDTH * LABELS


def divided(keep_ratio, frames=8, places=196):
    kept = num_kept_tokens(places, keep_ratio)
    over_time = LAYERS * (5 * frames * kept * WIDTH**2 + 2 * kept * frames**2 * WIDTH)
    # the class token is attended in every frame and has one MLP
    over_space = LAYERS * (4 * frames * (kept + 1) * WIDTH**2 + 2 * frames * (kept + 1) ** 2 * WIDTH)
    mlp = LAYERS * 8 * (frames * kept + 1) * WIDTH**2
    return frames * places * WIDTH * 3 * 16 * 16 + over_time + over_space + mlp + WIDTH * LABELS


def count(model, keep_ratio, scorer="embedding_norm", shape=(8, 3, 224, 224)):
    model.config.keep_ratio, model.config.scorer = keep_ratio, scorer
    counted = count_macs(model, {model.main_input_name: torch.empty(1, *shape, device="meta")})
    assert counted.on_meta and not counted.uncounted
    return counted.total


@pytest.mark.parametrize("keep_ratio", TIMESFORMER_JOINT)
def test_formulas(keep_ratio):
    assert joint(keep_ratio) / 1e9 == pytest.approx(TIMESFORMER_JOINT[keep_ratio], abs=1e-3)
    assert divided(keep_ratio) / 1e9 == pytest.approx(TIMESFORMER_DIVIDED[keep_ratio], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("attention_type", "formula"), [("joint_space_time", joint), ("divided_space_time", divided)])
def test_timesformer_base(attention_type, formula):
    with torch.device("meta"):
        model = LiteTimesformerForVideoClassification(
            LiteTimesformerConfig(attention_type=attention_type, num_labels=LABELS)
        )
    for keep_ratio in TIMESFORMER_JOINT:
        assert count(model, keep_ratio) == formula(keep_ratio)
    # only the kept patches are embedded where the score needs no embeddings
    embedded = 196 * 8 * WIDTH * 3 * 16 * 16
    assert count(model, 0.5) - count(model, 0.5, "random") == embedded // 2


@pytest.mark.slow
def test_vivit_base():
    with torch.device("meta"):
        model = LiteVivitForVideoClassification(LiteVivitConfig(num_labels=LABELS))
    for keep_ratio, gmacs in VIVIT.items():
        counted = count(model, keep_ratio, shape=(32, 3, 224, 224))
        assert counted == joint(keep_ratio, num_tokens=3136, patch_values=3 * 2 * 16 * 16)
        assert counted / 1e9 == pytest.approx(gmacs, abs=1e-3)


@pytest.mark.slow
def test_vjepa2_large():
    """Both the encoder and the attentive pooler shrink with the tokens."""
    with torch.device("meta"):
        model = LiteVJEPA2ForVideoClassification(LiteVJEPA2Config(num_labels=LABELS, frames_per_clip=16))
    for keep_ratio, gmacs in VJEPA2.items():
        assert count(model, keep_ratio, shape=(16, 3, 256, 256)) / 1e9 == pytest.approx(gmacs, abs=1e-3)
