"""The evaluation keeps every clip, whatever the shape of its target; mixed precision, trackers, waiting time."""

import json
import sqlite3

import pytest
import torch

from hf_effvid.training import ClassificationTask, EffVidTrainer, Task
from hf_effvid.training.data_wait import WaitClock
from hf_effvid.training.gathering import gather_records, stack_records

from .small_run import RandomClips, arguments, build_trainer, tiny_model, weights
from .test_resume import run_script


class RaggedClips(RandomClips):
    """Clip i has i segments: what temporal detection looks like."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        item["labels"] = torch.arange(2 * index, dtype=torch.float).reshape(index, 2)
        return item


def collate_ragged(items):
    return {
        "pixel_values": torch.stack([item["pixel_values"] for item in items]),
        "labels": [item["labels"] for item in items],
    }


class SegmentTask(Task):
    """Counts segments; its targets have a different length per clip."""

    def forward(self, batch):
        logits = self.model(pixel_values=batch["pixel_values"]).logits
        counts = torch.tensor([float(len(label)) for label in batch["labels"]], device=logits.device)
        error = (logits[:, 0] - counts).abs()
        return {"loss": error.mean(), "errors": error, "mean_count": counts.mean()}

    def records(self, outputs, batch):
        return [
            {"error": error, "label": label.cpu()}
            for error, label in zip(outputs["errors"].detach().cpu(), batch["labels"], strict=True)
        ]

    def metrics(self, records):
        return {"segments": float(sum(len(record["label"]) for record in records))}


class TestRaggedTargets:
    def test_nothing_is_lost(self, tmp_path):
        args = arguments(tmp_path, save_strategy="no", max_steps=2, per_device_eval_batch_size=3, logging_steps=1)
        trainer = EffVidTrainer(
            SegmentTask(tiny_model()),
            args=args,
            train_dataset=RaggedClips(),
            eval_dataset=RaggedClips(8),
            data_collator=collate_ragged,
        )
        trainer.train()
        metrics = trainer.evaluate()
        assert metrics["eval_clips"] == 8
        assert metrics["eval_segments"] == sum(range(8))
        output = trainer.predict(RaggedClips(8))
        assert [len(label) for label in output.label_ids] == list(range(8))
        # a task's further terms are logged beside the loss
        logged = [entry["mean_count"] for entry in trainer.state.log_history if "mean_count" in entry]
        assert len(logged) == 2 and all(0 <= value <= 7 for value in logged)


class TestMultiLabel:
    @pytest.mark.parametrize("batch_size", [1, 3, 8])
    def test_metrics_do_not_depend_on_the_batch_size(self, tmp_path, batch_size):
        model = tiny_model(problem_type="multi_label_classification")
        trainer = build_trainer(
            tmp_path, model, validation=RandomClips(8, multi_label=True), per_device_eval_batch_size=batch_size
        )
        metrics = trainer.evaluate()
        task = trainer.task.eval()
        batch = torch.utils.data.default_collate([RandomClips(8, multi_label=True)[i] for i in range(8)])
        with torch.no_grad():
            expected = task.metrics(task.records(task(batch), batch))
        assert metrics["eval_clips"] == 8
        assert metrics["eval_loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert metrics["eval_mAP"] == pytest.approx(expected["mAP"], abs=1e-6)


class TestGathering:
    def test_clips_seen_twice_count_once_in_the_order_of_the_data(self):
        class OneProcess:
            num_processes = 1

        records = [{"index": index, "logits": torch.tensor(float(index))} for index in (2, 0, 1, 0)]
        gathered = gather_records(records, OneProcess())
        assert [record["index"] for record in gathered] == [0, 1, 2]

    def test_streams_on_several_processes_are_refused(self):
        class TwoProcesses:
            num_processes = 2

        with pytest.raises(ValueError, match="a stream can only be evaluated on one process"):
            gather_records([{"logits": torch.zeros(1)}], TwoProcesses())

    def test_stacking(self):
        assert stack_records([{"a": torch.zeros(2)}, {"a": torch.ones(2)}], "a").shape == (2, 2)
        assert [len(v) for v in stack_records([{"a": torch.zeros(2)}, {"a": torch.ones(3)}], "a")] == [2, 3]
        assert stack_records([{"a": torch.zeros(2)}], "b") is None

    def test_own_metrics_and_several_evaluation_sets(self, tmp_path):
        sets = {"near": RandomClips(4), "far": RandomClips(5, augment=False)}
        task = ClassificationTask(tiny_model())
        trainer = EffVidTrainer(
            task,
            args=arguments(tmp_path),
            train_dataset=RandomClips(),
            eval_dataset=sets,
            compute_metrics=lambda records: {"count": len(records)},
        )
        metrics = trainer.evaluate()
        assert (metrics["eval_near_count"], metrics["eval_far_count"]) == (4, 5)

    def test_evaluation_does_not_move_the_model(self, tmp_path):
        trainer = build_trainer(tmp_path, validation=RandomClips(4), ema_decay=0.5, save_strategy="no", max_steps=2)
        before = weights(trainer)
        first, second = trainer.evaluate(), trainer.evaluate()
        assert first["eval_loss"] == second["eval_loss"]
        assert all(torch.equal(before[name], tensor) for name, tensor in weights(trainer).items())

    def test_dropping_the_last_batch_of_training_drops_nothing_here(self, tmp_path):
        args = {"max_steps": 1, "save_strategy": "no", "per_device_eval_batch_size": 4, "dataloader_drop_last": True}
        trainer = build_trainer(tmp_path, validation=RandomClips(7), train=RandomClips(7), **args)
        assert trainer.evaluate()["eval_clips"] == 7
        assert len(list(trainer.get_train_dataloader())) == 3 and trainer.args.dataloader_drop_last


class TestPrecision:
    def test_bf16_trains_in_bf16_and_keeps_float_weights(self, tmp_path):
        seen = set()
        model = tiny_model(drop_path_rate=0.0, hidden_dropout_prob=0.0)
        model.classifier.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
        trainer = build_trainer(
            tmp_path,
            model,
            train=RandomClips(6, augment=False),
            validation=RandomClips(6, augment=False),
            bf16=True,
            save_strategy="no",
            max_steps=30,
            learning_rate=1e-2,
        )
        trainer.train()
        assert seen == {torch.bfloat16}
        assert {tensor.dtype for tensor in weights(trainer).values()} == {torch.float32}
        metrics = trainer.evaluate()
        assert metrics["eval_top1"] == 1.0 and metrics["eval_loss"] < 0.5


class TestTrackers:
    @pytest.mark.slow
    def test_trackio(self, tmp_path, monkeypatch):
        # in a process of its own: trackio reads its folder when it is imported
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
        options = {"report_to": "trackio", "project": "effvid-test", "run_name": "one", "logging_steps": 1}
        finished = run_script(tmp_path / "run", {**options, "save_strategy": "no", "max_steps": 3})
        assert finished.returncode == 0, finished.stderr[-3000:]
        (path,) = (tmp_path / "trackio").glob("effvid-test*.db")
        with sqlite3.connect(path) as database:
            logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by step")]
        assert len([entry for entry in logged if "train/loss" in entry or "loss" in entry]) == 3


class TestWaitClock:
    def test_share(self):
        times = iter([0.0, 1.0, 4.0, 4.0, 6.0, 8.0])
        clock = WaitClock(clock=lambda: next(times))
        with clock.waiting():
            pass
        assert clock.share() == 0.25
        with clock.waiting():
            pass
        assert clock.share() == 0.5

    def test_it_is_logged(self, tmp_path):
        trainer = build_trainer(tmp_path, logging_steps=1, save_strategy="no", max_steps=2)
        trainer.train()
        shares = [entry["data_wait"] for entry in trainer.state.log_history if "data_wait" in entry]
        assert len(shares) == 2 and all(0 <= share <= 1 for share in shares)
