"""Under torch.compile every keep ratio is one static length: one graph for it, none broken, whatever chooses or merges the tokens."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
from hf_effvid.models.merging_videomae import merge_tokens

from .lite_hosts import HOSTS, lite_of, make_clips
from .tiny_videomae import TINY_VIDEOMAE, fill_biases, tiny_clips


@pytest.fixture
def counter():
    torch._dynamo.reset()
    yield CompileCounter()
    torch._dynamo.reset()


def compiled_answers(model, counter, clips, **options):
    """Logits of the compiled and of the plain model; a break in the graph is an error."""
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        return compiled(clips, **options).logits, model(clips, **options).logits


@pytest.mark.slow
@pytest.mark.parametrize("scorer", ["random", "lite", "embedding_norm", "run_length"])
def test_one_graph_for_each_length(scorer, counter):
    config = LiteVideoMAEConfig(**TINY_VIDEOMAE, scorer=scorer, selector_trained=True)
    model = fill_biases(LiteVideoMAEForVideoClassification(config)).eval()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=False)
    with torch.inference_mode():
        for seen, ratio in enumerate((0.5, 0.3, 0.2), start=1):
            for seed in range(2):  # other clips of the same length take the same graph
                clips = tiny_clips() + seed
                torch.testing.assert_close(
                    compiled(clips, keep_ratio=ratio).logits, model(clips, keep_ratio=ratio).logits
                )
            assert counter.frame_count == seen


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTS)
def test_one_graph_on_other_hosts(name, counter):
    lite = lite_of(HOSTS[name], HOSTS[name].build(), scorer="lite", selector_trained=True)
    for seen, ratio in enumerate((0.5, 0.25), start=1):
        torch.testing.assert_close(*compiled_answers(lite, counter, make_clips(), keep_ratio=ratio))
        assert counter.frame_count == seen


@pytest.mark.slow
@pytest.mark.parametrize(("method", "r"), [("tome", 6), ("sta", 2), ("vid_tldr", 6)])
def test_one_graph_with_mergers(method, r, counter):
    config = VideoMAEConfig(**{**TINY_VIDEOMAE, "num_hidden_layers": 4, "num_frames": 8})
    stock = fill_biases(VideoMAEForVideoClassification(config)).eval()
    clips = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    merged = merge_tokens(copy.deepcopy(stock), method, r)
    compiled, plain = compiled_answers(merged, counter, clips)
    torch.testing.assert_close(compiled, plain)
    assert counter.frame_count == 1
    with torch.inference_mode():
        assert not torch.equal(plain, stock(clips).logits)
