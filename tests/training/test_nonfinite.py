"""The guard names the block where a NaN arose, and stops or skips."""

import pickle

import pytest
import torch

from hf_effvid.training import NonFiniteError
from hf_effvid.training.nonfinite import first_non_finite_gradient, locate_non_finite, non_finite_tensors
from hf_effvid.training.optim import find_blocks

from .small_run import RandomClips, build_trainer, tiny_model, weights


class NaNAtCall(torch.nn.Module):
    """Passes a tensor through; from a given training call on, one value becomes NaN (or only its gradient does)."""

    def __init__(self, inner, bad_calls, in_gradient=False):
        super().__init__()
        self.inner, self.bad_calls, self.in_gradient, self.calls = inner, bad_calls, in_gradient, 0

    def forward(self, *args, **kwargs):
        output = self.inner(*args, **kwargs)
        if torch.is_grad_enabled():
            self.calls += 1
        if self.calls not in self.bad_calls:
            return output
        if self.in_gradient:
            # sqrt(0) is 0, its derivative is infinite
            return output + torch.sqrt(output * 0)
        return output + float("nan")


def poison(model, bad_calls, in_gradient=False):
    """Replaces the MLP of the second block; returns its name in the task."""
    name, block = find_blocks(model)[1]
    child, module = next((n, m) for n, m in block.named_children() if "mlp" in n.lower())
    setattr(block, child, NaNAtCall(module, bad_calls, in_gradient))
    return f"model.{name}.{child}"


class TestStop:
    def test_the_block_is_named(self, tmp_path):
        model = tiny_model()
        name = poison(model, bad_calls={3})
        trainer = build_trainer(tmp_path, model, save_strategy="no")
        with pytest.raises(NonFiniteError, match=r"Non-finite loss at step 2") as error:
            trainer.train()
        assert error.value.where.startswith(f"the output of {name} ")
        assert not any(module._forward_hooks for module in trainer.task.modules())

    def test_a_bad_gradient_names_its_parameter(self, tmp_path):
        model = tiny_model()
        name = poison(model, bad_calls={2}, in_gradient=True)
        trainer = build_trainer(tmp_path, model, save_strategy="no")
        with pytest.raises(NonFiniteError, match="Non-finite gradient at step 1") as error:
            trainer.train()
        assert error.value.where.startswith("the gradient of model.")
        # everything above the poisoned block still has a finite gradient
        assert "classifier" not in error.value.where and name

    def test_a_bad_clip_is_named_as_the_input(self, tmp_path):
        class BadClips(RandomClips):
            def __getitem__(self, index):
                item = super().__getitem__(index)
                item["pixel_values"][0, 0, 0, 0] = float("inf")
                return item

        trainer = build_trainer(tmp_path, train=BadClips(), save_strategy="no")
        with pytest.raises(NonFiniteError, match=r"the input batch \(pixel_values\)"):
            trainer.train()

    def test_a_broken_weight_is_named(self, tmp_path):
        model = tiny_model()
        with torch.no_grad():
            model.classifier.weight[0, 0] = float("nan")
        trainer = build_trainer(tmp_path, model, save_strategy="no")
        with pytest.raises(NonFiniteError, match="the parameter model.classifier.weight, before the forward pass"):
            trainer.train()


class TestSkip:
    @pytest.mark.parametrize("in_gradient", [False, True])
    def test_one_bad_batch_is_left_out(self, tmp_path, in_gradient, caplog):
        model = tiny_model()
        poison(model, bad_calls={2}, in_gradient=in_gradient)
        trainer = build_trainer(tmp_path, model, save_strategy="no", non_finite="skip", max_steps=5)
        before = weights(trainer)
        trainer.train()
        assert trainer.state.global_step == 5
        assert trainer.guard.skipped_total == 1
        assert trainer.guard.skipped_in_a_row == 0
        after = weights(trainer)
        assert all(torch.isfinite(tensor).all() for tensor in after.values())
        assert any(not torch.equal(before[name], after[name]) for name in before)
        assert "The batch is skipped (1 so far)" in caplog.text

    def test_endless_skipping_stops(self, tmp_path):
        model = tiny_model()
        poison(model, bad_calls=set(range(100)))
        trainer = build_trainer(tmp_path, model, save_strategy="no", non_finite="skip", max_skipped_batches=3)
        with pytest.raises(NonFiniteError, match="4 batches in a row"):
            trainer.train()
        assert trainer.guard.skipped_total == 4

    def test_ignoring_lets_it_through(self, tmp_path):
        model = tiny_model()
        poison(model, bad_calls={2})
        trainer = build_trainer(tmp_path, model, save_strategy="no", non_finite="ignore", max_steps=3)
        trainer.train()
        assert not all(torch.isfinite(tensor).all() for tensor in weights(trainer).values())


class TestPieces:
    def test_paths_of_tensors(self):
        bad = torch.tensor([float("nan")])
        assert non_finite_tensors({"a": [torch.ones(1), (bad,)], "b": torch.tensor([1])}) == ["a.1.0"]
        assert non_finite_tensors(bad) == ["value"]
        assert non_finite_tensors({"a": "text", "b": None}) == []

    def test_a_finite_pass_blames_the_loss(self):
        module = torch.nn.Sequential(torch.nn.Linear(2, 2))
        where = locate_non_finite(module, {}, lambda: module(torch.ones(1, 2)))
        assert where.startswith("the loss itself")

    def test_gradients(self):
        module = torch.nn.Linear(2, 1)
        assert first_non_finite_gradient(module) is None
        module(torch.ones(1, 2)).sum().backward()
        assert first_non_finite_gradient(module) is None
        # large but finite: a sum of squares would overflow
        module.weight.grad.fill_(3e38)
        assert first_non_finite_gradient(module) is None
        module.bias.grad.fill_(float("nan"))
        assert first_non_finite_gradient(module) == "bias"

    def test_the_error_survives_pickling(self):
        error = pickle.loads(pickle.dumps(NonFiniteError("message", "here")))
        assert (str(error), error.where) == ("message", "here")
