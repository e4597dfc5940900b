"""A classifier's run: all that is opened before it can start, and the training of whatever task was made of that."""

import sys
from dataclasses import dataclass

from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ..data import AugmentationConfig, ClipCollator, label_names, labels_forbid_flips
from ..data import is_multi_label as has_several_labels
from ..models.video_processing_effvid import EffVidVideoProcessor
from .arguments import EffVidTrainingArguments
from .data_splits import TrainingSplits, training_splits
from .model_setup import open_classifier, open_processor
from .run_result import run_and_save
from .run_setup import resume_point, run_arguments, run_augmentation, without_evaluation
from .trainer import EffVidTrainer


@dataclass(frozen=True)
class ClassifierRun:
    """What is open before a classifier is trained.

    Attributes:
        arguments: `EffVidTrainingArguments` of the run.
        resume_from: checkpoint folder to continue from, or None.
        rows: of training and validation.
        class_names: in the order of the labels.
        multi_label: whether a clip carries several of them.
        model: with a head for these classes.
        processor: the recipe, which the checkpoint carries.
        augmentation: of training clips.
    """

    arguments: EffVidTrainingArguments
    resume_from: str | None
    rows: TrainingSplits
    class_names: list[str]
    multi_label: bool
    model: PreTrainedModel
    processor: EffVidVideoProcessor
    augmentation: AugmentationConfig

    def train(self, task, train, validation, collator, sampling_weights=None, callbacks=None, progress=True, **record):
        """Trains a task of the model and saves the model.

        Args:
            task: the task.
            train, validation: data sets of clips; None: no validation.
            collator: of training batches.
            sampling_weights: see `EffVidTrainer`.
            callbacks: further transformers callbacks.
            progress: show the final summary.
            record: fields of the `TrainOutcome` that say more about the run.

        Returns:
            a `TrainOutcome`.
        """
        trainer = EffVidTrainer(
            task,
            args=self.arguments,
            sampling_weights=sampling_weights,
            train_dataset=train,
            eval_dataset=validation,
            data_collator=collator,
            eval_data_collator=ClipCollator(keep_index=True),
            processing_class=self.processor,
            callbacks=callbacks,
        )
        outcome = run_and_save(trainer, self.resume_from, self.class_names, self.rows.held_out, **record)
        if progress and trainer.is_world_process_zero():
            tqdm.write(outcome.summary(), file=sys.stderr)
        return outcome


def open_run(
    model,
    data,
    *,
    output_dir,
    processor=None,
    args=None,
    augmentation="light",
    validation_share=0.2,
    resume=False,
    overwrite=False,
    trust_remote_code=False,
    progress=True,
    load_kwargs=None,
):
    """Opens arguments, rows, model and recipe of a run. See `train_classifier` for the arguments.

    Returns:
        a `ClassifierRun`.

    Raises:
        ValueError: `output_dir` holds another run, or data and model do not fit.
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
    return ClassifierRun(
        arguments,
        resume_from,
        rows,
        names,
        multi_label,
        opened,
        processor,
        run_augmentation(augmentation, arguments),
    )
