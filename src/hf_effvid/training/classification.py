"""`train_classifier`: from labelled videos and a model to a Hub folder, in one call."""

import sys

from tqdm.auto import tqdm

from ..data import ClipCollator, label_names, labels_forbid_flips
from ..data import is_multi_label as has_several_labels
from .arguments import EffVidTrainingArguments
from .class_balance import class_weights, label_matrix, log_prior, sampling_weights
from .data_splits import training_splits
from .freezing import freeze
from .lora import add_lora
from .model_setup import open_classifier, open_processor
from .random_budget import RandomBudgetTask, with_token_selection
from .run_result import run_and_save
from .run_setup import clip_datasets, resume_point, run_arguments, run_augmentation, without_evaluation
from .stale_selection import warn_of_stale_selection
from .tasks import ClassificationTask
from .trainer import EffVidTrainer


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
    arguments = run_arguments(args, output_dir, progress)
    resume_from = resume_point(arguments, resume, overwrite)
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
        without_evaluation(arguments)
    opened = open_classifier(model, names, multi_label, arguments.seed, trust_remote_code)
    processor = open_processor(processor, opened, model, trust_remote_code)
    if labels_forbid_flips(names):
        # whoever trains on from this checkpoint must not flip either
        processor.horizontal_flip_safe = False
    augmentation = run_augmentation(augmentation, arguments)
    train, validation = clip_datasets(rows, processor, augmentation, arguments, on_error=on_error, cache=cache)
    task, weights = classification_task(
        _prepare_model(opened, arguments), rows.train, len(names), processor, arguments
    )
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
    outcome = run_and_save(trainer, resume_from, names, rows.held_out)
    if progress and trainer.is_world_process_zero():
        tqdm.write(outcome.summary(), file=sys.stderr)
    return outcome


def _prepare_model(model, arguments):
    if arguments.lora_r and arguments.freeze:
        raise ValueError("lora_r already freezes everything but the adapters and the head; leave freeze unset.")
    warn_of_stale_selection(model)
    if arguments.random_keep_ratios:
        model = with_token_selection(model)
    if arguments.freeze:
        freeze(model, arguments.freeze)
    if arguments.lora_r:
        model = add_lora(model, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, arguments.lora_targets)
    return model


def classification_task(model, train_rows, num_labels, processor, arguments):
    """The task of a model, and the sampling weights of its training clips (None without balanced sampling).

    Args:
        model: the classifier.
        train_rows: rows of the training split, whose classes are counted where something depends on it.
        num_labels: number of classes.
        processor: the recipe.
        arguments: those of the run.

    Raises:
        ValueError: the classes of a stream have to be counted.
    """
    counted = arguments.class_weights != "none" or arguments.loss == "logit_adjusted" or arguments.balanced_sampling
    matrix = None
    if counted:
        if not hasattr(train_rows, "__len__"):
            raise ValueError(
                "Class weights, priors and balanced sampling need to count the classes; a stream cannot be counted."
            )
        matrix = label_matrix(list(train_rows["label"]), num_labels)
    counts = matrix.sum(0) if counted else None
    budgets = {"keep_ratios": arguments.random_keep_ratios} if arguments.random_keep_ratios else {}
    task = (RandomBudgetTask if budgets else ClassificationTask)(
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
        **budgets,
    )
    return task, sampling_weights(matrix) if arguments.balanced_sampling else None
