"""Blocks taken out of a model: which ones are left, that the model is the one without them, and that it opens again."""

import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MambaConfig,
    MambaForCausalLM,
    TimesformerForVideoClassification,
    VideoMAEForVideoClassification,
    VivitForVideoClassification,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
)

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    drop_blocks,
    select_tokens,
)
from hf_effvid.compression import BlockSkip, UndroppableBlockError, dropped_state_dict, kept_blocks, model_blocks
from hf_effvid.compression.block_table import BLOCKS, BlockLayout, UnsupportedBlocksError
from hf_effvid.models.layers import linear_drop_path_rates

from ..pipelines.hosts import randomise
from .block_models import CONVOLUTIONS, DEPTH, DETECTOR, FOCALNET, MODELS, VJEPA2, clips


_built = {}


each_kind = pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)


def fresh(kind):
    """A model of this kind that a test may edit."""
    if kind not in _built:
        _built[kind] = kind.build()
    return copy.deepcopy(_built[kind])


subsets = st.sets(st.integers(0, DEPTH - 1), max_size=DEPTH - 1)


@each_kind
def test_nothing_dropped_is_the_same_model(kind):
    model = fresh(kind)
    before, config = kind.answer(model), model.config.to_dict()
    assert drop_blocks(model, [], kind.part) is model
    assert torch.equal(kind.answer(model), before)
    assert model.config.to_dict() == config
    assert kept_blocks(model, kind.part) == list(range(DEPTH))


@each_kind
@settings(max_examples=4, deadline=None)
@given(gone=subsets)
def test_skipped_is_dropped_bit_for_bit(kind, gone):
    model = fresh(kind)
    full = kind.answer(model)
    with BlockSkip(model, gone, kind.part):
        skipped = kind.answer(model)
    assert torch.equal(kind.answer(model), full), "the context left something behind"
    dropped = drop_blocks(model, gone, kind.part)
    assert torch.equal(kind.answer(dropped), skipped)
    assert gone == set() or not torch.equal(skipped, full)
    assert kept_blocks(model, kind.part) == sorted(set(range(DEPTH)) - gone)


@each_kind
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_dropping_twice_is_dropping_the_union(kind, data):
    gone = sorted(data.draw(st.sets(st.integers(0, DEPTH - 1), min_size=2, max_size=DEPTH - 1)))
    first = set(data.draw(st.lists(st.sampled_from(gone), min_size=1, max_size=len(gone) - 1, unique=True)))
    twice = drop_blocks(fresh(kind), first, kind.part)
    numbers = {block.original_index: block.index for block in model_blocks(twice, kind.part)}
    drop_blocks(twice, [numbers[original] for original in gone if original not in first], kind.part)
    at_once = drop_blocks(fresh(kind), gone, kind.part)
    assert (
        kept_blocks(twice, kind.part)
        == kept_blocks(at_once, kind.part)
        == [index for index in range(DEPTH) if index not in gone]
    )
    assert twice.config.to_dict() == at_once.config.to_dict()
    assert torch.equal(kind.answer(twice), kind.answer(at_once))


@each_kind
def test_a_dropped_model_opens_again(kind, tmp_path):
    model = drop_blocks(fresh(kind), [1, 3], kind.part)
    answer = kind.answer(model)
    model.save_pretrained(tmp_path)
    opened = type(model).from_pretrained(tmp_path)
    assert torch.equal(kind.answer(opened), answer)
    assert kept_blocks(opened, kind.part) == [0, 2, 4]
    assert [block.original_index for block in model_blocks(opened, kind.part)] == [0, 2, 4]
    assert opened.state_dict().keys() == model.state_dict().keys()
    again = drop_blocks(opened, [1], kind.part)
    assert kept_blocks(again, kind.part) == [0, 4]


@each_kind
def test_weights_of_the_full_model_are_renamed(kind):
    model = fresh(kind)
    renamed = dropped_state_dict(model.state_dict(), model, [0, 3], kind.part)
    dropped = drop_blocks(fresh(kind), [0, 3], kind.part)
    assert list(renamed) == list(dropped.state_dict())
    assert all(torch.equal(renamed[name], value) for name, value in dropped.state_dict().items())


@pytest.mark.parametrize("name", [name for name, kind in MODELS.items() if kind.stock is not None])
def test_transformers_opens_what_is_left(name, tmp_path):
    kind = MODELS[name]
    model = drop_blocks(fresh(kind), [0, 2], kind.part)
    model.save_pretrained(tmp_path)
    opened, info = kind.stock.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(kind.answer(opened), kind.answer(model))


@each_kind
def test_wrong_numbers_are_refused(kind):
    model = fresh(kind)
    for wrong in ([DEPTH], [-1], [0, 0], [1.0], [True], ["1"]):
        with pytest.raises(ValueError, match="whole numbers|from 0 to 4"):
            drop_blocks(model, wrong, kind.part)
    assert kept_blocks(model, kind.part) == list(range(DEPTH))


def test_a_model_outside_of_the_table():
    with pytest.raises(UnsupportedBlocksError, match="not in the table.*videomae.*BlockLayout"):
        drop_blocks(torch.nn.Linear(2, 2), [0])


def test_an_entry_in_the_table_is_all_that_an_architecture_needs(monkeypatch):
    monkeypatch.setitem(BLOCKS, "ours", BlockLayout(("tower.blocks",)))

    class Block(torch.nn.Linear):
        def forward(self, hidden_states):
            return hidden_states + super().forward(hidden_states)

    class Ours(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = SimpleNamespace(model_type="ours", num_hidden_layers=3)
            self.tower = torch.nn.Module()
            self.tower.blocks = torch.nn.ModuleList(Block(4, 4) for _ in range(3))

        def forward(self, states):
            for block in self.tower.blocks:
                states = block(hidden_states=states)
            return states

    model, states = Ours(), torch.randn(2, 4)
    first, _, third = model.tower.blocks
    with BlockSkip(model, [1]):
        skipped = model(states)
    assert torch.equal(skipped, third(first(states)))
    assert torch.equal(drop_blocks(model, [1])(states), skipped)
    assert (model.config.num_hidden_layers, model.config.kept_blocks) == (2, [0, 2])


@pytest.mark.parametrize("name", ["videomae", "detector_with_adapters", "lite_timesformer"])
def test_a_model_of_the_same_configuration_object_stays_as_it_is(name):
    kind = MODELS[name]
    first = fresh(kind)
    second = randomise(type(first)(first.config), seed=1)
    before, answer = second.config.to_dict(), kind.answer(second)
    drop_blocks(first, [0, 3], kind.part)
    assert second.config.to_dict() == before and kept_blocks(second, kind.part) == list(range(DEPTH))
    assert torch.equal(kind.answer(second), answer)
    assert kind.config(first).num_hidden_layers == 3 and kind.config(first).kept_blocks == [1, 2, 4]
    owner = first if kind.part is None else first.actionformer.backbone.trunk
    assert owner.config.num_hidden_layers == 3


def test_a_configuration_that_was_edited_by_hand_is_noticed():
    model = fresh(MODELS["videomae"])
    model.config.kept_blocks = [0, 1]
    with pytest.raises(UnsupportedBlocksError, match="names 2 blocks, the model has 5"):
        kept_blocks(model)


# --- what is special about an architecture ---


@pytest.mark.parametrize(
    ("name", "stock"),
    [
        ("lite_videomae", VideoMAEForVideoClassification),
        ("lite_vivit", VivitForVideoClassification),
        ("lite_timesformer", TimesformerForVideoClassification),
        ("lite_vjepa2", VJEPA2ForVideoClassification),
    ],
)
def test_the_stock_class_opens_a_lite_checkpoint_without_some_blocks(name, stock, tmp_path):
    model = drop_blocks(fresh(MODELS[name]), [1, 4])
    model.save_pretrained(tmp_path)
    opened, info = stock.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and all(key.startswith("selector.") for key in info["unexpected_keys"])
    with torch.no_grad():
        everything = model(clips(), keep_ratio=1.0).logits
        assert torch.equal(opened(clips()).logits, everything)
        assert not torch.equal(model(clips()).logits, everything)


@pytest.mark.parametrize("name", ["videomae", "vivit", "timesformer", "vjepa2"])
def test_tokens_are_selected_in_what_is_left(name):
    dropped = drop_blocks(fresh(MODELS[name]), [2])
    lite = select_tokens(dropped, keep_ratio=0.5, scorer="embedding_norm")
    assert kept_blocks(lite) == [0, 1, 3, 4]
    other_way = drop_blocks(select_tokens(fresh(MODELS[name]), keep_ratio=0.5, scorer="embedding_norm"), [2])
    with torch.no_grad():
        assert torch.equal(lite(clips()).logits, other_way(clips()).logits)
    assert kept_blocks(drop_blocks(lite, [0])) == [1, 3, 4]


def test_a_detector_on_a_trunk_without_some_blocks(tmp_path):
    classifier = drop_blocks(fresh(MODELS["videomae"]), [0, 3])
    detector = ActionFormerForTemporalActionDetection.from_backbone(classifier, frames_per_step=2, **DETECTOR)
    assert kept_blocks(detector) == kept_blocks(detector, "backbone") == [1, 2, 4]
    assert kept_blocks(detector, "detector") == list(range(DEPTH))
    drop_blocks(drop_blocks(detector, [1]), [2, 4], "detector").save_pretrained(tmp_path)
    opened = ActionFormerForTemporalActionDetection.from_pretrained(tmp_path)
    assert (kept_blocks(opened, "backbone"), kept_blocks(opened, "detector")) == ([1, 4], [0, 1, 3])
    kind = MODELS["detector_trunk"]
    assert torch.equal(kind.answer(opened), kind.answer(detector.eval()))


def test_all_own_blocks_of_a_detector_may_go():
    """The pyramid of max pools that is left has weights in embedding and heads."""
    kind = MODELS["detector_own"]
    model, full = fresh(kind), kind.answer(fresh(kind))
    with BlockSkip(model, range(DEPTH), "detector"):
        skipped = kind.answer(model)
    drop_blocks(model, range(DEPTH), "detector")
    assert not list(model.actionformer.encoder.parameters()) and kept_blocks(model, "detector") == []
    assert torch.equal(kind.answer(model), skipped) and skipped.shape == full.shape


def test_a_full_detector_opens_as_one_without_some_blocks(tmp_path):
    kind = MODELS["detector_own"]
    full = fresh(kind)
    full.save_pretrained(tmp_path)
    opened = ActionFormerForTemporalActionDetection.from_pretrained(tmp_path, kept_blocks=[1, 4])
    assert torch.equal(kind.answer(opened), kind.answer(drop_blocks(full, [0, 2, 3], "detector")))


def test_padding_stays_unseen_by_a_dropped_block():
    """What lies beyond a video changes nothing of its answers, whichever blocks are there."""
    kind = MODELS["detector_own"]
    model = drop_blocks(fresh(kind), [0, 1, 2, 4], "detector")
    inputs = kind.inputs(model)
    inputs["input_features"] = inputs["input_features"].masked_fill(inputs["attention_mask"][..., None] == 0, 99.0)
    with torch.no_grad():
        batch = model(**inputs)
        alone = model(input_features=inputs["input_features"][1:, :13])
    for level in range(4):
        torch.testing.assert_close(
            batch.logits[1][batch.point_mask[1]], alone.logits[0][alone.point_mask[0]], msg=f"level {level}"
        )


def test_a_branch_of_convolutions_stays():
    model = CONVOLUTIONS.build()
    with pytest.raises(UndroppableBlockError, match="Block 3 .*branch.1.*convolution with weights"):
        drop_blocks(model, [0, 3], "detector")
    assert kept_blocks(model) == list(range(DEPTH))
    with BlockSkip(model, [0]):
        skipped = CONVOLUTIONS.answer(model)
    assert torch.equal(CONVOLUTIONS.answer(drop_blocks(model, [0])), skipped)
    with pytest.raises(StrictDataclassError, match="skip connections have weights"):
        ActionFormerConfig(**DETECTOR, input_size=6, block_type="convolution", kept_blocks=[0, 1, 2])


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (ActionFormerConfig, {**DETECTOR, "kept_blocks": [0, 5]}, "beyond the 5"),
        (ActionFormerConfig, {**DETECTOR, "kept_blocks": [1, 0]}, "ascending"),
        (VideoFocalNetConfig, {**FOCALNET, "kept_blocks": [0]}, "are given together"),
        (
            VideoFocalNetConfig,
            {**FOCALNET, "kept_blocks": [0, 1], "original_depths": [2, 1, 2]},
            r"leave depths \[2, 0, 0\]",
        ),
        (VideoFocalNetConfig, {**FOCALNET, "depths": [2, 0, 2]}, "at least one block in each stage"),
    ],
)
def test_contradictory_configurations_are_refused(config, fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        config(**fields)


def test_a_stage_without_blocks_still_downsamples(tmp_path):
    kind = MODELS["video_focalnet"]
    model = fresh(kind)
    channels = model.config.hidden_sizes
    drop_blocks(model, [2, 0], kind.part)
    assert (model.config.depths, model.config.original_depths, model.config.kept_blocks) == (
        [1, 0, 2],
        [2, 1, 2],
        [1, 3, 4],
    )
    with torch.no_grad():
        maps = model(clips(), output_hidden_states=True, output_modulators=True)
    assert [states.shape[-1] for states in maps.hidden_states] == [channels[0], *channels]
    assert len(maps.spatial_gates) == 3
    drop_blocks(model, [2]).save_pretrained(tmp_path)
    opened = VideoFocalNetForVideoClassification.from_pretrained(tmp_path)
    assert (opened.config.original_depths, opened.config.kept_blocks) == ([2, 1, 2], [1, 3])


def test_blocks_of_video_focalnet_keep_their_rates_of_stochastic_depth(tmp_path):
    model = fresh(MODELS["video_focalnet"])
    rates = linear_drop_path_rates(0.4, DEPTH)

    def rates_of(model):
        return [block.module.drop_path.rate for block in model_blocks(model)]

    assert rates_of(model) == rates
    drop_blocks(model, [1, 4]).save_pretrained(tmp_path)
    assert rates_of(model) == [rates[0], rates[2], rates[3]]
    opened = VideoFocalNetForVideoClassification.from_pretrained(tmp_path)
    assert rates_of(opened) == rates_of(model)
    assert torch.equal(
        model_blocks(opened)[1].module.layer_scale1,
        model_blocks(fresh(MODELS["video_focalnet"]))[2].module.layer_scale1,
    )


def test_a_stock_class_spreads_stochastic_depth_anew_and_that_is_said(tmp_path, caplog, monkeypatch):
    """V-JEPA 2; TimeSformer's configuration takes no rate between 0 and 1."""
    model = randomise(VJEPA2ForVideoClassification(VJEPA2Config(**VJEPA2, drop_path_rate=0.4)))

    def rates_of(model):
        paths = [block.module.drop_path for block in model_blocks(model)]
        return [getattr(path, "drop_prob", 0.0) for path in paths]

    before = rates_of(model)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("hf_effvid"), "propagate", True)
    with caplog.at_level("WARNING"):
        drop_blocks(model, [0, 3]).save_pretrained(tmp_path)
    assert "0 to 0.4 over the 3 blocks that are left" in caplog.text
    opened = VJEPA2ForVideoClassification.from_pretrained(tmp_path)
    assert rates_of(model) == pytest.approx([0.0, 0.2, 0.4])
    assert rates_of(opened) == pytest.approx([0.0, 0.2, 0.4])
    assert rates_of(model) != [before[1], before[2], before[4]]


def test_a_stack_of_mamba_blocks_with_a_cache():
    """Every block has its place in the cache, also after a block before it is gone."""
    model = randomise(
        MambaForCausalLM(MambaConfig(vocab_size=11, hidden_size=16, state_size=4, num_hidden_layers=DEPTH))
    )
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    with BlockSkip(model, [1, 4]), torch.no_grad():
        skipped = model(tokens, use_cache=False).logits
    drop_blocks(model, [1, 4])
    assert [block.module.mixer.layer_idx for block in model_blocks(model)] == [0, 1, 2]
    with torch.no_grad():
        assert torch.equal(model(tokens, use_cache=False).logits, skipped)
        longer = model.generate(tokens, max_new_tokens=4, do_sample=False, use_cache=True)
        assert torch.equal(longer, model.generate(tokens, max_new_tokens=4, do_sample=False, use_cache=False))
