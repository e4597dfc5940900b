"""The parts of a data set that a compression uses, and the tasks that run on them, the same for classifiers and detectors.

Three parts, of which none is the test split: *recovery*, which the model trains on; *scoring*, on which the importance of a block is
measured (the same videos, seen as for testing, or the held-out ones); *held out*, on which every step is judged.
"""

import copy
from pathlib import Path

import numpy as np
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader, Subset

from ..data import ClipCollator, ClipDataset, is_multi_label, label_names, labels_forbid_flips
from ..data.detection_collator import INPUTS, DetectionCollator
from ..data.feature_store import FeatureStore
from ..evaluation.detection import THUMOS_TIOUS
from ..models.modeling_actionformer import ActionFormerForTemporalActionDetection
from .block_drop_errors import BlockDropError
from .classification import classification_task
from .data_order import IndexKeepingCollator
from .data_splits import training_splits
from .detection import windows_of
from .detection_setup import open_detector
from .detection_splits import as_one_class, detection_splits
from .detection_task import DetectionTask
from .model_setup import open_classifier, open_processor
from .run_setup import run_augmentation
from .tasks import ClassificationTask


class CompressionData:
    """What both kinds share.

    Attributes:
        model: the uncompressed model, a copy of its own.
        processor: its recipe.
        train: data set that recovery trains on.
        scoring, held_out: data sets seen as for testing.
        metric: what every step is judged by.
        items: what the data sets hold.
        name: of the data set.
        tious: overlaps that a detector is measured at; None: a classifier.
        was_held_out: whether the held-out videos were split off the training ones, for want of a validation split.
    """

    items = "clips"
    tious = None

    def batches(self, part, batch_size, device, num_workers=0):
        """Batches of `"scoring"` or `"held_out"`, on a device, with the `index` of every item."""
        dataset = {"scoring": self.scoring, "held_out": self.held_out}[part]
        collator = IndexKeepingCollator(self.collator(train=False))
        loader = DataLoader(dataset, batch_size=batch_size, collate_fn=collator, num_workers=num_workers)
        for batch in loader:
            yield send_to_device(batch, device)

    def sizes(self) -> dict:
        """Number of items of every part."""
        return {"recovery": len(self.train), "scoring": len(self.scoring), "held_out": len(self.held_out)}

    def example(self, device) -> dict:
        """Input of one item: what a model is timed on, and its multiply-accumulates are counted with."""
        windows = getattr(self.held_out, "windows", None)
        longest = max(range(len(windows)), key=lambda number: windows[number].num_steps) if windows else 0
        batch = self.collator(train=False)([self.held_out[longest]])
        name = next(name for name in INPUTS if name in batch)
        return {name: batch[name].to(device)}

    def reseed(self, seed):
        """Other random clips to train on from here."""
        self.seed = self.train.seed = seed

    def collator(self, train):
        """Items to a batch."""
        raise NotImplementedError

    def open(self, folder):
        """A model that a step has saved."""
        raise NotImplementedError

    def task(self, model, part):
        """The task of a model, whose metrics are those of `"scoring"` or `"held_out"`."""
        raise NotImplementedError

    def training_task(self, model, arguments):
        """The task that recovery trains, and the sampling weights of its items or None."""
        raise NotImplementedError


class ClassifierData(CompressionData):
    """Labelled clips for a classifier.

    Args:
        model, data, processor: see `progressive_block_drop`.
        settings: a `BlockDropSettings`.
        augmentation, cache, on_error: of the clips.
        validation_share, split_seed: see `training_splits`.
        seed: of the run.
        load_kwargs: passed to `load_video_dataset`.

    Raises:
        BlockDropError: no part to judge steps by, or no such metric.
        ValueError: the classes of the data set are not the model's.
    """

    def __init__(
        self, model, data, processor, settings, *, augmentation, cache, on_error, validation_share, split_seed, seed,
        trust_remote_code, load_kwargs,
    ):  # fmt: skip
        names = _class_names(model.config)
        load_kwargs = {"class_names": names, **load_kwargs}
        rows = training_splits(data, validation_share, split_seed, load_kwargs)
        if rows.validation is None:
            raise BlockDropError(
                "Compression is judged on held-out videos: give a data set with a validation split, or a validation_share above 0."
            )
        if label_names(rows.train) != names:
            raise BlockDropError(
                f"The model knows {', '.join(names[:4])} ..., the data set {', '.join(label_names(rows.train)[:4])} ...: compress a model "
                "on videos of its own classes."
            )
        self.trust_remote_code, self.rows, self.was_held_out = trust_remote_code, rows, rows.held_out
        self.multi_label = is_multi_label(rows.train)
        self.model = open_classifier(model, names, self.multi_label, seed, trust_remote_code)
        self.processor = open_processor(
            processor, self.model, getattr(model, "name_or_path", None) or None, trust_remote_code
        )
        if labels_forbid_flips(names):
            self.processor.horizontal_flip_safe = False
        self.names, self.augmentation, self.seed = names, augmentation, seed
        self.name = getattr(getattr(rows.train, "info", None), "dataset_name", None) or "unnamed"
        known = ("mAP", "micro_f1") if self.multi_label else ("top1", "mean_class_accuracy")
        self.metric = _known_metric(settings.metric, known)
        test = copy.deepcopy(self.processor)
        test.num_clips = test.num_crops = 1
        options = {"seed": seed, "on_error": on_error, "cache": cache}
        self.train = ClipDataset(rows.train, self.processor, train=True, augmentation=augmentation, **options)
        scored = ClipDataset(rows.train, test, **options)
        self.held_out = ClipDataset(rows.validation, test, **options)
        self.scoring = self.held_out if settings.score_on == "validation" else scored
        if settings.score_videos is not None:
            self.scoring = Subset(self.scoring, spread(len(self.scoring), settings.score_videos))

    def collator(self, train):
        if train:
            return ClipCollator(self.augmentation, len(self.names), self.seed, keep_index=True)
        return ClipCollator(keep_index=True)

    def open(self, folder):
        return open_classifier(str(folder), self.names, self.multi_label, self.seed, self.trust_remote_code)

    def task(self, model, part):
        return ClassificationTask(model, aggregation=self.processor.aggregation)

    def training_task(self, model, arguments):
        return classification_task(model, self.rows.train, len(self.names), self.processor, arguments)


class DetectorData(CompressionData):
    """Windows of annotated videos, or of their features, for a detector.

    Args:
        features: stored features, a folder or a `FeatureStore`; None: the videos.
        windows: of training, a `WindowSampling` or its fields.
        detection: `train_split`, `validation_split` and `tious` of `train_detector`.

    The others are those of `ClassifierData`.
    """

    items = "windows"

    def __init__(
        self, model, data, processor, settings, *, features, windows, detection, augmentation, on_error, validation_share, split_seed,
        seed, trust_remote_code, load_kwargs,
    ):  # fmt: skip
        store = features if features is None or hasattr(features, "info") else FeatureStore.open(features)
        names, detection = _class_names(model.config), dict(detection or {})
        tious = tuple(detection.pop("tious", THUMOS_TIOUS))
        one_class = detection.pop("one_class", len(names) == 1)
        splits = detection_splits(
            data, store, validation_share=validation_share, one_class=one_class, seed=split_seed, **detection, **load_kwargs
        )  # fmt: skip
        if splits.validation is None:
            raise BlockDropError(
                "Compression is judged on held-out videos: give annotations with a validation split, or a validation_share above 0."
            )
        train, validation = (_renumbered(part, names) for part in (splits.train, splits.validation))
        self.model, self.processor = open_detector(model, train, store, processor=processor, seed=seed)
        self.names, self.was_held_out, self.seed = names, splits.held_out, seed
        self.name, self.annotations = Path(train.name).stem, validation
        self.metric = _known_metric(settings.metric, ("average_mAP", *(f"mAP@{tiou:g}" for tiou in tious)))
        self.tious = tious if self.metric == "average_mAP" else (float(self.metric.removeprefix("mAP@")),)
        make = windows_of(store, self.processor, self.model.config, augmentation, seed=seed, on_error=on_error)
        self.train = make(train, train=True, windows=windows)
        self.held_out = make(validation, train=False)
        scored = validation if settings.score_on == "validation" else train
        if settings.score_videos is not None:
            chosen = spread(len(scored.videos), settings.score_videos)
            scored = type(scored)(scored.name, [scored.videos[number] for number in chosen], scored.class_names)
        self.scoring = self.held_out if scored is validation else make(scored, train=False)

    def collator(self, train):
        return DetectionCollator(self.processor.pad_length)

    def open(self, folder):
        return ActionFormerForTemporalActionDetection.from_pretrained(str(folder))

    def task(self, model, part):
        return DetectionTask(
            model, self.processor, {"scoring": self.scoring, "held_out": self.held_out}[part], self.tious
        )

    def training_task(self, model, arguments):
        return DetectionTask(model, self.processor, self.held_out, self.tious), None


def open_compression_data(
    model, data, settings, *, processor, arguments, augmentation, cache, features, windows, detection, **options
):
    """The data of a model, by its kind.

    Args:
        model: the uncompressed model; it is not changed.
        data: what `load_video_dataset` or `load_detection_annotations` takes.
        settings: a `BlockDropSettings`.
        processor: see `train_classifier` and `train_detector`.
        arguments: those of a recovery.
        augmentation: of training clips.
        cache: `"ram"` keeps decoded clips; classifiers.
        features, windows, detection: detectors.
        options: see `ClassifierData`.
    """
    model = copy.deepcopy(model)
    if model.config.model_type == "actionformer":
        options |= {"features": features, "windows": windows, "detection": detection, "augmentation": augmentation}
        return DetectorData(model, data, processor, settings, **options)
    if features is not None:
        raise BlockDropError("Stored features are for detectors; a classifier reads videos: leave `features` out.")
    augmentation = run_augmentation(augmentation, arguments)
    return ClassifierData(model, data, processor, settings, augmentation=augmentation, cache=cache, **options)


def spread(total: int, wanted: int) -> list[int]:
    """`wanted` indices spread evenly over `total`, all of them where there are no more: rows often stand class by class."""
    return sorted(set(np.linspace(0, total - 1, min(wanted, total)).round().astype(int).tolist()))


def _class_names(config) -> list[str]:
    return [config.id2label[number] for number in sorted(config.id2label)]


def _known_metric(wanted, known) -> str:
    if wanted is not None and wanted not in known:
        raise BlockDropError(f"metric must be one of {', '.join(known)} for this model, got {wanted!r}.")
    return wanted or known[0]


def _renumbered(annotations, names):
    """The same annotations with the classes in the order of the model's."""
    if len(names) == 1:
        return as_one_class(annotations, names[0])
    unknown = sorted(set(annotations.class_names) - set(names))
    if unknown:
        raise BlockDropError(
            f"{annotations.name}: the model does not know {', '.join(unknown[:3])}; it knows {', '.join(names[:4])} ... Compress a model on "
            "videos of its own classes."
        )
    return type(annotations)(annotations.name, annotations.videos, list(names))
