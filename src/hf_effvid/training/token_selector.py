"""`train_token_selector`: from a trained video classifier and videos to a LITE checkpoint, in one call."""

import copy
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import PreTrainedModel, set_seed

from ..compression.host_selection import select_tokens
from ..compression.oracle_hosts import oracle_host
from ..compression.token_faithfulness import (
    REPORT_NAME,
    FaithfulnessProtocol,
    TokenFaithfulness,
    measure_faithfulness,
)
from ..compression.token_importance import OracleSettings
from ..data import ClipCollator, ClipDataset, label_names, labels_forbid_flips
from ..host_loading import load_video_classifier
from .arguments import EffVidTrainingArguments
from .data_splits import training_splits
from .model_setup import open_processor
from .outcome import TrainOutcome
from .run_result import run_and_save
from .run_setup import clip_datasets, resume_point, run_arguments, run_augmentation, without_evaluation
from .selector_targets import check_variants
from .selector_task import SelectorTask, labels_of_model
from .trainer import EffVidTrainer


# what differs from training a classifier: a small network from scratch on targets that do not change
SELECTOR_ARGUMENTS = {"learning_rate": 1e-3, "weight_decay": 0.01, "num_train_epochs": 10}


@dataclass(frozen=True)
class SelectorOutcome:
    """Result of `train_token_selector`.

    Attributes:
        training: the run: `metrics` holds `loss`, `rank_correlation` and `overlap` with the oracle, and `top1_full`, `top1_lite`,
            `top1_random` at the keep ratio on the validation clips.
        faithfulness: what the check of the oracle found, None where it was left out.
    """

    training: TrainOutcome
    faithfulness: TokenFaithfulness | None

    @property
    def model_dir(self) -> str:
        """The final Hub folder."""
        return self.training.model_dir

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        report = self.faithfulness.to_dict() if self.faithfulness is not None else None
        return {"training": self.training.to_dict(), "faithfulness": report}

    def summary(self) -> str:
        """A few lines for the terminal."""
        return "\n".join([*([self.faithfulness.summary()] if self.faithfulness else []), self.training.summary()])


def train_token_selector(
    model,
    data,
    *,
    output_dir,
    keep_ratio=0.5,
    oracle=None,
    kind="mlp",
    hidden_sizes=None,
    variants=(),
    shuffled=False,
    gate=True,
    force=False,
    processor=None,
    args=None,
    augmentation="none",
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
    """Trains LITE's selector on a frozen host and saves a LITE checkpoint.

    Before anything is trained, the oracle is checked on the validation clips (on training clips where there are none); the report goes with
    the checkpoint as `token_faithfulness.json`.

    Args:
        model: a trained classifier that `select_tokens` knows, stock or Lite, or a folder or Hub id of one. It stays as it is.
        data: anything `load_video_dataset` takes, with a `train` split; see `train_classifier`. Videos of the host's own training set
            make a better teacher the surer the host is of them, and say less about new ones.
        output_dir: folder of the run: checkpoints, `training.json`, and the final Hub folder `model`.
        keep_ratio: share of the tokens that the saved checkpoint keeps, and at which evaluations compare.
        oracle: `OracleSettings`, a dictionary of its fields, or None for the default (the last block's output, true labels).
        kind, hidden_sizes: of the selector, see `TokenSelector`.
        variants: of the targets, names from `selector_targets.TARGET_VARIANTS`.
        shuffled: train the control instead, on the targets of other clips.
        gate: check the oracle first: True, or a `FaithfulnessProtocol`; False leaves it out.
        force: train even if the oracle fails the check.
        processor, args, validation_share, on_error, cache, resume, overwrite, trust_remote_code, callbacks, progress: as in
            `train_classifier`; the best checkpoint is that of the lowest `loss`.
        augmentation: of the training clips; targets are computed for the clip as the selector sees it.
        load_kwargs: passed to `load_video_dataset`.

    Returns:
        a `SelectorOutcome`.

    Raises:
        UnfaithfulOracleError: the oracle is not shown to be better than chance.
        OracleError: there is no such oracle for this host.
        ValueError: the classes of the data set are not the model's and the oracle needs them, or `output_dir` holds another run.
    """
    oracle = OracleSettings(**oracle) if isinstance(oracle, dict) else oracle or OracleSettings()
    variants = check_variants(variants)
    if not isinstance(args, EffVidTrainingArguments):
        args = {**SELECTOR_ARGUMENTS, "metric_for_best_model": "loss", "greater_is_better": False, **(args or {})}
    arguments = run_arguments(args, output_dir, progress)
    resume_from = resume_point(arguments, resume, overwrite)
    rows = training_splits(data, validation_share, arguments.seed, load_kwargs)
    if rows.validation is None:
        without_evaluation(arguments)
    names = label_names(rows.train)
    lite = open_host(model, keep_ratio, kind, hidden_sizes, arguments.seed, trust_remote_code)
    processor = open_processor(processor, lite, model, trust_remote_code)
    if labels_forbid_flips(names):
        processor.horizontal_flip_safe = False
    label_map = match_labels(names, lite.config, oracle.label_source)
    augmentation = run_augmentation(augmentation, arguments)
    train, validation = clip_datasets(rows, processor, augmentation, arguments, on_error=on_error, cache=cache)
    report = None
    if gate:
        protocol = gate if isinstance(gate, FaithfulnessProtocol) else FaithfulnessProtocol()
        report = check_oracle(
            lite, validation, rows.train, processor, oracle, protocol, arguments, label_map, resume_from
        )
        if progress and arguments.process_index == 0:
            tqdm.write(report.summary(), file=sys.stderr)
        report = report.require(force)
        if arguments.should_save:
            report.save(arguments.output_dir)
    task = SelectorTask(lite, oracle, variants, shuffled, keep_ratio, label_map)
    trainer = EffVidTrainer(
        task,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=ClipCollator(augmentation, len(names), arguments.seed, keep_index=True),
        eval_data_collator=ClipCollator(keep_index=True),
        processing_class=processor,
        callbacks=callbacks,
    )
    outcome = SelectorOutcome(run_and_save(trainer, resume_from, names, rows.held_out), report)
    if report is not None and arguments.should_save:
        report.save(outcome.model_dir)
    if progress and trainer.is_world_process_zero():
        tqdm.write(outcome.training.summary(), file=sys.stderr)
    return outcome


def open_host(model, keep_ratio, kind="mlp", hidden_sizes=None, seed=0, trust_remote_code=False):
    """A Lite model with a new selector around a trained classifier.

    Args:
        model: a classifier, or a folder or Hub id.
        keep_ratio: share of the tokens that it keeps.
        kind, hidden_sizes: of the selector.
        seed: seed of its weights.
        trust_remote_code: run model code that comes with a checkpoint.

    Raises:
        OracleError: not a host that tokens can be selected in.
    """
    if isinstance(model, PreTrainedModel):
        # what is trained shares weights with what it was made from, and goes to its device
        model = copy.deepcopy(model)
    else:
        model = load_video_classifier(os.fspath(model), trust_remote_code)
    oracle_host(model)
    set_seed(seed)
    return select_tokens(
        model, keep_ratio=keep_ratio, scorer="lite", selector_kind=kind, selector_hidden_sizes=hidden_sizes
    )


def match_labels(names, config, label_source):
    """Which class of the model each class of the data set is.

    Args:
        names: classes of the data set.
        config: the model's configuration.
        label_source: of the oracle; only `"predicted"` can do without.

    Returns:
        (len(names),) int64 with -1 for unknown classes, or None when both lists are the same.

    Raises:
        ValueError: a class that the model does not know, where the oracle needs it.
    """
    known = {config.id2label[index]: index for index in config.id2label}
    if [config.id2label[index] for index in sorted(config.id2label)] == list(names):
        return None
    missing = [name for name in names if name not in known]
    if missing and label_source != "predicted":
        raise ValueError(
            f"The host does not know {len(missing)} of the {len(names)} classes of the data set, the first is {missing[0]!r}: give a data "
            "set of its classes, or take the predicted label (oracle label_source='predicted')."
        )
    return torch.tensor([known.get(name, -1) for name in names])


def check_oracle(model, validation, train_rows, processor, oracle, protocol, arguments, label_map, resume_from=None):
    """The report of the faithfulness check, or the one that an earlier part of the run left.

    Args:
        model: the Lite model.
        validation: clip data set to check on, or None: then on unaugmented training clips.
        train_rows: rows of the training split.
        processor: the recipe.
        oracle, protocol: what is checked, and how.
        arguments: those of the run.
        label_map: see `match_labels`.
        resume_from: checkpoint that the run continues from.
    """
    saved = Path(arguments.output_dir) / REPORT_NAME
    if resume_from is not None and saved.is_file():
        report = TokenFaithfulness.load(saved.parent)
        if report.oracle == oracle.to_dict():
            return report
    clips = validation if validation is not None else ClipDataset(train_rows, processor, on_error="skip")
    if hasattr(clips, "__len__"):
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(protocol.seed)).tolist()
        clips = Subset(clips, order[: protocol.num_clips])
    device = arguments.device
    loader = DataLoader(clips, batch_size=arguments.per_device_eval_batch_size, collate_fn=ClipCollator())
    batches = _gate_batches(loader, device, label_map, model.config.num_labels)
    return measure_faithfulness(model.to(device), batches, oracle, protocol)


def _gate_batches(loader, device, label_map, num_labels):
    for batch in loader:
        pixel_values, labels = batch["pixel_values"].to(device), batch["labels"]
        if pixel_values.ndim == 6:
            pixel_values = pixel_values[:, 0]
        labels = labels_of_model(labels, label_map, num_labels)
        # accuracies of classes that the host does not know mean nothing
        yield pixel_values, None if labels.ndim == 1 and (labels < 0).any() else labels.to(device)
