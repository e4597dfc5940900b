"""`train_detector`: from annotated videos, or their features, to a Hub folder with a temporal action detector, in one call."""

import os
import sys
from functools import partial

from tqdm.auto import tqdm

from ..data.detection_collator import DetectionCollator
from ..data.detection_datasets import FeatureWindows, PixelWindows
from ..data.feature_store import FeatureStore
from ..evaluation.detection import THUMOS_TIOUS
from ..evaluation.operating_points import choose_operating_points
from .arguments import EffVidTrainingArguments
from .detection_defaults import training_defaults
from .detection_setup import open_detector, prepare_backbone
from .detection_splits import detection_splits
from .detection_task import DetectionTask
from .run_result import run_and_save
from .run_setup import resume_point, run_arguments, without_evaluation
from .trainer import EffVidTrainer


def train_detector(
    model,
    data,
    *,
    output_dir,
    features=None,
    config=None,
    processor=None,
    args=None,
    windows=None,
    augmentation="light",
    one_class=False,
    train_split=None,
    validation_split=None,
    validation_share=0.2,
    tious=THUMOS_TIOUS,
    operating_points=False,
    on_error="skip",
    resume=False,
    overwrite=False,
    trust_remote_code=False,
    callbacks=None,
    progress=True,
    **load_kwargs,
):
    """Trains an ActionFormer on annotated videos.

    Args:
        model: None for a small detector that fits the data; a detector, its folder or Hub id, which gets a new classifier when its classes
            are others; or any video classifier of the supported types (model, folder, Hub id, configuration,
            `"<model_type>:<preset>"`), whose trunk becomes the backbone.
        data: annotations: what `load_detection_annotations` takes, or a `DetectionAnnotations`.
        output_dir: folder of the run: checkpoints, `training.json`, and the final Hub folder `model`.
        features: stored features to train on instead of the videos: a folder, or a `FeatureStore`.
        config: fields of `ActionFormerConfig`, over what follows from the data.
        processor: an `ActionFormerProcessor`, a folder with one, or fields of one, over what follows from the data.
        args: `EffVidTrainingArguments`, or a dictionary of their fields; what that leaves out follows data and machine.
        windows: a `WindowSampling`, or a dictionary of its fields.
        augmentation: what is done to frames, an `AugmentationConfig` or the name of a preset, without mixing of videos; flips are off when
            labels come in mirrored pairs.
        one_class: learn when something happens, not what; the classes come from a video classifier (ActivityNet).
        train_split, validation_split, validation_share: see `detection_splits`.
        tious: overlaps of the metrics while training.
        operating_points: choose the threshold of every class on the validation videos (best F1 at tIoU 0.5), and store it in the model.
        on_error: `"skip"` leaves unreadable videos out and reports them, `"raise"` stops at the first.
        resume, overwrite: see `train_classifier`.
        trust_remote_code: run model code that comes with a checkpoint.
        callbacks: further transformers callbacks.
        progress: show a progress bar and the final summary.
        load_kwargs: passed to `load_detection_annotations` (`format`, `root`, `class_names`, ...).

    Returns:
        a `TrainOutcome`, whose metrics are those of the validation videos.

    Raises:
        ValueError: `output_dir` holds another run, or data and model do not fit.
        NonFiniteError: training diverged, with the block where it began.
    """
    store = FeatureStore.open(features) if isinstance(features, (str, os.PathLike)) else features
    seed = args.seed if isinstance(args, EffVidTrainingArguments) else (args or {}).get("seed", 0)
    splits = detection_splits(
        data,
        store,
        train_split=train_split,
        validation_split=validation_split,
        validation_share=validation_share,
        one_class=one_class,
        seed=seed,
        **load_kwargs,
    )
    detector, processor = open_detector(model, splits.train, store, config, processor, seed, trust_remote_code)
    make = windows_of(store, processor, detector.config, augmentation, seed=seed, on_error=on_error)
    train = make(splits.train, train=True, windows=windows)
    arguments = _arguments(args, output_dir, progress, len(train))
    resume_from = resume_point(arguments, resume, overwrite)
    validation = None
    if splits.validation is None:
        without_evaluation(arguments)
    else:
        validation = make(splits.validation, train=False)
    task = DetectionTask(prepare_backbone(detector, arguments), processor, validation, tious)
    trainer = EffVidTrainer(
        task,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DetectionCollator(processor.pad_length),
        processing_class=processor,
        callbacks=callbacks,
    )
    outcome = run_and_save(
        trainer,
        resume_from,
        splits.train.class_names,
        splits.held_out,
        items="windows",
        keep_adapter=False,
        before_saving=partial(_store_operating_points, task) if operating_points else None,
    )
    if progress and trainer.is_world_process_zero():
        tqdm.write(outcome.summary(), file=sys.stderr)
    return outcome


def windows_of(store, processor, config, augmentation, **options):
    """What makes a data set of annotations: of stored features, or of frames.

    Args:
        store: the stored features, or None.
        processor: an `ActionFormerProcessor`.
        config: the detector's, which knows its longest window.
        augmentation: what is done to frames for training.
        options: of `DetectionWindows`.
    """
    options["max_steps"] = config.max_sequence_length
    if store is not None:
        return partial(FeatureWindows, processor=processor, store=store, **options)
    return partial(PixelWindows, processor=processor, augmentation=augmentation, **options)


def _arguments(args, output_dir, progress, num_windows):
    if isinstance(args, EffVidTrainingArguments):
        return run_arguments(args, output_dir, progress)
    given = dict(args or {})
    defaults = training_defaults(num_windows, given.get("per_device_train_batch_size"))
    arguments = run_arguments(defaults | given, output_dir, progress)
    if not given.get("metric_for_best_model"):
        arguments.metric_for_best_model, arguments.greater_is_better = "average_mAP", True
    return arguments


def _store_operating_points(task):
    if task.report is None:
        raise ValueError("operating points are chosen on validation videos, and this run has none.")
    task.config.operating_points = choose_operating_points(task.report)
