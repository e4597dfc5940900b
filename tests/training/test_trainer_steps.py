"""What one optimiser step does: accumulation, groups, order of the data, random draws, moving average."""

import pytest
import torch
from transformers import Trainer, VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid.training import ClassificationTask, EffVidTrainer, EffVidTrainingArguments
from hf_effvid.training.data_order import EpochIndexedDataset, EpochSampler, IndexKeepingCollator, mix_seed
from hf_effvid.training.ema import WeightAverage
from hf_effvid.training.optim import find_blocks, layer_ids, parameter_rules

from .small_run import RandomClips, arguments, build_trainer, tiny_model, weights


def tiny_videomae(**overrides):
    torch.manual_seed(0)
    fields = {
        "image_size": 16,
        "patch_size": 8,
        "num_frames": 2,
        "tubelet_size": 1,
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_labels": 3,
    }
    return VideoMAEForVideoClassification(VideoMAEConfig(**{**fields, **overrides}))


def still_model():
    return tiny_model(drop_path_rate=0.0, hidden_dropout_prob=0.0)


class TestAccumulation:
    def test_four_batches_of_one_equal_one_batch_of_four(self, tmp_path):
        trained = []
        for batch, accumulation in ((4, 1), (1, 4)):
            trainer = build_trainer(
                tmp_path / f"{batch}",
                still_model(),
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                save_strategy="no",
                optim="sgd",
                learning_rate=0.1,
                max_grad_norm=0.0,
                max_steps=4,
            )
            start = weights(trainer)
            trainer.train()
            trained.append(weights(trainer))
        for name, tensor in trained[0].items():
            torch.testing.assert_close(trained[1][name], tensor, rtol=0, atol=2e-6)
        moved = max((trained[0][name] - start[name]).abs().max().item() for name in start)
        assert moved > 1e-2

    def test_class_weights_do_not_break_the_equality(self, tmp_path):
        trained = []
        for batch, accumulation in ((4, 1), (1, 4)):
            trainer = build_trainer(
                tmp_path / f"{batch}",
                still_model(),
                task_options={"class_weights": torch.tensor([0.2, 1.0, 3.0])},
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
                save_strategy="no",
                optim="sgd",
                learning_rate=0.1,
                max_grad_norm=0.0,
                max_steps=2,
            )
            trainer.train()
            trained.append(weights(trainer))
        for name, tensor in trained[0].items():
            torch.testing.assert_close(trained[1][name], tensor, rtol=0, atol=2e-6)


class TestOverfit:
    def test_two_clips_reach_zero_loss(self, tmp_path):
        trainer = build_trainer(
            tmp_path,
            still_model(),
            train=RandomClips(2, augment=False),
            save_strategy="no",
            max_steps=60,
            learning_rate=1e-2,
            weight_decay=0.0,
            logging_steps=5,
        )
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        assert losses[0] > 0.3
        assert losses[-1] < 1e-3


class TestParameterGroups:
    @pytest.mark.parametrize("model", [tiny_model(), tiny_videomae()], ids=["video_focalnet", "videomae"])
    def test_depths_grow_and_the_head_learns_fastest(self, model):
        ids, num_depths = layer_ids(model)
        assert num_depths == len(find_blocks(model)) + 2
        assert set(ids.values()) >= set(range(1, num_depths))
        assert list(ids.values()) == sorted(ids.values())
        assert ids["classifier.weight"] == num_depths - 1
        first = next(iter(ids))
        rules = parameter_rules(ClassificationTask(model), layer_decay=0.5)
        assert rules["model.classifier.weight"].lr_scale == 1.0
        assert rules[f"model.{first}"].lr_scale == 0.5 ** (num_depths - 1)

    def test_vectors_and_tables_do_not_decay(self):
        rules = parameter_rules(ClassificationTask(tiny_model()))
        undecayed = {name for name, rule in rules.items() if not rule.decays}
        assert all(name in undecayed for name in rules if name.endswith("bias") or "norm" in name.rsplit(".", 2)[-2])
        assert any("scale" in name or "gamma" in name for name in undecayed), "layer scale must not decay"
        assert rules["model.classifier.weight"].decays

    def test_the_optimiser_gets_them(self, tmp_path):
        trainer = build_trainer(tmp_path, layer_decay=0.5, weight_decay=0.1, learning_rate=1.0)
        optimizer = trainer.create_optimizer()
        in_groups = sum(parameter.numel() for group in optimizer.param_groups for parameter in group["params"])
        assert in_groups == sum(parameter.numel() for parameter in trainer.task.parameters())
        assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.1}
        assert {group["lr"] for group in optimizer.param_groups} == {1.0, 0.5, 0.25, 0.125}

    def test_schedule_scales_every_group(self, tmp_path):
        trainer = build_trainer(tmp_path, layer_decay=0.5, warmup_steps=2, max_steps=8, save_strategy="no")
        trainer.train()
        initial = {group["initial_lr"] for group in trainer.optimizer.param_groups}
        assert len(initial) > 1
        ratios = {round(group["lr"] / group["initial_lr"], 9) for group in trainer.optimizer.param_groups}
        assert len(ratios) == 1

    def test_a_model_without_blocks_is_refused(self):
        plain = torch.nn.Module()
        plain.linear = torch.nn.Linear(2, 2)
        plain.config = tiny_model().config
        with pytest.raises(ValueError, match="needs a model with repeated blocks"):
            parameter_rules(ClassificationTask(plain), layer_decay=0.5)


class TestDataOrder:
    def test_order_is_a_function_of_seed_and_epoch(self):
        def order(seed, epoch):
            sampler = EpochSampler(50, seed)
            sampler.set_epoch(epoch)
            return list(sampler)

        assert order(1, 0) == order(1, 0)
        assert order(1, 0) != order(1, 1)
        assert order(1, 0) != order(2, 0)
        assert sorted(index for _, index in order(1, 3)) == list(range(50))
        assert {epoch for epoch, _ in order(1, 3)} == {3}

    def test_global_generator_plays_no_part(self):
        sampler = EpochSampler(50, seed=0)
        torch.manual_seed(1)
        first = list(sampler)
        torch.manual_seed(2)
        torch.rand(3)
        assert list(sampler) == first

    def test_weights_balance_the_classes(self):
        labels = torch.tensor([0] * 90 + [1] * 10)
        weights = torch.where(labels == 0, 1 / 90, 1 / 10)
        drawn = [index for _, index in EpochSampler(100, seed=0, weights=weights)]
        share = (labels[torch.tensor(drawn)] == 1).float().mean().item()
        assert 0.35 < share < 0.65

    @pytest.mark.parametrize("persistent", [False, True])
    def test_epochs_reach_workers(self, persistent):
        sampler = EpochSampler(4, seed=0, shuffle=False)
        loader = torch.utils.data.DataLoader(
            EpochIndexedDataset(RandomClips(4)),
            sampler=sampler,
            num_workers=1,
            persistent_workers=persistent,
            collate_fn=IndexKeepingCollator(torch.utils.data.default_collate),
        )
        epochs = []
        for epoch in (0, 1, 0):
            sampler.set_epoch(epoch)
            epochs.append(torch.cat([batch["pixel_values"] for batch in loader]))
        assert not torch.equal(epochs[0], epochs[1])
        assert torch.equal(epochs[0], epochs[2])

    def test_mix_seed_separates_neighbours(self):
        seeds = {mix_seed(seed, step, micro) for seed in range(5) for step in range(20) for micro in range(3)}
        assert len(seeds) == 300
        assert all(0 <= seed < 2**63 for seed in seeds)
        assert mix_seed(1, 2) != mix_seed(2, 1)

    def test_skipped_clips_leave_the_batch(self):
        collate = IndexKeepingCollator(torch.utils.data.default_collate)
        items = [EpochIndexedDataset(RandomClips())[3], None]
        assert collate(items)["index"].tolist() == [3]
        with pytest.raises(ValueError, match="Every clip of a batch was skipped"):
            collate([None, None])


class TestMovingAverage:
    def test_it_is_the_average(self):
        model = torch.nn.Linear(2, 1)
        average = WeightAverage(model, decay=0.5)
        expected = model.weight.detach().clone()
        for step in range(1, 30):
            with torch.no_grad():
                model.weight.add_(1.0)
            average.update(model)
            decay = min(0.5, (1 + step) / (10 + step))
            expected = decay * expected + (1 - decay) * model.weight
        torch.testing.assert_close(average.shadow["weight"], expected.detach())

    def test_swapping_in_and_out_is_exact(self):
        model = torch.nn.BatchNorm1d(3)
        average = WeightAverage(model, decay=0.9)
        with torch.no_grad():
            model.weight.fill_(5.0)
            model.running_mean.fill_(2.0)
        with average.applied_to(model):
            assert model.weight.tolist() == [1.0] * 3
            assert model.running_mean.tolist() == [0.0] * 3
        assert model.weight.tolist() == [5.0] * 3
        assert model.running_mean.tolist() == [2.0] * 3

    def test_what_is_evaluated_is_what_is_left_at_the_end(self, tmp_path):
        trainer = build_trainer(tmp_path, ema_decay=0.9, save_strategy="no", max_steps=5)
        trainer.train()
        for name, tensor in trainer.average.shadow.items():
            assert torch.equal(trainer.task.model.state_dict()[name], tensor)
        assert trainer.average_is_live


class TestFrozenParts:
    def test_frozen_backbone_stays_in_eval_mode_and_unchanged(self, tmp_path):
        from hf_effvid.training.freezing import freeze

        model = tiny_model()
        freeze(model, ["backbone"])
        trainer = build_trainer(tmp_path, model, save_strategy="no", max_steps=3)
        before = weights(trainer)
        trainer.train()
        after = weights(trainer)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"model.classifier.weight", "model.classifier.bias"}
        trainer.task.train()
        assert trainer.task.model.classifier.training
        backbone = getattr(trainer.task.model, trainer.task.model.base_model_prefix)
        assert not any(module.training for module in backbone.modules())

    def test_patterns_that_match_nothing_are_refused(self):
        from hf_effvid.training.freezing import freeze

        with pytest.raises(ValueError, match="matches no parameter"):
            freeze(tiny_model(), ["no_such_layer"])
        with pytest.raises(ValueError, match="leaves nothing to train"):
            freeze(tiny_model(), ["."])


class TestArguments:
    def test_bad_values_are_refused_by_name(self, tmp_path):
        for field, value in (
            ("loss", "hinge"),
            ("ema_decay", 1.0),
            ("layer_decay", 0.0),
            ("label_smoothing", -0.1),
            ("non_finite", "hope"),
            ("num_clips", 0),
        ):
            with pytest.raises(ValueError, match=f"{field} must be"):
                arguments(tmp_path, **{field: value})
        with pytest.raises(ValueError, match="remove_unused_columns must be False"):
            arguments(tmp_path, remove_unused_columns=True)
        with pytest.raises(ValueError, match="set label_smoothing instead"):
            arguments(tmp_path, label_smoothing_factor=0.1)

    def test_every_own_field_is_documented(self):
        import ast
        import inspect

        source = ast.parse(inspect.getsource(EffVidTrainingArguments))
        body = source.body[0].body
        fields = [index for index, node in enumerate(body) if isinstance(node, ast.AnnAssign)]
        assert len(fields) > 25
        for index in fields:
            following = body[index + 1]
            assert isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant), ast.unparse(
                body[index]
            )

    def test_a_bare_model_is_refused(self, tmp_path):
        with pytest.raises(TypeError, match="wrap a classifier as ClassificationTask"):
            EffVidTrainer(tiny_model(), args=arguments(tmp_path))

    def test_it_is_a_transformers_trainer(self, tmp_path):
        assert isinstance(build_trainer(tmp_path), Trainer)
