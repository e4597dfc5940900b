"""The learned selector: size, kinds, precision."""

import pytest
import torch

from hf_effvid.models.token_selection import TokenGrid
from hf_effvid.models.token_selector import SELECTOR_KINDS, TokenSelector


GRID = TokenGrid(2, 3, 4)


def make_selector(kind="mlp", hidden_size=16, hidden_sizes=(12, 8)):
    torch.manual_seed(0)
    return TokenSelector(hidden_size, hidden_sizes, kind)


def make_embeddings(hidden_size=16):
    return torch.randn(2, GRID.num_tokens, hidden_size, generator=torch.Generator().manual_seed(1))


def test_size_at_the_width_of_videomae_base():
    assert sum(parameter.numel() for parameter in TokenSelector(768).parameters()) == 229_889


def test_the_mlp_is_equation_6():
    selector, embeddings = make_selector(), make_embeddings()
    w1, b1, w2, b2, w3, b3 = selector.parameters()
    act = torch.nn.functional.gelu
    expected = act(act(embeddings @ w1.T + b1) @ w2.T + b2) @ w3.T + b3
    torch.testing.assert_close(selector(embeddings), expected.squeeze(-1))


@pytest.mark.parametrize("kind", SELECTOR_KINDS)
def test_every_kind_scores_and_learns(kind):
    selector, embeddings = make_selector(kind), make_embeddings()
    logits = selector(embeddings, GRID)
    assert logits.shape == (2, GRID.num_tokens)
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in selector.parameters())


def test_five_layers_are_five_layers():
    linears = [module for module in make_selector("deep").modules() if isinstance(module, torch.nn.Linear)]
    assert [layer.out_features for layer in linears] == [12, 12, 8, 8, 1]


@pytest.mark.parametrize(("kind", "alone"), [("mlp", True), ("deep", True), ("transformer", False), ("global", False)])
def test_which_kinds_see_other_tokens(kind, alone):
    selector, embeddings = make_selector(kind), make_embeddings()
    changed = embeddings.clone()
    changed[:, 5] += 1.0
    moved = (selector(changed, GRID) - selector(embeddings, GRID)).abs() > 1e-6
    assert moved[:, 5].all()
    others = torch.cat([moved[:, :5], moved[:, 6:]], dim=1)
    assert others.any() != alone


def test_the_global_kind_needs_the_grid_of_its_tokens():
    for grid in (None, TokenGrid(1, 3, 4)):
        with pytest.raises(ValueError, match="needs the grid of its 24 tokens"):
            make_selector("global")(make_embeddings(), grid)


@pytest.mark.parametrize("kind", SELECTOR_KINDS)
def test_half_precision_weights_still_score_in_single_precision(kind):
    half = make_selector(kind).to(torch.bfloat16)
    rounded = make_selector(kind)
    rounded.load_state_dict({name: weight.float() for name, weight in half.state_dict().items()})
    embeddings = make_embeddings().bfloat16()
    scores = half(embeddings, GRID)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, rounded(embeddings.float(), GRID), rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(half(embeddings, GRID), scores, rtol=0, atol=0)
        torch.testing.assert_close(
            make_selector(kind)(make_embeddings(), GRID), make_selector(kind)(make_embeddings(), GRID)
        )


@pytest.mark.parametrize(("options", "message"), [
    ({"kind": "conv"}, "kind should be one of mlp, deep, transformer, global, got 'conv'"),
    ({"hidden_sizes": ()}, "one width above 0 or more"),
    ({"hidden_sizes": (8, 0)}, "one width above 0 or more"),
])  # fmt: skip
def test_a_selector_that_cannot_be_built_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        make_selector(**options)
