"""Temporal action detection as a task: the detector's own losses, and mAP over whole videos from the windows of an evaluation."""

from collections import defaultdict

import torch

from ..compression.lora import is_lora
from ..data.detection_collator import INPUTS
from ..evaluation.detection import THUMOS_TIOUS, evaluate_detector
from ..evaluation.detection_predictions import as_predictions
from ..models.temporal_points import make_points
from .tasks import Task


class DetectionTask(Task):
    """An ActionFormer on features or pixels.

    Losses are sums over points, divided by a running number of positive points N. One optimiser step counts its positives once, over all
    of its processes and accumulated batches, so that N, the losses and the gradients are those of one process with one large batch:

        N <- m N + (1 - m) sum_k n_k,    loss = sum_k S_k / N,

    with n_k the positive points and S_k the summed losses of share k. Without `prepare_step` (a loop of one's own) every batch counts for
    itself, as in the released code.

    Args:
        model: an `ActionFormerForTemporalActionDetection`, also wrapped by PEFT.
        processor: its `ActionFormerProcessor`; needed for evaluations.
        evaluated: the data set of evaluations, one of `data.detection_datasets` with `train=False`.
        tious: overlaps of the metrics.

    Attributes:
        report: `DetectionReport` of the last evaluation.
    """

    main_input_name = "input_features"

    def __init__(self, model, processor=None, evaluated=None, tious=THUMOS_TIOUS):
        super().__init__(model)
        self.processor, self.evaluated, self.tious = processor, evaluated, tuple(tious)
        self.report = None

    @property
    def detector(self):
        """The model without what PEFT wraps around it."""
        return self.model.get_base_model() if is_lora(self.model) else self.model

    def forward(self, batch):
        """A batch of `DetectionCollator` -> `loss`, `classification_loss`, `regression_loss`; in evaluations also the output."""
        inputs = {name: batch[name] for pair in INPUTS.items() for name in pair if name in batch}
        if not self.training:
            return self._evaluated(self.model(**inputs), batch)
        options, shares = {}, 1
        if "step_positive" in batch:
            counter, shares = self.detector.loss_normalizer, batch["step_shares"]
            if batch["first_of_step"]:
                counter(torch.as_tensor(batch["step_positive"], device=counter.value.device))
            options["loss_normalizer"] = counter.value.clone()
        output = self.model(**inputs, labels=batch["labels"], **options)
        # the trainer takes means over accumulated batches and processes, of what is to be a sum
        return {name: shares * output[name] for name in ("loss", "classification_loss", "regression_loss")}

    def _evaluated(self, output, batch):
        found = {"output": output}
        if batch.get("labels") is not None:
            rows = [
                self.detector.losses(
                    output.logits[row : row + 1].float(),
                    output.offsets[row : row + 1].float(),
                    output.point_mask[row : row + 1],
                    output.points,
                    batch["labels"][row : row + 1],
                )[0]
                for row in range(len(output.logits))
            ]
            found["losses"] = torch.stack(rows)
            found["loss"] = found["losses"].mean()
        return found

    def prepare_step(self, batches, sum_over_processes, num_processes):
        positive = sum(self.count_positive(batch) for batch in batches)
        total = sum_over_processes(positive)
        for number, batch in enumerate(batches):
            batch["step_positive"] = total
            batch["step_shares"] = len(batches) * num_processes
            batch["first_of_step"] = number == 0

    def count_positive(self, batch):
        """Number of points of a batch that answer for an annotation."""
        name = next(name for name in INPUTS if name in batch)
        mask = batch[INPUTS[name]].bool()
        if name == "pixel_values":
            mask = mask[:, :: self.config.frames_per_step]  # a step is there when its first frame is
        points = make_points(mask.shape[1], self.config.regression_ranges, device=mask.device)
        levels = [mask[:, :: 2**level] for level in range(self.config.num_levels)]
        positive = self.detector.assign_targets(batch["labels"], points).positive & torch.cat(levels, dim=1)
        return int(positive.sum())

    def records(self, outputs, batch):
        windows = [self.evaluated.windows[index] for index in batch["index"].tolist()]
        candidates = self.processor.decode_windows(outputs["output"], windows)
        records = [
            {
                "candidates": found._replace(
                    segments=found.segments.cpu(), scores=found.scores.cpu(), labels=found.labels.cpu()
                )
            }
            for found in candidates
        ]
        if "losses" in outputs:
            for record, value in zip(records, outputs["losses"].detach().float().cpu(), strict=True):
                record["loss"] = value
        return records

    def metrics(self, records):
        self.report = self._measured(records)
        losses = [record["loss"] for record in records if "loss" in record]
        loss = {"loss": torch.stack(losses).double().mean().item()} if losses else {}
        if self.report is None:
            return loss
        values = zip(self.report.tious, self.report.mAP, strict=True)
        return {**loss, "average_mAP": self.report.average_mAP, **{f"mAP@{t:g}": float(value) for t, value in values}}

    def _measured(self, records):
        """`DetectionReport` of the videos whose windows are all there; None when nothing is annotated in them."""
        by_video = defaultdict(list)
        for record in records:
            by_video[record["candidates"].video].append(record["candidates"])
        planned = defaultdict(int)
        for window in self.evaluated.windows:
            planned[window.video] += 1
        # a video of which a window could not be read would count as one in which little was found
        numbers = [number for number, found in sorted(by_video.items()) if len(found) == planned[number]]
        annotations, durations = self.evaluated.annotations, self.evaluated.durations()
        truth = annotations.to_activitynet()["database"]
        names = [annotations.videos[number].name for number in numbers]
        if not any(truth[name]["annotations"] for name in names):
            return None
        candidates = [
            found._replace(video=place) for place, number in enumerate(numbers) for found in by_video[number]
        ]
        limits = [durations[number] if durations[number] is not None else float("inf") for number in numbers]
        detections = self.processor.merge_windows(candidates, limits, len(numbers))
        predictions = {
            name: as_predictions(found, self.config.id2label) for name, found in zip(names, detections, strict=True)
        }
        return evaluate_detector({name: truth[name] for name in names}, predictions, self.tious)
