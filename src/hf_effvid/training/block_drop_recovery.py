"""One recovery: a model that lost blocks is aligned to its teacher, and trained on, until it is an ordinary model again."""

import time
from dataclasses import dataclass

from ..compression.alignment import ALIGNMENT_PRESETS
from ..compression.recovery import merge_recovery_lora, recovery_lora
from . import checkpointing
from .alignment_task import AlignmentTask
from .block_drop_errors import BlockDropError
from .block_drop_settings import BlockDropSettings
from .run_setup import run_arguments, without_evaluation
from .trainer import EffVidTrainer


# rate, decay and average of the paper; the last weights count, so that what is held out stays unseen by the choice of a checkpoint
RECOVERY_ARGUMENTS = {
    "learning_rate": 1e-4,
    "weight_decay": 0.05,
    "num_train_epochs": 5,
    "max_grad_norm": 1.0,
    "ema_decay": 0.999,
    "eval_strategy": "no",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "report_to": "none",
}
_BATCHES = {"clips": 8, "windows": 4}
# what recovery decides itself
_TAKEN = (
    "output_dir",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_targets",
    "freeze",
    "random_keep_ratios",
    "fsdp",
    "deepspeed",
)


@dataclass(frozen=True)
class Recovery:
    """What came out.

    Attributes:
        model: the student, merged: without adapters, with the keys it had.
        trainable: parameters that were trained.
        steps: optimiser steps.
        seconds: wall time of this call's training.
        train_loss: mean over it.
        history: log lines, with every term of the loss.
    """

    model: object
    trainable: int
    steps: int
    seconds: float
    train_loss: float
    history: list


def recovery_arguments(args, output_dir, items="clips", seed=0, progress=True):
    """`EffVidTrainingArguments` of a recovery.

    Args:
        args: a dictionary of their fields, over `RECOVERY_ARGUMENTS`.
        output_dir: folder of its checkpoints.
        items: what the data sets hold, `"clips"` or `"windows"`.
        seed: where `args` does not say.
        progress: show a progress bar.

    Raises:
        BlockDropError: not a dictionary, or fields that recovery sets itself.
    """
    if not isinstance(args or {}, dict):
        raise BlockDropError(
            f"args: expected a dictionary of fields of EffVidTrainingArguments, got {type(args).__name__}."
        )
    taken = sorted(name for name in _TAKEN if (args or {}).get(name))
    if taken:
        raise BlockDropError(
            f"args: {', '.join(taken)} cannot be set for recovery (adapters: `tuning`, `rank`, `head`)."
        )
    batch = _BATCHES[items]
    sizes = {"per_device_train_batch_size": batch, "per_device_eval_batch_size": batch, "seed": seed}
    arguments = run_arguments(RECOVERY_ARGUMENTS | sizes | dict(args or {}), output_dir, progress)
    if arguments.eval_strategy == "no":
        without_evaluation(arguments)
    return arguments


def recover(
    student, teacher, data, *, output_dir, settings=None, args=None, seed=0, resume=False, progress=True, callbacks=None
):  # fmt: skip
    """Trains a student to be what its teacher is.

    The loss is that of the task and, as `settings.align` says, the distance of the blocks' outputs (on the original indices that both
    have), of the class scores, and of the boundaries of a detector.

    Args:
        student: a model that lost blocks, or differs otherwise; it is edited in place.
        teacher: the model that it is held to; it stays as it is.
        data: from `open_compression_data`.
        output_dir: folder of the checkpoints.
        settings: a `BlockDropSettings`: `tuning`, `rank`, `head`, `align`, `preset`, `temperature`, `part` count.
        args: see `recovery_arguments`.
        seed: of the adapters, the order of the clips, and all that is drawn.
        resume: continue from the newest complete checkpoint in `output_dir` where there is one.
        progress: show a progress bar.
        callbacks: further transformers callbacks.

    Returns:
        a `Recovery`.

    Raises:
        BlockDropError: arguments that recovery cannot have.
        NonFiniteError: training diverged.
    """
    settings = settings or BlockDropSettings()
    arguments = recovery_arguments(args, output_dir, data.items, seed, progress)
    if arguments.metric_for_best_model is None and arguments.load_best_model_at_end:
        arguments.metric_for_best_model, arguments.greater_is_better = data.metric, True
    seed = arguments.seed
    data.reseed(seed)
    # adapters are drawn by the seed alone, whatever was drawn before in this process
    tuned = recovery_lora(student, settings.part, settings.rank, tuning=settings.tuning, head=settings.head, seed=seed)
    task, sampling_weights = data.training_task(tuned, arguments)
    alignment = AlignmentTask(
        task,
        teacher.to(arguments.device),
        part=settings.part,
        preset=settings.preset,
        terms=settings.align,
        temperature=settings.temperature,
    )
    trainer = EffVidTrainer(
        alignment,
        args=arguments,
        sampling_weights=sampling_weights,
        train_dataset=data.train,
        eval_dataset=data.held_out if arguments.eval_strategy != "no" else None,
        data_collator=data.collator(train=True),
        eval_data_collator=data.collator(train=False),
        processing_class=data.processor,
        callbacks=callbacks,
    )
    trainable = sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)
    checkpoint = checkpointing.last_complete_checkpoint(output_dir) if resume else None
    started = time.monotonic()
    result = trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.monotonic() - started
    merged = merge_recovery_lora(trainer.task.model)
    history = trainer.state.log_history
    return Recovery(merged, trainable, trainer.state.global_step, seconds, result.training_loss, history)


def is_dynamic(settings, config) -> bool:
    """Whether the teacher is the model before each drop.

    The authors' code does so on ActivityNet alone, whose detector has one class.

    Args:
        settings: a `BlockDropSettings`.
        config: of the model.
    """
    if settings.teacher is not None:
        return settings.teacher == "dynamic"
    one_class = config.model_type == "actionformer" and config.num_labels == 1
    return ALIGNMENT_PRESETS[settings.preset].dynamic_teacher and one_class
