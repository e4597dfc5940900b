"""Selection and merging on a GPU: the tokens of the processor, its numbers, and a pass that a graph can hold."""

import pytest
import torch

from hf_effvid.evaluation.benchmark_execution import capture_cuda_graph
from hf_effvid.models.configuration_lite_videomae import LiteVideoMAEConfig
from hf_effvid.models.merging_videomae import merge_tokens
from hf_effvid.models.modeling_lite_videomae import LiteVideoMAEForVideoClassification
from hf_effvid.models.token_selection import num_kept_tokens

from .tiny_videomae import TINY_VIDEOMAE, fill_biases, tiny_clips, tiny_videomae


pytestmark = pytest.mark.gpu
SIZES = {"num_frames": 8, "num_hidden_layers": 4}  # STA needs four steps in time, and three blocks
SCORERS = ["random", "stratified", "grid", "embedding_norm", "frame_difference", "run_length", "lite"]
MERGERS = {"tome": 5, "sta": 3, "vid_tldr": (20, 8, 4)}


@pytest.fixture(autouse=True)
def exact():
    settings = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = settings


def lite(scorer):
    torch.manual_seed(0)
    config = LiteVideoMAEConfig(**{**TINY_VIDEOMAE, **SIZES}, keep_ratio=0.3, scorer=scorer, selector_trained=True)
    return fill_biases(LiteVideoMAEForVideoClassification(config)).eval()


def models():
    yield from ((scorer, lite(scorer)) for scorer in SCORERS)
    yield from ((method, merge_tokens(tiny_videomae(**SIZES), method, r)) for method, r in MERGERS.items())


@torch.no_grad()
def test_the_same_tokens_and_numbers_as_on_the_processor():
    clips = tiny_clips(frames=8)
    for name, model in models():
        expected = model(clips)
        found = model.to("cuda")(clips.to("cuda"))
        torch.testing.assert_close(found.logits.cpu(), expected.logits, rtol=1e-3, atol=1e-3, msg=name)
        if name in SCORERS:
            assert torch.equal(found.kept_indices.cpu(), expected.kept_indices), name


@torch.no_grad()
def test_half_precision():
    clips = tiny_clips(frames=8).to("cuda", torch.bfloat16)
    for name, model in models():
        output = model.to("cuda", torch.bfloat16)(clips)
        assert output.logits.dtype == torch.bfloat16 and output.logits.isfinite().all(), name
        if name in SCORERS:
            assert output.token_scores.dtype == torch.float32 and output.kept_indices.shape[1] == num_kept_tokens(
                64, 0.3
            )


@torch.inference_mode()
def test_a_graph_can_hold_the_pass():
    clips = tiny_clips(frames=8).to("cuda")
    for name, model in models():
        model.to("cuda")
        embeddings = model.videomae.embeddings
        embeddings.position_embeddings = embeddings.position_embeddings.to("cuda")
        found = {}

        def step(model=model, found=found):
            found["logits"] = model(clips).logits

        step()
        expected = found["logits"].clone()
        replay = capture_cuda_graph(step)
        found["logits"].zero_()
        replay()
        torch.testing.assert_close(found["logits"], expected, msg=name)
