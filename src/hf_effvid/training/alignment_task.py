"""Recovery as a task: another task's loss, and what pulls its model towards a teacher that has blocks the model has lost.

L = L_task + w_f L_feat + w_c L_cls + w_b L_reg (equation 6 of https://huggingface.co/papers/2503.16916); the terms stand in
`compression/alignment.py`. Records and metrics are those of the other task, and so is everything that a checkpoint holds.
"""

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from ..compression.alignment import (
    ALIGNMENT_PRESETS,
    boundary_alignment_loss,
    classification_alignment_loss,
    feature_errors,
)
from ..compression.block_outputs import record_block_outputs
from ..compression.block_table import kept_blocks, model_blocks
from ..data.detection_collator import INPUTS
from .detection_task import DetectionTask
from .tasks import Task


ALIGNMENT_TERMS = ("feature", "classification", "boundary")
# of a call of the student: what is about its loss
_OF_THE_LOSS = ("labels", "loss_normalizer")


class AlignmentTask(Task):
    """A task whose model is aligned with a teacher while it trains.

    The teacher sees the very inputs of the student, in evaluation mode and without gradients. It stands outside of the module tree: it
    is neither trained nor saved nor counted. Evaluations are those of the wrapped task, without a pass of the teacher.

    Args:
        task: a `ClassificationTask` or `DetectionTask` around the student.
        teacher: the model before any block was dropped (static), or before the last was (dynamic); its blocks include the student's.
            It must not share weights with the student.
        part: whose features are aligned, see `model_blocks`.
        preset: `"paper"` or `"released"`, a key of `ALIGNMENT_PRESETS`, or an `AlignmentSettings`.
        terms: of `ALIGNMENT_TERMS`; None: all. `"boundary"` is about detectors and nothing elsewhere. With none of them the task is as
            without a teacher.
        temperature, boundary, feature_weight, classification_weight, boundary_weight: over those of the preset; None leaves them.
        task_weight: factor of the wrapped task's own loss.

    Attributes:
        settings: the `AlignmentSettings`.
        terms: those that are computed.

    Raises:
        ValueError: an unknown term or preset, a teacher that is the student or lacks one of its blocks.
    """

    def __init__(self, task, teacher, part=None, preset="paper", *, terms=None, task_weight=1.0, **settings):
        super().__init__(task.model)
        # the parts of the wrapped task under their own names: a checkpoint of the run is one of that task
        self._modules, self._parameters, self._buffers = task._modules, task._parameters, task._buffers
        self._non_persistent_buffers_set = task._non_persistent_buffers_set
        self.settings = _settings(preset, settings)
        self.is_detection = isinstance(task, DetectionTask)
        self.terms, self.part, self.task_weight = _known_terms(terms, self.is_detection), part, task_weight
        self.main_input_name = task.main_input_name
        shared = {id(parameter) for parameter in teacher.parameters()} & {id(p) for p in task.model.parameters()}
        if shared:
            raise ValueError(
                f"The teacher shares {len(shared)} weights with the student, which would train it: give copy.deepcopy(model)."
            )
        lacking = sorted(set(kept_blocks(task.model, part)) - set(kept_blocks(teacher, part)))
        if lacking:
            raise ValueError(
                f"The teacher lacks the blocks {lacking} (original numbers) that the student has: it must come before it."
            )
        # a tuple: what stands in one is no sub-module
        self._outside = (task, teacher.eval())

    @property
    def wrapped(self):
        """The task whose loss, records and metrics these are."""
        return self._outside[0]

    @property
    def teacher(self):
        """The model that is aligned with."""
        return self._outside[1]

    def train(self, mode=True):
        super().train(mode)
        self.wrapped.training = mode
        return self

    def forward(self, batch):
        """A batch of the wrapped task -> its outputs with the `loss` of equation 6; `task_loss`, `feature_alignment`,
        `classification_alignment`, `boundary_alignment` are its terms, without their factors.

        Raises:
            ValueError: features of student and teacher do not have the same shapes, or no gradient goes through the student's.
        """
        if not self.training or not self.terms:
            return self.wrapped(batch)
        aligns_features = "feature" in self.terms
        with ExitStack() as recording:
            features = self._recorded(recording, self.model) if aligns_features else {}
            calls = recording.enter_context(_recorded_calls(self.model))
            outputs = dict(self.wrapped(batch))
        teacher = self._ready_teacher()
        with torch.no_grad(), ExitStack() as recording:
            wanted = self._recorded(recording, teacher, list(features)) if aligns_features else {}
            answers = [self._ask(*call) for call in calls]
        found = {}
        if aligns_features:
            found["feature"] = self._feature_term(features, wanted, calls, batch)
        if "classification" in self.terms:
            found["classification"] = self._classification_term(calls, answers, batch)
        if "boundary" in self.terms:
            found["boundary"] = self._boundary_term(calls, answers, batch)
        loss = outputs["task_loss"] = outputs["loss"]
        loss = self.task_weight * loss
        for name, value in found.items():
            outputs[f"{name}_alignment"] = value
            loss = loss + getattr(self.settings, f"{name}_weight") * value
        return {**outputs, "loss": loss}

    def prepare_step(self, batches, sum_over_processes, num_processes):
        """Lets the wrapped task prepare, and finds which share of a step's clips and points each batch of a detector has.

        A mean over what a batch holds, times its share, times the number of batches: averaged over them, the mean over the step.
        """
        self.wrapped.prepare_step(batches, sum_over_processes, num_processes)
        if not self.is_detection or not self.terms:
            return
        counted = [self._counts(batch) for batch in batches]
        totals = {name: sum_over_processes(sum(counts[name] for counts in counted)) for name in counted[0]}
        number = len(batches) * num_processes
        for batch, counts in zip(batches, counted, strict=True):
            batch["step_shares_of"] = {name: number * counts[name] / max(totals[name], 1) for name in counts}

    def records(self, outputs, batch):
        return self.wrapped.records(outputs, batch)

    def metrics(self, records):
        return self.wrapped.metrics(records)

    def model_options(self):
        """What the wrapped task gives its model beside the pixels."""
        return self.wrapped.model_options()

    # ---- the teacher ------------------------------------------------------------------------------------------------

    def _ready_teacher(self):
        """The teacher where the student is: nothing moves it along, since it is in nobody's tree."""
        device = next(self.model.parameters()).device
        if next(self.teacher.parameters()).device != device:
            self.teacher.to(device)
        return self.teacher.eval()

    def _ask(self, args, kwargs, output):
        """The teacher's answer to a call that the student got."""
        dtype = next(self.teacher.parameters()).dtype
        kwargs = {name: _cast(value, dtype) for name, value in kwargs.items() if name not in _OF_THE_LOSS}
        kept = getattr(output, "kept_indices", None)
        if kept is not None and getattr(self.teacher.config, "keep_ratio", None) is not None:
            kwargs |= self._the_same_tokens(kept, kwargs)
        return self.teacher(*(_cast(value, dtype) for value in args), **kwargs)

    def _the_same_tokens(self, kept, kwargs):
        """Options with which a Lite teacher keeps the student's tokens (B, k), whatever its own selector says."""
        pixel_values = kwargs[self.teacher.main_input_name]
        num_tokens = self.teacher._clip_patches(pixel_values).grid.num_tokens
        chosen = torch.zeros(len(kept), num_tokens, device=kept.device).scatter(1, kept, 1.0)
        # half a token more: k / N as a decimal may be just below the fraction
        keep_ratio = min(1.0, (kept.shape[1] + 0.5) / num_tokens)
        return {"keep_ratio": keep_ratio, "scorer": "saliency", "selection_extras": {"saliency": chosen}}

    # ---- terms ------------------------------------------------------------------------------------------------------

    def _recorded(self, recording, model, indices=None):
        return recording.enter_context(record_block_outputs(model, self.part, indices))

    def _feature_term(self, features, wanted, calls, batch):
        if not any(output.requires_grad for passes in features.values() for output in passes):
            raise ValueError(
                "No gradient goes through the features that are to be aligned: their part is frozen, or gradient checkpointing runs "
                "with use_reentrant=True. Train the part, leave the term 'feature' out, or set use_reentrant=False."
            )
        masks = self._feature_masks(features, calls)
        errors = feature_errors(features, wanted, masks)
        shares = batch.get("step_shares_of")
        if shares is None:
            weighted = errors.values()
        elif masks is None:
            weighted = [shares["clips"] * error for error in errors.values()]
        else:
            levels = self._levels()
            weighted = [shares[f"steps_{levels[index]}"] * error for index, error in errors.items()]
        return torch.stack(list(weighted)).mean()

    def _levels(self):
        """Original number of a detector's own block -> level of the pyramid that it gives."""
        blocks = model_blocks(self.model, self.part)
        if blocks[0].part != "detector":
            return None
        places = {block.original_index: block.name.split(".")[-2:] for block in blocks}
        return {index: int(place) + 1 if name == "branch" else 0 for index, (name, place) in places.items()}

    def _feature_masks(self, features, calls):
        """Masks (B, T_l) of a detector's own features; clips of a trunk have no padding."""
        levels = self._levels()
        if levels is None:
            return None
        output = calls[0][2]
        lengths = (output.points[:, 3].unique(return_counts=True)[1]).tolist()
        masks = output.point_mask.split(lengths, dim=1)
        return {index: masks[levels[index]] for index in features}

    def _classification_term(self, calls, answers, batch):
        exclusive = None if self.is_detection else not getattr(self.wrapped, "multi_label", False)
        values, weights = [], []
        for (_, _, output), answer in zip(calls, answers, strict=True):
            per_point = classification_alignment_loss(
                output.logits, answer.logits, self.settings.temperature, exclusive
            )
            mask = output.point_mask if self.is_detection else torch.ones_like(per_point, dtype=torch.bool)
            values.append((per_point * mask).sum())
            weights.append(mask.sum())
        mean = sum(values) / sum(weights).clamp(min=1)
        return mean * batch.get("step_shares_of", {}).get("points", 1.0)

    def _boundary_term(self, calls, answers, batch):
        (_, _, output), answer = calls[0], answers[0]
        positive = self.wrapped.detector.assign_targets(batch["labels"], output.points).positive & output.point_mask
        per_point = boundary_alignment_loss(output.offsets[positive], answer.offsets[positive], self.settings.boundary)
        total = batch.get("step_positive", int(positive.sum()))
        # without positive points this is the sum of nothing, which keeps every parameter in the graph
        return per_point.sum() * batch.get("step_shares", 1) / max(total, 1)

    def _counts(self, batch):
        """What the terms are means over: clips of the trunk, steps of every level, points of all."""
        name = next(name for name in INPUTS if name in batch)
        mask = batch[INPUTS[name]].bool()
        counts = {}
        if name == "pixel_values":
            frames = mask.sum(dim=1).clamp(min=1)
            counts["clips"] = int((-(-frames // self.config.clip_frames)).sum())
            mask = mask[:, :: self.config.frames_per_step]  # a step is there when its first frame is
        for level in range(self.config.num_levels):
            counts[f"steps_{level}"] = int(mask[:, :: 2**level].sum())
        counts["points"] = sum(counts[f"steps_{level}"] for level in range(self.config.num_levels))
        return counts


@contextmanager
def _recorded_calls(model):
    """Every call of a model as (args, kwargs, output)."""
    calls = []
    hook = model.register_forward_hook(
        lambda module, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    try:
        yield calls
    finally:
        hook.remove()


def _settings(preset, changes):
    if isinstance(preset, str):
        if preset not in ALIGNMENT_PRESETS:
            raise ValueError(f"preset must be one of {', '.join(ALIGNMENT_PRESETS)}, got {preset!r}.")
        preset = ALIGNMENT_PRESETS[preset]
    return replace(preset, **{name: value for name, value in changes.items() if value is not None})


def _known_terms(terms, is_detection):
    terms = ALIGNMENT_TERMS if terms is None else tuple(terms)
    unknown = sorted(set(terms) - set(ALIGNMENT_TERMS))
    if unknown:
        raise ValueError(f"terms are of {', '.join(ALIGNMENT_TERMS)}, got {', '.join(map(repr, unknown))}.")
    return tuple(name for name in ALIGNMENT_TERMS if name in terms and (name != "boundary" or is_detection))


def _cast(value, dtype):
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
