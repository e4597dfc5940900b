"""`train_classifier`: from labelled videos and a model to a Hub folder, in one call."""

from ..data import ClipCollator
from .class_balance import class_weights, label_matrix, log_prior, sampling_weights
from .classifier_run import open_run
from .freezing import freeze
from .lora import add_lora
from .random_budget import RandomBudgetTask, with_token_selection
from .run_setup import clip_datasets
from .stale_selection import warn_of_stale_selection
from .tasks import ClassificationTask


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
    run = open_run(
        model,
        data,
        output_dir=output_dir,
        processor=processor,
        args=args,
        augmentation=augmentation,
        validation_share=validation_share,
        resume=resume,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        progress=progress,
        load_kwargs=load_kwargs,
    )
    arguments = run.arguments
    train, validation = clip_datasets(
        run.rows, run.processor, run.augmentation, arguments, on_error=on_error, cache=cache
    )
    task, weights = classification_task(
        prepare_model(run.model, arguments), run.rows.train, len(run.class_names), run.processor, arguments
    )
    collator = ClipCollator(run.augmentation, len(run.class_names), arguments.seed, keep_index=True)
    return run.train(task, train, validation, collator, weights, callbacks, progress)


def prepare_model(model, arguments):
    """The model with what the arguments ask for before training: token selection, frozen parts, adapters.

    Raises:
        ValueError: options that contradict each other or do not fit the model.
    """
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


def classification_task(model, train_rows, num_labels, processor, arguments, make=None, **options):
    """The task of a model, and the sampling weights of its training clips (None without balanced sampling).

    Args:
        model: the classifier.
        train_rows: rows of the training split, whose classes are counted where something depends on it.
        num_labels: number of classes.
        processor: the recipe.
        arguments: those of the run.
        make: a kind of `ClassificationTask`; None: what the arguments ask for.
        options: further ones of that task.

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
    if make is None:
        make = RandomBudgetTask if arguments.random_keep_ratios else ClassificationTask
        options |= {"keep_ratios": arguments.random_keep_ratios} if arguments.random_keep_ratios else {}
    task = make(
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
        **options,
    )
    return task, sampling_weights(matrix) if arguments.balanced_sampling else None
