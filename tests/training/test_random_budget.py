"""Fine-tuning under random keep ratios: what is drawn, what is trained, and that LoRA merges at every budget."""

import pytest
import torch
from transformers import VideoMAEForVideoClassification

from hf_effvid import EffVidVideoProcessor, LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
from hf_effvid.compression.lora import merge_lora
from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.models.budget_gauges import BudgetProbe
from hf_effvid.models.token_budget import BudgetPolicy
from hf_effvid.training import EffVidTrainer, EffVidTrainingArguments
from hf_effvid.training.classification import train_classifier
from hf_effvid.training.lora import add_lora, head_modules
from hf_effvid.training.model_setup import open_classifier
from hf_effvid.training.random_budget import RandomBudgetTask

from .small_run import RandomClips, arguments, tiny_model
from .test_trainer_steps import tiny_videomae


RATIOS = [0.25, 0.5, 1.0]


def tiny_lite(**fields):
    torch.manual_seed(0)
    config = LiteVideoMAEConfig(
        image_size=16, patch_size=8, num_frames=2, tubelet_size=1, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=16, num_labels=3, scorer="random", **fields,
    )  # fmt: skip
    model = LiteVideoMAEForVideoClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def trained(tmp_path, model, seen=None, **options):
    args = arguments(tmp_path, **{"learning_rate": 3e-2, "max_steps": 8, "save_strategy": "no", **options})
    trainer = EffVidTrainer(RandomBudgetTask(model, RATIOS), args=args, train_dataset=RandomClips())
    if seen is not None:
        encoder = model.videomae.encoder if hasattr(model, "videomae") else model.get_base_model().videomae.encoder
        encoder.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    trainer.train()
    return trainer


def test_every_step_keeps_another_share_and_a_run_can_be_repeated(tmp_path):
    runs = []
    for name in ("first", "second"):
        seen = []
        trainer = trained(tmp_path / name, tiny_lite(), seen)
        runs.append((seen, {key: value.clone() for key, value in trainer.task.model.state_dict().items()}))
    assert runs[0][0] == runs[1][0] and len(runs[0][0]) == 8
    assert set(runs[0][0]) == {2, 4, 8}
    assert all(torch.equal(runs[0][1][key], runs[1][1][key]) for key in runs[0][1])


def test_the_selector_stays_and_the_host_learns(tmp_path):
    model = tiny_lite()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = trained(tmp_path, model, max_steps=40, learning_rate=1e-2)
    after = trainer.task.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(name.startswith("selector.") for name in changed)
    assert {"classifier.weight", "videomae.encoder.layer.0.attention.attention.query.weight"} <= changed
    clips = torch.stack([RandomClips(augment=False)[index]["pixel_values"] for index in range(6)])
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        for ratio in RATIOS:
            logits = trainer.task.model.eval()(clips, keep_ratio=ratio).logits
            assert (logits.argmax(1) == labels).double().mean() >= 5 / 6, ratio


def test_evaluations_keep_what_the_configuration_says():
    task = RandomBudgetTask(tiny_lite(keep_ratio=0.5), [0.25]).eval()
    assert task.model_options() == {}
    assert task.train().model_options() == {"keep_ratio": 0.25}
    clips = torch.randn(2, 2, 3, 16, 16)
    with torch.no_grad():
        wanted = task.model.eval()(clips, keep_ratio=0.5).logits
        assert torch.equal(task.eval()({"pixel_values": clips})["logits"], wanted)


def test_merged_adapters_equal_unmerged_ones_at_every_budget(tmp_path):
    wrapped = add_lora(tiny_lite(), r=2)
    assert head_modules(tiny_lite()) == ["fc_norm", "classifier"]
    trainer = trained(tmp_path, wrapped)
    assert not any("selector" in name for name in trainer.parameter_rules)
    wrapped = trainer.task.model.eval()
    clips = torch.randn(3, 2, 3, 16, 16)
    with torch.no_grad():
        unmerged = [wrapped(pixel_values=clips, keep_ratio=ratio).logits for ratio in (*RATIOS, [0.25, 0.5, 1.0])]
        plain = tiny_lite().eval()(clips, keep_ratio=0.5).logits
        assert (unmerged[1] - plain).abs().max() > 1e-2
        merged = merge_lora(wrapped).eval()
        for ratio, wanted in zip((*RATIOS, [0.25, 0.5, 1.0]), unmerged, strict=True):
            torch.testing.assert_close(merged(clips, keep_ratio=ratio).logits, wanted, atol=2e-5, rtol=1e-4)
        merged.save_pretrained(tmp_path / "merged")
        stock = VideoMAEForVideoClassification.from_pretrained(tmp_path / "merged").eval()
        torch.testing.assert_close(stock(clips).logits, unmerged[2], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("lora", [0, 2])
def test_a_stock_host_from_videos_to_a_checkpoint_for_every_budget(tmp_path, lora):
    videos = make_motion_dataset(
        tmp_path / "data",
        {"train": 4, "validation": 2},
        size=24,
        num_frames=8,
        classes=["grows", "shrinks"],
        progress=False,
    )
    host = tiny_videomae(num_labels=2)
    host.save_pretrained(tmp_path / "host")
    fields = {
        "random_keep_ratios": [0.5, 1.0],
        "lora_r": lora,
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
    }
    outcome = train_classifier(
        str(tmp_path / "host"),
        videos,
        output_dir=tmp_path / "run",
        processor=EffVidVideoProcessor(num_frames=2, size={"shortest_edge": 18}, crop_size=16),
        args=fields | {"report_to": "none", "save_strategy": "no", "load_best_model_at_end": False},
        progress=False,
    )
    model, info = LiteVideoMAEForVideoClassification.from_pretrained(outcome.model_dir, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert (model.config.keep_ratio, model.config.scorer) == (1.0, "random")
    stock, info = VideoMAEForVideoClassification.from_pretrained(outcome.model_dir, output_loading_info=True)
    assert not info["missing_keys"]
    clips = torch.randn(2, 2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(stock.eval()(clips).logits, model.eval()(clips).logits, atol=1e-6, rtol=1e-5)
        assert model(clips, keep_ratio=0.5).realised_keep_ratio.tolist() == [0.5, 0.5]


def test_a_budget_policy_does_not_outlive_its_classes(tmp_path):
    model = tiny_lite(keep_ratio=0.5, id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2})
    model.set_budget_policy(BudgetPolicy(0.2, 0.8), probe=BudgetProbe(16, 3))
    model.save_pretrained(tmp_path)
    same = open_classifier(tmp_path, ["a", "b", "c"])
    assert same.config.budget_policy == model.config.budget_policy
    assert torch.equal(same.budget_probe.weight, model.budget_probe.weight)
    # read from a file, they are still no part of what a loss on logits trains
    assert not any(p.requires_grad for part in (same.selector, same.budget_probe) for p in part.parameters())
    assert head_modules(same) == ["fc_norm", "classifier"]
    for names in (["d", "e"], ["c", "b", "a"]):
        other = open_classifier(tmp_path, names)
        assert other.config.budget_policy is None and other.budget_probe is None
        # the selector is no head: it stays
        for name, value in model.selector.state_dict().items():
            assert torch.equal(other.selector.state_dict()[name], value)


@pytest.mark.parametrize("ratios", [[], [0.0], [0.5, 1.5]])
def test_shares_that_are_none(ratios):
    with pytest.raises(ValueError, match="share of tokens|a number in"):
        RandomBudgetTask(tiny_lite(), ratios)


def test_arguments_and_hosts_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="random_keep_ratios must be a number in"):
        EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, random_keep_ratios=[30])
    with pytest.raises(ValueError, match="need a model with token selection, got VideoFocalNet"):
        RandomBudgetTask(tiny_model(), [0.5])
