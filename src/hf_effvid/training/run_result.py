"""What every training run ends with: the last evaluation, the Hub folder, the record of the run."""

import time
from dataclasses import asdict
from pathlib import Path

from ..compression.lora import is_lora, merge_lora
from ..host_loading import save_head
from .data_order import EpochIndexedDataset
from .model_setup import save_classifier
from .outcome import TrainOutcome


MODEL_FOLDER, ADAPTER_FOLDER, OUTCOME_NAME = "model", "adapter", "training.json"


def run_and_save(
    trainer, resume_from, names, held_out, items="clips", keep_adapter=True, before_saving=None, **record
):
    """Trains, evaluates what came out, saves it and writes the record of the run.

    Args:
        trainer: an `EffVidTrainer`.
        resume_from: checkpoint folder to continue from, or None.
        names: classes in the order of the labels.
        held_out: whether the validation clips were split off the training set.
        items: what the data sets hold, for the summary.
        keep_adapter: with LoRA, also write the adapters alone.
        before_saving: called between the last evaluation and the saving of the model.
        record: further fields of the outcome.

    Returns:
        a `TrainOutcome`.
    """
    num_parameters = sum(parameter.numel() for parameter in trainer.task.model.parameters())
    num_trainable = sum(p.numel() for p in trainer.task.model.parameters() if p.requires_grad)
    train, validation = (_unwrapped(dataset) for dataset in (trainer.train_dataset, trainer.eval_dataset))
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=resume_from)
    seconds = time.monotonic() - started
    metrics = _plain_metrics(trainer.evaluate()) if validation is not None else {}
    if before_saving is not None:
        before_saving()
    model_dir, adapter_dir = _save(trainer, keep_adapter)
    outcome = TrainOutcome(
        model_dir=str(model_dir),
        best_checkpoint=trainer.state.best_model_checkpoint,
        adapter_dir=str(adapter_dir) if adapter_dir else None,
        metrics=metrics,
        train_loss=result.training_loss,
        steps=trainer.state.global_step,
        epochs=float(trainer.state.epoch or 0.0),
        seconds=seconds,
        class_names=names,
        num_train=len(train) if hasattr(train, "__len__") else None,
        num_validation=len(validation) if hasattr(validation, "__len__") else 0,
        num_parameters=num_parameters,
        num_trainable=num_trainable,
        skipped=_skipped(train, validation),
        held_out=held_out,
        items=items,
        history=trainer.state.log_history,
        **record,
    )
    if trainer.is_world_process_zero():
        outcome.save(Path(trainer.args.output_dir) / OUTCOME_NAME)
    return outcome


def _save(trainer, keep_adapter):
    """Writes the final Hub folder, and with LoRA the adapters alone beside it."""
    root, processor = Path(trainer.args.output_dir), trainer.processing_class
    model_dir, adapter_dir = root / MODEL_FOLDER, None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        # gathered on all processes, written by one
        trainer.save_model(str(model_dir))
        return model_dir, adapter_dir
    model = trainer.task.model
    if is_lora(model) and keep_adapter:
        adapter_dir = root / ADAPTER_FOLDER
    if trainer.args.should_save:
        if adapter_dir is not None:
            model.save_pretrained(str(adapter_dir))
            processor.save_pretrained(str(adapter_dir))
            save_head(model.config, adapter_dir)
        save_classifier(merge_lora(model), processor, str(model_dir))
    trainer.accelerator.wait_for_everyone()
    return model_dir, adapter_dir


def _plain_metrics(metrics):
    hidden = ("runtime", "samples_per_second", "steps_per_second", "clips", "model_preparation_time")
    plain = {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}
    return {name: value for name, value in plain.items() if name not in hidden}


def _unwrapped(dataset):
    return dataset.dataset if isinstance(dataset, EpochIndexedDataset) else dataset


def _skipped(*datasets):
    return [asdict(clip) for dataset in datasets for clip in getattr(dataset, "skipped", ())]
