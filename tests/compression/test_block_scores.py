"""Scores of a model without each of its blocks: the same as one run per candidate, with fewer block evaluations."""

import copy
import json
import math

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import score_blocks
from hf_effvid.compression import BlockSkip, UndroppableBlockError, drop_blocks, model_blocks
from hf_effvid.compression.block_prefixes import run_without_each

from ..pipelines.hosts import randomise
from .block_models import CONVOLUTIONS, DEPTH, MODELS, VIDEOMAE, clips


def batches(count=2, size=3):
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        pixels = torch.randn(size, 4, 3, 16, 16, generator=generator)
        yield {"pixel_values": pixels, "labels": torch.randint(0, 3, (size,), generator=generator)}


class Margin:
    """A score whose every digit depends on every logit."""

    def __init__(self, model):
        self.model = model

    def forward(self, batch):
        return self.model(pixel_values=batch["pixel_values"]).logits

    def records(self, outputs, batch):
        return list(outputs[torch.arange(len(outputs)), batch["labels"]] - outputs.mean(dim=1))

    def score(self, records):
        return torch.stack(records).double().mean().item()


def count_evaluations(model, part=None):
    calls = []
    for block in model_blocks(model, part):
        inner = next(iter(block.module.children()))
        inner.register_forward_hook(lambda *_, index=block.index: calls.append(index))
    return calls


def test_twelve_blocks_cost_less_than_one_run_per_candidate():
    model = randomise(VideoMAEForVideoClassification(VideoMAEConfig(**{**VIDEOMAE, "num_hidden_layers": 12})))
    calls = count_evaluations(model)
    margin = Margin(model)
    naive_records = {number: [] for number in (None, *range(12))}
    with torch.no_grad():
        for batch in batches():
            for number in naive_records:
                with BlockSkip(model, [] if number is None else [number]):
                    naive_records[number] += margin.records(margin.forward(batch), batch)
    naive = {number: margin.score(found) for number, found in naive_records.items()}
    one_by_one = len(calls)
    calls.clear()
    scores = score_blocks(model, batches(), margin)
    assert one_by_one == 2 * (12 + 12 * 11)
    assert len(calls) == 2 * (12 + 66)
    assert one_by_one / len(calls) >= 1.6
    assert (2 * 12 * 11) / len(calls) >= 1.6, "also where the whole model was not run for comparison"
    assert scores.full == naive[None]
    assert {score.index: score.value for score in scores.scores} == {number: naive[number] for number in range(12)}
    assert [score.importance for score in scores.scores] == [naive[number] - naive[None] for number in range(12)]
    best = max(range(12), key=naive.get)
    assert scores.least_important.index == best == scores.ranking[0].index
    assert [score.value for score in scores.ranking] == sorted((score.value for score in scores.scores), reverse=True)


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_shared_prefixes_change_nothing(kind):
    model = kind.build()
    found = dict(run_without_each(model, lambda: kind.answer(model), [4, 0, 3], kind.part))
    assert list(found) == [None, 0, 3, 4]
    for number, answer in found.items():
        with BlockSkip(model, [] if number is None else [number], kind.part):
            assert torch.equal(kind.answer(model), answer)


def test_what_is_skipped_outside_stays_skipped():
    kind = MODELS["videomae"]
    model = kind.build()
    dropped = drop_blocks(copy.deepcopy(model), [1])
    with BlockSkip(model, [1]):
        found = dict(run_without_each(model, lambda: kind.answer(model), [2]))
    assert torch.equal(found[None], kind.answer(dropped))
    assert torch.equal(found[2], kind.answer(drop_blocks(dropped, [1])))


def test_a_run_that_differs_is_noticed():
    kind = MODELS["videomae"]
    model, runs = kind.build(), []

    def run():
        runs.append(kind.answer(model))
        if len(runs) > 1:
            kind.answer(model)

    with pytest.raises(RuntimeError, match="another way"):
        list(run_without_each(model, run, [2]))
    assert not any("forward" in vars(module) for module in model.modules())


def test_loss_and_top1_of_a_classifier():
    model = MODELS["videomae"].build().train()
    modes = [module.training for module in model.modules()]
    by_loss, by_top1 = score_blocks(model, batches(), "loss"), score_blocks(model, batches(), "top1")
    assert [module.training for module in model.modules()] == modes
    model.eval()
    for number in range(DEPTH):
        with BlockSkip(model, [number]), torch.no_grad():
            outputs = [(model(**batch), batch["labels"]) for batch in batches()]
        loss = sum(output.loss.item() for output, _ in outputs) / 2
        hits = torch.cat([output.logits.argmax(-1) == labels for output, labels in outputs])
        assert by_loss.scores[number].value == pytest.approx(-loss, rel=1e-12)
        assert by_top1.scores[number].value == hits.double().mean().item()
    assert json.loads(json.dumps(by_loss.to_dict()))["num_batches"] == 2


def test_candidates_reference_and_original_numbers():
    model = drop_blocks(MODELS["videomae"].build(), [1])
    scores = score_blocks(model, batches(), "top1", candidates=[3, 1], reference=0.75)
    assert [(score.index, score.original_index) for score in scores.scores] == [(1, 2), (3, 4)]
    assert [score.importance for score in scores.scores] == [score.value - 0.75 for score in scores.scores]
    assert scores.scores[0].name == "videomae.encoder.layer.1"


def test_equal_scores_take_the_first_block_and_no_number_is_the_worst():
    class Constant(Margin):
        values = iter([0.5, math.nan, 0.4, 0.5, 0.5, 0.1])

        def score(self, records):
            return next(self.values)

    model = MODELS["videomae"].build()
    scores = score_blocks(model, batches(1), Constant(model))
    assert [score.index for score in scores.ranking] == [2, 3, 1, 4, 0]


@pytest.mark.parametrize("name", ["videomae", "vjepa2", "video_focalnet", "detector_with_adapters", "detector_own"])
def test_discrepancy_between_input_and_output(name):
    kind = MODELS[name]
    model = kind.build()
    inputs = kind.inputs(model)
    scores = score_blocks(model, [inputs, inputs], "discrepancy", kind.part)
    pairs = {}
    blocks = model_blocks(model, kind.part)
    for block in blocks:

        def keep(module, args, kwargs, output, block=block):
            pairs.setdefault(block.index, ([], []))[0].append(block.layout.residual(block.module, args, kwargs))
            if not block.companions:
                pairs[block.index][1].append(output[0] if isinstance(output, tuple) else output)

        block.module.register_forward_hook(keep, with_kwargs=True)
        for companion in block.companions:
            companion.register_forward_hook(lambda *given, block=block: pairs[block.index][1].append(given[-1]))
    with torch.no_grad():
        model(**inputs)
    for score in scores.scores:
        before, after = (torch.cat(states).double() for states in pairs[score.index])
        there = (before.abs() + after.abs()).sum(-1) > 0
        before, after = before[there], after[there]
        assert score.mse == pytest.approx((before - after).square().mean().item(), rel=1e-5)
        expected = torch.nn.functional.cosine_similarity(before, after, dim=-1).mean().item()
        assert score.cosine == pytest.approx(expected, rel=1e-5)
        assert (score.value, score.importance) == (-score.mse, -score.mse)
    assert scores.least_important.mse == min(score.mse for score in scores.scores)
    assert scores.full is None and scores.num_batches == 2


def test_a_block_that_does_nothing_is_found():
    model = MODELS["videomae"].build()
    with torch.no_grad():
        for linear in (
            model_blocks(model)[3].module.output.dense,
            model_blocks(model)[3].module.attention.output.dense,
        ):
            linear.weight.zero_()
            linear.bias.zero_()
    scores = score_blocks(model, [{"pixel_values": clips()}], "discrepancy")
    assert (scores.least_important.index, scores.least_important.mse) == (3, 0.0)
    assert scores.least_important.cosine == pytest.approx(1.0)
    assert score_blocks(model, batches(), "loss").scores[3].importance == 0.0


def test_mistakes_are_explained():
    model = MODELS["videomae"].build()
    with pytest.raises(ValueError, match="loss, top1, discrepancy"):
        score_blocks(model, batches(), "accuracy")
    with pytest.raises(ValueError, match="no batch"):
        score_blocks(model, [], "top1")
    with pytest.raises(ValueError, match="No block"):
        score_blocks(model, batches(), "top1", candidates=[])
    pyramid = CONVOLUTIONS.build()
    with pytest.raises(UndroppableBlockError, match="skip connection is a convolution"):
        score_blocks(pyramid, [], "discrepancy", candidates=[2])
    inputs = CONVOLUTIONS.inputs(pyramid)
    assert [score.index for score in score_blocks(pyramid, [inputs], "discrepancy").scores] == [0, 1]
