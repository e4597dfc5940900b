"""Skipping blocks for as long as a context lasts: what it must not disturb, and what must not be left behind."""

import copy
import threading

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid.compression import BlockSkip, UndroppableBlockError, UnsupportedBlocksError, drop_blocks, model_blocks
from hf_effvid.models.merging_videomae import merge_tokens

from .block_models import MODELS, VIDEOMAE, clips


VIDEOMAE_KIND, PASSES, ADAPTERS = (
    MODELS["videomae"],
    MODELS["detector_trunk_in_passes"],
    MODELS["detector_with_adapters"],
)


@pytest.fixture
def model():
    return VIDEOMAE_KIND.build()


def without(model, *indices):
    return VIDEOMAE_KIND.answer(drop_blocks(copy.deepcopy(model), indices))


def redirected(model):
    """Modules that still have a `forward` of their own, or a trace of one."""
    return [
        name
        for name, module in model.named_modules()
        if "forward" in vars(module) or any("block_call" in field for field in vars(module))
    ]


def test_contexts_nest_and_leave_nothing_behind(model):
    full, answer = VIDEOMAE_KIND.answer(model), VIDEOMAE_KIND.answer
    with BlockSkip(model, [1]) as outer:
        assert torch.equal(answer(model), without(model, 1))
        with BlockSkip(model, [3, 4]):
            assert torch.equal(answer(model), without(model, 1, 3, 4))
        with BlockSkip(model, [1]):
            assert torch.equal(answer(model), without(model, 1))
        assert torch.equal(answer(model), without(model, 1))
    assert torch.equal(answer(model), full)
    with outer:  # a second time
        assert torch.equal(answer(model), without(model, 1))
    assert redirected(model) == []


def test_an_exception_leaves_nothing_behind(model):
    full = VIDEOMAE_KIND.answer(model)
    with pytest.raises(RuntimeError, match="interrupted"), BlockSkip(model, [0]), BlockSkip(model, [0, 2]):
        raise RuntimeError("interrupted")
    with pytest.raises(ValueError, match="shape|size|channels"), BlockSkip(model, [0]):
        model(clips(size=24))
    assert torch.equal(VIDEOMAE_KIND.answer(model), full)
    assert redirected(model) == []


def test_threads_do_not_see_each_others_skips(model):
    expected = {number: without(model, number) for number in range(4)} | {None: VIDEOMAE_KIND.answer(model)}
    answers, meeting = {}, threading.Barrier(len(expected))

    def work(number):
        with BlockSkip(model, [] if number is None else [number]):
            meeting.wait(60)
            answers[number] = VIDEOMAE_KIND.answer(model)
            meeting.wait(60)

    with BlockSkip(model, [4]):  # of this thread alone
        threads = [threading.Thread(target=work, args=(number,)) for number in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers.keys() == expected.keys()
    assert all(torch.equal(answers[number], expected[number]) for number in expected)
    assert redirected(model) == []


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_recomputes_what_was_computed(use_reentrant):
    """Also when the backward pass comes after the context."""
    config = VideoMAEConfig(**VIDEOMAE, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(config).train()
    dropped = drop_blocks(copy.deepcopy(model), [1, 2])
    labels = torch.tensor([0, 2])
    dropped(clips().requires_grad_(), labels=labels).loss.backward()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    with BlockSkip(model, [1, 2]):
        loss = model(clips().requires_grad_(), labels=labels).loss
    loss.backward()
    left = [block for block in model_blocks(model) if block.index not in (1, 2)]
    for block, other in zip(left, model_blocks(dropped), strict=True):
        for mine, theirs in zip(block.module.parameters(), other.module.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, theirs.grad)
    assert all(parameter.grad is None for i in (1, 2) for parameter in model_blocks(model)[i].module.parameters())


def test_under_autocast(model):
    dropped = drop_blocks(copy.deepcopy(model), [0, 3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = VIDEOMAE_KIND.answer(dropped)
        with BlockSkip(model, [0, 3]):
            assert torch.equal(VIDEOMAE_KIND.answer(model), expected)
    assert expected.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["videomae", "vivit", "timesformer", "vjepa2", "lite_videomae", "detector_own"])
def test_hidden_states_are_given_as_before(name):
    kind = MODELS[name]
    model = kind.build()
    with torch.no_grad():
        full = model(**kind.inputs(model), output_hidden_states=True).hidden_states
        with BlockSkip(model, [2], kind.part):
            skipped = model(**kind.inputs(model), output_hidden_states=True).hidden_states
        drop_blocks(model, [2], kind.part)
        dropped = model(**kind.inputs(model), output_hidden_states=True).hidden_states
    assert len(full) == len(skipped) == 6
    if kind.part == "detector":  # every level of the pyramid stays
        assert len(dropped) == 6 and all(map(torch.equal, skipped, dropped))
    else:
        assert torch.equal(skipped[3], skipped[2])
        assert len(dropped) == 5 and all(map(torch.equal, [*skipped[:3], *skipped[4:]], dropped))


def test_hooks_see_the_blocks_that_run(model):
    seen = []
    for block in model_blocks(model):
        block.module.attention.register_forward_hook(lambda *_, index=block.index: seen.append(index))
    with BlockSkip(model, [1, 3]):
        VIDEOMAE_KIND.answer(model)
    assert seen == [0, 2, 4]


def test_a_forward_that_somebody_put_there_is_used_and_stays(model):
    """As accelerate does, to move weights when a module is called."""
    block, called = model_blocks(model)[2].module, []
    original = block.forward

    def moved(*args, **kwargs):
        called.append(True)
        return original(*args, **kwargs)

    block.forward = moved
    with BlockSkip(model, [2]):
        VIDEOMAE_KIND.answer(model)
        assert called == []
        with BlockSkip(model, [1]):
            VIDEOMAE_KIND.answer(model)
    assert block.forward is moved and called == []
    full = VIDEOMAE_KIND.answer(model)
    assert called == [True]
    block.__dict__.pop("forward")
    assert torch.equal(VIDEOMAE_KIND.answer(model), full)


def test_a_block_is_skipped_in_every_pass_of_clips():
    model, calls = PASSES.build(), []
    for block in model_blocks(model, "backbone"):
        block.module.attention.register_forward_hook(lambda *_, index=block.index: calls.append(index))
    PASSES.answer(model)
    assert calls.count(3) == 3  # five clips, two at a time
    calls.clear()
    with BlockSkip(model, [3]):
        PASSES.answer(model)
    assert 3 not in calls and calls.count(2) == 3


def test_a_temporal_adapter_is_skipped_with_its_block():
    model, calls = ADAPTERS.build(), []
    for number, adapter in enumerate(model.actionformer.backbone.adapters):
        adapter.mix.register_forward_hook(lambda *_, number=number: calls.append(number))
    with BlockSkip(model, [0, 2]):
        ADAPTERS.answer(model)
    assert calls == [1, 3, 4]
    assert len(drop_blocks(model, [0, 2]).actionformer.backbone.adapters) == 3


def test_inside_peft_and_other_wrappers(model):
    peft = pytest.importorskip("peft")
    full = VIDEOMAE_KIND.answer(model)
    wrapped = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules=["query", "value"]))
    assert [block.name for block in model_blocks(wrapped)][1] == "base_model.model.videomae.encoder.layer.1"
    assert model_blocks(wrapped)[1].module is model_blocks(wrapped.get_base_model())[1].module
    with BlockSkip(wrapped, [1]), torch.no_grad():
        assert torch.equal(wrapped(clips()).logits, without(model, 1))
    with torch.no_grad():
        assert torch.equal(wrapped(clips()).logits, full)
    with pytest.raises(UnsupportedBlocksError, match="merge adapters"):
        drop_blocks(wrapped, [1])
    with pytest.raises(UnsupportedBlocksError, match="DataParallel"):
        BlockSkip(torch.nn.DataParallel(model), [1])
    with pytest.raises(UnsupportedBlocksError, match="before torch.compile"):
        BlockSkip(torch.compile(model), [1])


def test_copies_made_meanwhile_are_whole_models(model):
    with BlockSkip(model, [1]):
        copied = copy.deepcopy(model)
    assert torch.equal(VIDEOMAE_KIND.answer(copied), VIDEOMAE_KIND.answer(model))
    with BlockSkip(copied, [1]):
        assert torch.equal(VIDEOMAE_KIND.answer(copied), without(model, 1))
        assert not torch.equal(VIDEOMAE_KIND.answer(copied), VIDEOMAE_KIND.answer(model))


def test_what_cannot_be_left_out_says_so(model):
    with pytest.raises(ValueError, match="At least one block has to remain"):
        BlockSkip(model, range(5))
    with pytest.raises(UndroppableBlockError, match="merges tokens.*restore_tokens"):
        BlockSkip(merge_tokens(model, r=1), [0])
    lite = MODELS["lite_videomae"].build()
    lite.config.scorer = "attention"
    with pytest.raises(UndroppableBlockError, match="its attention chooses the tokens"):
        BlockSkip(lite, [4])
    with BlockSkip(lite, [0, 3]):
        skipped = MODELS["lite_videomae"].answer(lite)
    assert torch.equal(MODELS["lite_videomae"].answer(drop_blocks(lite, [0, 3])), skipped)
    with pytest.raises(UnsupportedBlocksError, match="has one part"):
        BlockSkip(model, [0], "detector")
    with pytest.raises(UnsupportedBlocksError, match='use part="detector"'):
        BlockSkip(MODELS["detector_own"].build(), [0], "backbone")
    with pytest.raises(UnsupportedBlocksError, match="part must be"):
        BlockSkip(model, [0], "head")
