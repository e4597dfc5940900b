"""`train_classifier`: from labelled videos and a model to a Hub folder, in one call."""

import copy
import os
import shutil
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers.trainer_utils import IntervalStrategy

from ..data import (
    AugmentationConfig,
    ClipCollator,
    ClipDataset,
    StreamingClipDataset,
    label_names,
    labels_forbid_flips,
)
from ..data import is_multi_label as has_several_labels
from ..host_loading import save_head
from . import checkpointing
from .arguments import EffVidTrainingArguments
from .class_balance import class_weights, label_matrix, log_prior, sampling_weights
from .data_order import EpochIndexedDataset
from .data_splits import training_splits
from .freezing import freeze
from .lora import add_lora, is_lora, merge_lora
from .model_setup import open_classifier, open_processor, save_classifier
from .outcome import TrainOutcome
from .tasks import ClassificationTask
from .trainer import EffVidTrainer


MODEL_FOLDER, ADAPTER_FOLDER, OUTCOME_NAME = "model", "adapter", "training.json"


def train_classifier(
    model,
    data,
    *,
    output_dir,
    processor=None,
    args=None,
    augmentation="light",
    validation_share=0.2,
    on_error="skip",
    cache=None,
    resume=False,
    overwrite=False,
    trust_remote_code=False,
    callbacks=None,
    progress=True,
    **load_kwargs,
):
    """Trains a video classifier on labelled videos, single- or multi-label.

    Args:
        model: a classifier; a configuration or `"<model_type>:<preset>"` for random weights; or a folder or Hub id of any
            Hugging Face video classifier, which gets a new head when its classes are others.
        data: anything `load_video_dataset` takes: a folder, a list file, a Hub id, loaded splits. Needs a `train` split;
            without a `validation` split a share of it is held out (never the `test` split: it stays unseen).
        output_dir: folder of the run: checkpoints, `training.json`, and the final Hub folder `model`.
        processor: processor, folder or Hub id of one; default: the one beside the model, or one that fits its configuration.
        args: `EffVidTrainingArguments`, or a dictionary of their fields. With a dictionary, what it leaves out follows the
            machine (bf16, workers), and the best checkpoint is that of the highest `top1` or `mAP`.
        augmentation: an `AugmentationConfig` or the name of a preset (`none`, `light`, `recipe`, `strong`). Flips are off
            when the labels come in mirrored pairs.
        validation_share: share of each class that is held out when there is no validation split; 0 trains on everything.
        on_error: `"skip"` leaves unreadable files out and reports them, `"raise"` stops at the first.
        cache: `"ram"` keeps decoded videos in memory.
        resume: continue from the newest complete checkpoint in `output_dir`, or start when there is none.
        overwrite: delete the checkpoints that an earlier run left in `output_dir`.
        trust_remote_code: run model code that comes with a checkpoint.
        callbacks: further transformers callbacks.
        progress: show a progress bar and the final summary.
        load_kwargs: passed to `load_video_dataset` (`label_column`, `streaming`, ...).

    Returns:
        a `TrainOutcome`.

    Raises:
        ValueError: `output_dir` holds another run, or data and model do not fit.
        NonFiniteError: training diverged, with the block where it began.
    """
    arguments = _arguments(args, output_dir, progress)
    resume_from = _resume_point(arguments, resume, overwrite)
    rows = training_splits(data, validation_share, arguments.seed, load_kwargs)
    names, multi_label = label_names(rows.train), has_several_labels(rows.train)
    if len(names) < 2 and not multi_label:
        raise ValueError(
            f"The data set has one class only ({names[0]!r}), so that there is nothing to tell apart: add videos of another "
            "class, such as 'other'."
        )
    if not isinstance(args, EffVidTrainingArguments) and not (args or {}).get("metric_for_best_model"):
        arguments.metric_for_best_model, arguments.greater_is_better = ("mAP" if multi_label else "top1"), True
    if rows.validation is None:
        _without_evaluation(arguments)
    opened = open_classifier(model, names, multi_label, arguments.seed, trust_remote_code)
    processor = open_processor(processor, opened, model, trust_remote_code)
    if labels_forbid_flips(names):
        # whoever trains on from this checkpoint must not flip either
        processor.horizontal_flip_safe = False
    augmentation = _augmentation(augmentation, arguments)
    train, validation = _clip_datasets(rows, processor, augmentation, arguments, on_error=on_error, cache=cache)
    task, weights = _task(_prepare_model(opened, arguments), rows.train, len(names), processor, arguments)
    trainer = EffVidTrainer(
        task,
        args=arguments,
        sampling_weights=weights,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=ClipCollator(augmentation, len(names), arguments.seed, keep_index=True),
        eval_data_collator=ClipCollator(keep_index=True),
        processing_class=processor,
        callbacks=callbacks,
    )
    outcome = _run(trainer, resume_from, names, rows.held_out)
    if progress and trainer.is_world_process_zero():
        tqdm.write(outcome.summary(), file=sys.stderr)
    return outcome


def _run(trainer, resume_from, names, held_out):
    """Trains, evaluates what came out, saves it and writes the record of the run."""
    num_parameters = sum(parameter.numel() for parameter in trainer.task.model.parameters())
    num_trainable = sum(p.numel() for p in trainer.task.model.parameters() if p.requires_grad)
    train, validation = (_unwrapped(dataset) for dataset in (trainer.train_dataset, trainer.eval_dataset))
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=resume_from)
    seconds = time.monotonic() - started
    metrics = _plain_metrics(trainer.evaluate()) if validation is not None else {}
    model_dir, adapter_dir = _save(trainer)
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
        num_train=len(train) if isinstance(train, ClipDataset) else None,
        num_validation=len(validation) if isinstance(validation, ClipDataset) else 0,
        num_parameters=num_parameters,
        num_trainable=num_trainable,
        skipped=_skipped(train, validation),
        held_out=held_out,
        history=trainer.state.log_history,
    )
    if trainer.is_world_process_zero():
        outcome.save(Path(trainer.args.output_dir) / OUTCOME_NAME)
    return outcome


def _arguments(args, output_dir, progress):
    if isinstance(args, EffVidTrainingArguments):
        if os.path.abspath(args.output_dir) != os.path.abspath(output_dir):
            raise ValueError(
                f"args.output_dir={args.output_dir!r} is not output_dir={str(output_dir)!r}; give one folder."
            )
        arguments = args
    else:
        arguments = _arguments_for_this_machine(args or {}, output_dir, progress)
    if arguments.push_to_hub:
        raise ValueError(
            "train_classifier does not push: publish its model folder with stage_checkpoint and push_checkpoint, which "
            "add the card with measured numbers."
        )
    return arguments


def _arguments_for_this_machine(fields, output_dir, progress):
    cuda = torch.cuda.is_available()
    fields = {
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": cuda,
        "dataloader_num_workers": min(8, (os.cpu_count() or 1) - 1) if cuda else 0,
        "disable_tqdm": not progress,
        **fields,
    }
    if fields.get("fp16"):
        fields["bf16"] = False
    return EffVidTrainingArguments(output_dir=str(output_dir), **fields)


def _without_evaluation(arguments):
    """There is nothing to evaluate on, so the last weights are the result."""
    if arguments.early_stopping_patience:
        raise ValueError(
            f"early_stopping_patience={arguments.early_stopping_patience} needs validation clips; add a validation split "
            "or let validation_share hold some out."
        )
    arguments.eval_strategy, arguments.load_best_model_at_end = IntervalStrategy.NO, False


def _resume_point(arguments, resume, overwrite):
    existing = checkpointing.checkpoint_folders(arguments.output_dir)
    if resume and overwrite:
        raise ValueError("resume=True and overwrite=True contradict each other.")
    if resume:
        return checkpointing.last_complete_checkpoint(arguments.output_dir)
    if existing and not overwrite:
        raise ValueError(
            f"{arguments.output_dir} already holds {len(existing)} checkpoints of a run: pass resume=True to continue "
            "it, overwrite=True to delete them, or another output_dir."
        )
    if arguments.should_save:
        for folder in existing:
            shutil.rmtree(folder)
    return None


def _augmentation(augmentation, arguments):
    if augmentation is None or isinstance(augmentation, str):
        augmentation = AugmentationConfig.from_preset(augmentation or "none")
    mixing = {name: getattr(arguments, name) for name in ("mixup_alpha", "cutmix_alpha") if getattr(arguments, name)}
    return replace(augmentation, **mixing)


def _clip_datasets(splits, processor, augmentation, arguments, on_error, cache):
    options = {"seed": arguments.seed, "on_error": on_error}
    test_processor = copy.deepcopy(processor)
    test_processor.num_clips, test_processor.num_crops = arguments.num_clips, 1
    datasets = []
    for rows, train in ((splits.train, True), (splits.validation, False)):
        if rows is None:
            datasets.append(None)
            continue
        how = {"train": True, "augmentation": augmentation} if train else {"multi_view": arguments.num_clips > 1}
        recipe = processor if train else test_processor
        if hasattr(rows, "__len__"):
            datasets.append(ClipDataset(rows, recipe, cache=cache, **how, **options))
        else:
            buffer = {"shuffle_buffer": 256} if train else {}
            datasets.append(StreamingClipDataset(rows, recipe, **how, **options, **buffer))
    return datasets


def _prepare_model(model, arguments):
    if arguments.lora_r and arguments.freeze:
        raise ValueError("lora_r already freezes everything but the adapters and the head; leave freeze unset.")
    if arguments.freeze:
        freeze(model, arguments.freeze)
    if arguments.lora_r:
        model = add_lora(model, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, arguments.lora_targets)
    return model


def _task(model, train_rows, num_labels, processor, arguments):
    """The task, and the sampling weights of the training clips (None without balanced sampling)."""
    counted = arguments.class_weights != "none" or arguments.loss == "logit_adjusted" or arguments.balanced_sampling
    matrix = None
    if counted:
        if not hasattr(train_rows, "__len__"):
            raise ValueError(
                "Class weights, priors and balanced sampling need to count the classes; a stream cannot be counted."
            )
        matrix = label_matrix(list(train_rows["label"]), num_labels)
    counts = matrix.sum(0) if counted else None
    task = ClassificationTask(
        model,
        loss=arguments.loss,
        label_smoothing=arguments.label_smoothing,
        class_weights=class_weights(counts, arguments.class_weights, arguments.effective_number_beta)
        if counted
        else None,
        log_prior=log_prior(counts) if counted else None,
        focal_gamma=arguments.focal_gamma,
        logit_adjustment_tau=arguments.logit_adjustment_tau,
        aggregation=processor.aggregation,
    )
    return task, sampling_weights(matrix) if arguments.balanced_sampling else None


def _save(trainer):
    """Writes the final Hub folder, and with LoRA the adapters alone beside it."""
    root, processor = Path(trainer.args.output_dir), trainer.processing_class
    model_dir, adapter_dir = root / MODEL_FOLDER, None
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        # gathered on all processes, written by one
        trainer.save_model(str(model_dir))
        return model_dir, adapter_dir
    model = trainer.task.model
    if is_lora(model):
        adapter_dir = root / ADAPTER_FOLDER
    if trainer.args.should_save:
        if adapter_dir is not None:
            model.save_pretrained(str(adapter_dir))
            processor.save_pretrained(str(adapter_dir))
            save_head(model.config, adapter_dir)
            model = merge_lora(model)
        save_classifier(model, processor, str(model_dir))
    trainer.accelerator.wait_for_everyone()
    return model_dir, adapter_dir


def _plain_metrics(metrics):
    hidden = ("runtime", "samples_per_second", "steps_per_second", "clips", "model_preparation_time")
    plain = {name.removeprefix("eval_"): value for name, value in metrics.items() if name.startswith("eval_")}
    return {name: value for name, value in plain.items() if name not in hidden}


def _unwrapped(dataset):
    return dataset.dataset if isinstance(dataset, EpochIndexedDataset) else dataset


def _skipped(*datasets):
    return [asdict(clip) for dataset in datasets if isinstance(dataset, ClipDataset) for clip in dataset.skipped]
