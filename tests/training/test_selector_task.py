"""One step of training a selector: what the loss is, what gets gradients, what an evaluation reports."""

import pytest
import torch
from torch.nn import functional as F

from hf_effvid.compression import OracleSettings, oracle_importance
from hf_effvid.compression.host_selection import select_tokens
from hf_effvid.training.selector_targets import sharpen, weaken_edges
from hf_effvid.training.selector_task import SelectorTask, labels_of_model

from ..pipelines import hosts


LABELS = torch.tensor([3, 5, 0])
GRID = (2, 4, 4)


def lite(keep_ratio=0.5, build=hosts.videomae, **fields):
    model, _ = build()
    torch.manual_seed(0)
    return select_tokens(model, keep_ratio=keep_ratio, scorer="lite", selector_hidden_sizes=(8, 4), **fields)


def batch_of(clips=3):
    pixels = torch.randn(clips, hosts.FRAMES, 3, hosts.SIZE, hosts.SIZE, generator=torch.Generator().manual_seed(2))
    return {"pixel_values": pixels, "labels": LABELS[:clips].clone()}


def by_hand(model, batch, change=lambda targets: targets):
    """(B,) losses from the pieces: targets of the oracle, logits of the selector."""
    targets = change(oracle_importance(model, batch["pixel_values"], batch["labels"]).targets)
    with torch.no_grad():
        probability = model.token_scores(batch["pixel_values"], scorer="lite").sigmoid()
    return -(targets * probability.log() + (1 - targets) * (1 - probability).log()).mean(1)


@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_the_cross_entropy_of_soft_targets(training):
    task = SelectorTask(lite())
    task.train(training)
    outputs = task(batch_of())
    torch.testing.assert_close(outputs["losses"].detach(), by_hand(task.model, batch_of()), rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs["loss"], outputs["losses"].mean())


def test_only_the_selector_learns_and_the_host_stays_in_evaluation_mode():
    task = SelectorTask(lite()).train()
    task(batch_of())["loss"].backward()
    for name, parameter in task.named_parameters():
        if name.startswith("model.selector."):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name
    assert not task.model.videomae.training and not task.model.classifier.training and task.model.selector.training
    assert task.config.selector_trained


@pytest.mark.parametrize(
    ("variants", "change"),
    [
        (("edges",), lambda targets: weaken_edges(targets, GRID)),
        (("edges", "sharpen"), lambda targets: sharpen(weaken_edges(targets, GRID))),
    ],
)
def test_variants_change_the_targets(variants, change):
    task = SelectorTask(lite(), variants=variants).eval()
    expected = by_hand(task.model, batch_of(), change)
    torch.testing.assert_close(task(batch_of())["losses"], expected, rtol=0, atol=1e-5)
    assert (expected - by_hand(task.model, batch_of())).abs().max() > 1e-3


def test_the_control_learns_from_other_clips_and_is_judged_by_its_own():
    task = SelectorTask(lite(), shuffled=True)
    found = task.train()(batch_of())["losses"].detach()
    torch.testing.assert_close(found, by_hand(task.model, batch_of(), lambda t: t.roll(1, 0)), rtol=0, atol=1e-5)
    torch.testing.assert_close(task.eval()(batch_of())["losses"], by_hand(task.model, batch_of()), rtol=0, atol=1e-5)


def test_flat_clips_count_nothing():
    """A class whose row of the classifier is zero has no gradient: all tokens score 0, and nothing is learned, also not that 0 is right."""
    model = lite()
    with torch.no_grad():
        model.classifier.weight[LABELS[1]] = 0
    task = SelectorTask(model).train()
    outputs = task(batch_of())
    assert outputs["losses"][1] == 0 and (outputs["losses"][[0, 2]] > 0).all()
    assert outputs["flat_targets"] == pytest.approx(1 / 3)
    assert outputs["loss"].isfinite()
    outputs["losses"][1].backward()
    assert all(not p.grad.any() for p in task.model.selector.parameters() if p.grad is not None)


def test_other_oracles_and_labels():
    batch = batch_of()
    for settings in (OracleSettings(oracle_tensor="mlp_out"), OracleSettings(label_source="predicted")):
        task = SelectorTask(lite(), settings).eval()
        targets = oracle_importance(task.model, batch["pixel_values"], batch["labels"], settings).targets
        logits = task.model.token_scores(batch["pixel_values"], scorer="lite")
        expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)
        torch.testing.assert_close(task(batch)["losses"], expected)
    without = {"pixel_values": batch["pixel_values"]}
    assert "top1_full" not in task(without)


@pytest.mark.parametrize("build", [hosts.vivit, hosts.vjepa2, hosts.timesformer], ids=lambda build: build.__name__)
def test_other_hosts_train_too(build):
    """Autograd inside the forward pass of the task, an earlier block for hosts with a class token."""
    task = SelectorTask(lite(build=build), OracleSettings(oracle_block=-2)).train()
    task(batch_of())["loss"].backward()
    assert task.model.selector.network.layers[0].weight.grad.abs().max() > 0
    assert all(p.grad is None for name, p in task.named_parameters() if not name.startswith("model.selector."))


def test_an_evaluation_compares_with_all_and_with_random_tokens():
    task = SelectorTask(lite(), keep_ratio=0.25).eval()
    batch = batch_of()
    with torch.no_grad():
        outputs = task(batch)
        full = task.model(batch["pixel_values"], keep_ratio=1.0).logits.argmax(-1)
        kept = task.model(batch["pixel_values"], keep_ratio=0.25, scorer="lite")
    records = task.records(outputs, batch)
    assert len(records) == 3
    metrics = task.metrics(records)
    assert metrics["top1_full"] == pytest.approx((full == LABELS).float().mean().item())
    assert metrics["top1_lite"] == pytest.approx((kept.logits.argmax(-1) == LABELS).float().mean().item())
    wanted = oracle_importance(task.model, batch["pixel_values"], LABELS).targets.topk(8).indices
    shared = [len(set(a.tolist()) & set(b.tolist())) / 8 for a, b in zip(kept.kept_indices, wanted, strict=True)]
    assert metrics["overlap"] == pytest.approx(sum(shared) / 3)
    assert metrics["loss"] == pytest.approx(outputs["losses"].mean().item())
    assert -1 <= metrics["rank_correlation"] <= 1 and 0 <= metrics["top1_random"] <= 1


def test_classes_that_the_host_does_not_know_are_left_out_of_accuracies():
    label_map = torch.tensor([3, -1, 5])
    task = SelectorTask(lite(), OracleSettings(label_source="predicted"), label_map=label_map).eval()
    batch = {**batch_of(), "labels": torch.tensor([0, 1, 2])}
    outputs = task(batch)
    assert outputs["top1_full"][1] == -1 and (outputs["top1_full"][[0, 2]] >= 0).all()
    same = SelectorTask(lite(), OracleSettings(label_source="predicted")).eval()
    expected = same({**batch, "labels": torch.tensor([3, 3, 5])})["top1_full"]
    assert torch.equal(outputs["top1_full"][[0, 2]], expected[[0, 2]])


def test_several_labels_are_mapped_class_by_class():
    label_map = torch.tensor([2, -1, 0])
    hot = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert labels_of_model(hot, label_map, 4).tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert labels_of_model(torch.tensor([2, 1]), label_map, 4).tolist() == [0, -1]
    assert labels_of_model(hot, None, 3) is hot and labels_of_model(None, label_map, 4) is None


def test_several_labels_train():
    model = lite()
    model.config.problem_type = "multi_label_classification"
    task = SelectorTask(model).eval()
    hot = torch.zeros(3, hosts.LABELS)
    hot[range(3), LABELS] = 1
    several, single = task({**batch_of(), "labels": hot}), SelectorTask(lite()).eval()(batch_of())
    torch.testing.assert_close(several["losses"], single["losses"])
    assert "top1_full" not in several and "overlap" in several


def test_views_are_clips():
    task = SelectorTask(lite()).eval()
    batch = batch_of(2)
    views = {"pixel_values": batch["pixel_values"][:, None].repeat(1, 2, 1, 1, 1, 1), "labels": batch["labels"]}
    one, two = task(batch), task(views)
    torch.testing.assert_close(two["losses"], one["losses"].repeat_interleave(2))
    torch.testing.assert_close(two["loss"], one["loss"])


def test_a_model_without_selector_is_refused():
    with pytest.raises(ValueError, match="has no selector to train"):
        SelectorTask(hosts.videomae()[0])
