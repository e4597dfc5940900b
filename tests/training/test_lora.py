"""LoRA through PEFT: what trains, merged equals unmerged, save and reload, resume."""

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForVideoClassification, VideoMAEForVideoClassification

from hf_effvid.compression.lora import is_lora, merge_lora
from hf_effvid.training import ClassificationTask
from hf_effvid.training.lora import add_lora, head_modules, lora_target_modules
from hf_effvid.training.optim import parameter_rules

from .small_run import build_trainer, tiny_model, weights
from .test_trainer_steps import tiny_videomae


def trained(tmp_path, model, **options):
    options = {"learning_rate": 3e-2, "max_steps": 6, **options}
    trainer = build_trainer(tmp_path, add_lora(model, r=2, targets=options.pop("targets", None)), **options)
    trainer.train()
    return trainer


@pytest.fixture(params=["video_focalnet", "videomae"])
def make_model(request):
    return tiny_model if request.param == "video_focalnet" else tiny_videomae


class TestTargets:
    def test_every_linear_layer_of_the_blocks_and_no_other(self, make_model):
        model = make_model()
        targets = lora_target_modules(model)
        assert targets and "classifier" not in targets
        assert all(isinstance(model.get_submodule(name), torch.nn.Linear) for name in targets)
        assert "classifier" in head_modules(model)
        assert model.base_model_prefix not in head_modules(model)

    def test_name_endings(self):
        assert all(
            name.endswith(("query", "value")) for name in lora_target_modules(tiny_videomae(), ["query", "value"])
        )
        with pytest.raises(ValueError, match="no linear layer ending in nothing"):
            lora_target_modules(tiny_videomae(), ["nothing"])


class TestTraining:
    def test_only_adapters_and_head_train(self, tmp_path, make_model):
        model = make_model()
        original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        trainer = trained(tmp_path, model, save_strategy="no")
        assert is_lora(trainer.task.model)
        trained_names = set(trainer.parameter_rules)
        assert all("lora_" in name or "modules_to_save" in name for name in trained_names)
        state = trainer.task.model.get_base_model().state_dict()
        frozen = {name.replace(".base_layer", ""): tensor for name, tensor in state.items() if "lora_" not in name}
        head = tuple(head_modules(model))
        unchanged = [name for name in original if name in frozen and not name.startswith(head)]
        assert len(unchanged) == sum(not name.startswith(head) for name in original)
        assert all(torch.equal(original[name], frozen[name]) for name in unchanged)

    def test_rules_reach_through_the_wrapper(self, make_model):
        rules = parameter_rules(ClassificationTask(add_lora(make_model(), r=2)), layer_decay=0.5)
        scales = {rule.lr_scale for rule in rules.values()}
        assert len(scales) > 1 and max(scales) == 1.0
        assert all(rule.lr_scale == 1.0 for name, rule in rules.items() if "classifier" in name)


class TestMerging:
    def test_merged_equals_unmerged_and_survives_saving(self, tmp_path, make_model):
        trainer = trained(tmp_path / "run", make_model(), save_strategy="no")
        wrapped = trainer.task.model.eval()
        pixels = torch.randn(3, 2, 3, 16, 16)
        with torch.no_grad():
            unmerged = wrapped(pixel_values=pixels).logits
            wrapped.save_pretrained(tmp_path / "adapter")
            merged = merge_lora(wrapped).eval()
            torch.testing.assert_close(merged(pixel_values=pixels).logits, unmerged, atol=2e-5, rtol=1e-4)
            plain = make_model().eval()(pixel_values=pixels).logits
            assert (unmerged - plain).abs().max() > 1e-2, "the adapters did not learn anything"
            merged.save_pretrained(tmp_path / "merged")
            reloaded = AutoModelForVideoClassification.from_pretrained(tmp_path / "merged").eval()
            assert not any("lora" in name for name in reloaded.state_dict())
            torch.testing.assert_close(reloaded(pixel_values=pixels).logits, unmerged, atol=2e-5, rtol=1e-4)
            again = PeftModel.from_pretrained(make_model(), tmp_path / "adapter").eval()
            torch.testing.assert_close(again(pixel_values=pixels).logits, unmerged, atol=2e-5, rtol=1e-4)

    def test_a_plain_model_comes_back_unchanged(self):
        model = tiny_model()
        assert merge_lora(model) is model

    def test_merged_videomae_is_stock(self, tmp_path):
        trainer = trained(tmp_path / "run", tiny_videomae(), save_strategy="no", targets=["query", "value"])
        wrapped = trainer.task.model.eval()
        pixels = torch.randn(2, 2, 3, 16, 16)
        with torch.no_grad():
            unmerged = wrapped(pixel_values=pixels).logits
            merge_lora(wrapped).save_pretrained(tmp_path / "merged")
            stock = VideoMAEForVideoClassification.from_pretrained(tmp_path / "merged").eval()
            torch.testing.assert_close(stock(pixel_values=pixels).logits, unmerged, atol=2e-5, rtol=1e-4)


class TestCheckpoints:
    def test_resumed_equals_uninterrupted(self, tmp_path, make_model):
        ema_decay = 0.9 if make_model is tiny_model else 0.0
        options = {"ema_decay": ema_decay, "save_total_limit": None}
        straight = trained(tmp_path / "a", make_model(), **options)
        folder = tmp_path / "a" / "checkpoint-3"
        assert (folder / "adapter_model.safetensors").is_file() and not (folder / "model.safetensors").exists()
        held = load_file(folder / "task_state.safetensors")
        assert not any("base_layer" in name for name in held), "frozen weights belong to the base model"
        resumed = build_trainer(
            tmp_path / "b", add_lora(make_model(), r=2), learning_rate=3e-2, max_steps=6, **options
        )
        resumed.train(resume_from_checkpoint=folder)
        left, right = weights(straight), weights(resumed)
        assert all(torch.equal(left[name], right[name]) for name in left)
