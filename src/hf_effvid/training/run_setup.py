"""What every training run starts from: its arguments, the checkpoint it resumes from, and the clips of its splits."""

import copy
import os
import shutil
from dataclasses import replace

import torch
from transformers.trainer_utils import IntervalStrategy

from ..data import AugmentationConfig, ClipDataset, StreamingClipDataset
from . import checkpointing
from .arguments import EffVidTrainingArguments


def run_arguments(args, output_dir, progress):
    """Arguments of a run.

    Args:
        args: `EffVidTrainingArguments`, or a dictionary of their fields; what that leaves out follows the machine.
        output_dir: folder of the run.
        progress: show a progress bar.

    Raises:
        ValueError: two output folders, or a run that would push.
    """
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
            "Training does not push: publish its model folder with stage_checkpoint and push_checkpoint, which "
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


def without_evaluation(arguments):
    """Changes arguments for a run that has nothing to evaluate on, so that the last weights are the result.

    Raises:
        ValueError: early stopping, which needs evaluations.
    """
    if arguments.early_stopping_patience:
        raise ValueError(
            f"early_stopping_patience={arguments.early_stopping_patience} needs validation clips; add a validation split "
            "or let validation_share hold some out."
        )
    arguments.eval_strategy, arguments.load_best_model_at_end = IntervalStrategy.NO, False


def resume_point(arguments, resume, overwrite):
    """The checkpoint to continue from, or None to start.

    Args:
        arguments: those of the run.
        resume: continue from the newest complete checkpoint where there is one.
        overwrite: delete the checkpoints of an earlier run.

    Raises:
        ValueError: checkpoints are there and neither was asked for, or both were.
    """
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


def run_augmentation(augmentation, arguments):
    """An `AugmentationConfig` (None or a name is a preset) with the mixing that the arguments ask for."""
    if augmentation is None or isinstance(augmentation, str):
        augmentation = AugmentationConfig.from_preset(augmentation or "none")
    mixing = {name: getattr(arguments, name) for name in ("mixup_alpha", "cutmix_alpha") if getattr(arguments, name)}
    return replace(augmentation, **mixing)


def clip_datasets(splits, processor, augmentation, arguments, on_error, cache):
    """Clip data sets of the training and the validation rows (None where there are none).

    Args:
        splits: `TrainingSplits`.
        processor: the recipe.
        augmentation: an `AugmentationConfig`.
        arguments: those of the run: seed, and the clips per video of its evaluations.
        on_error, cache: see `ClipDataset`.
    """
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
