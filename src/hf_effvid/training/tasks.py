"""Tasks: modules that own a model, its trainable auxiliaries and a loss, behind one `forward(batch)`.

A trainer wraps the task, not the model, so that everything trainable is inside the module that DDP or FSDP sees. Frozen
helpers (teachers) stay outside the module tree of a task. Besides `forward`, a task says how its outputs become one
record per clip (`records`) and how records become metrics (`metrics`): the evaluation gathers records, not tensors, so
targets of different lengths survive.
"""

import torch
from torch import nn

from . import losses
from .freezing import keep_frozen_parts_in_eval
from .metrics import multi_label_metrics, single_label_metrics


MULTI_LABEL = "multi_label_classification"
_MULTI_LABEL_LOSSES = ("bce", "asymmetric")


class Task(nn.Module):
    """What every task shares: the model as `self.model`, and the attributes through which a Trainer looks at a model.

    Args:
        model: the `PreTrainedModel` (or PEFT wrapper) that is trained and saved.
    """

    # the Trainer passes one batch dictionary, no keyword arguments for the loss
    accepts_loss_kwargs = False
    main_input_name = "pixel_values"

    def __init__(self, model):
        super().__init__()
        self.model = model

    @property
    def config(self):
        return self.model.config

    @property
    def _no_split_modules(self):
        # FSDP's automatic wrapping reads it from the module that it is given
        return getattr(self.model, "_no_split_modules", None)

    @property
    def is_activation_checkpointing(self):
        name = "is_activation_checkpointing"
        return bool(
            getattr(self.model, name if hasattr(type(self.model), name) else "is_gradient_checkpointing", False)
        )

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs=None, **kwargs):
        """Recomputes activations in the backward pass; forwarded to the model, whatever its transformers version."""
        if hasattr(self.model, "activation_checkpointing_enable"):
            self.model.activation_checkpointing_enable(activation_checkpointing_kwargs, **kwargs)
        else:
            self.model.gradient_checkpointing_enable(activation_checkpointing_kwargs)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs=None, **kwargs):
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs)

    def train(self, mode=True):
        super().train(mode)
        if mode:
            keep_frozen_parts_in_eval(self)
        return self

    def prepare_step(self, batches, sum_over_processes, num_processes):
        """Called with the batches of every optimiser step before the first of them is seen, for what they have to know of each other.

        Args:
            batches: dictionaries of this process, which may be added to.
            sum_over_processes: a number -> its sum over all processes; called on all of them alike.
            num_processes: how many there are.
        """

    def begin_step(self, step, num_steps):
        """Called before the batches of every optimiser step, for what changes in the course of a run.

        Args:
            step: optimiser steps taken so far, also in runs before a resumed one.
            num_steps: those of the whole run.
        """

    def forward(self, batch):
        """One batch -> dictionary with a scalar `loss` and whatever `records` needs."""
        raise NotImplementedError

    def records(self, outputs, batch):
        """Outputs of one batch -> a list with one dictionary of CPU tensors per clip."""
        raise NotImplementedError

    def metrics(self, records):
        """All records of an evaluation -> dictionary of floats."""
        raise NotImplementedError


class ClassificationTask(Task):
    """Single- or multi-label classification with any model that takes `pixel_values` and returns `logits`.

    Args:
        model: a video classifier; `config.problem_type` tells multi-label from single-label.
        loss: one of `losses` by name: `auto`, `cross_entropy`, `focal`, `logit_adjusted`, `bce`, `asymmetric`.
        label_smoothing: for the single-label losses, in training only.
        class_weights: (K,) tensor or None, in training only.
        log_prior: (K,) log class frequencies, needed by `logit_adjusted`.
        focal_gamma: exponent of `focal`.
        logit_adjustment_tau: strength of the prior.
        aggregation: how the views of a clip (B, V, T, C, H, W) become one answer: `softmax_mean` or `logit_mean`.

    Raises:
        ValueError: a loss that does not fit the problem type.
    """

    def __init__(
        self,
        model,
        loss="auto",
        label_smoothing=0.0,
        class_weights=None,
        log_prior=None,
        focal_gamma=2.0,
        logit_adjustment_tau=1.0,
        aggregation="softmax_mean",
    ):
        super().__init__(model)
        self.multi_label = getattr(model.config, "problem_type", None) == MULTI_LABEL
        self.loss = ("bce" if self.multi_label else "cross_entropy") if loss == "auto" else loss
        if (self.loss in _MULTI_LABEL_LOSSES) != self.multi_label:
            kind = "multi-label" if self.multi_label else "single-label"
            raise ValueError(
                f"loss={loss!r} does not fit a {kind} model (config.problem_type={model.config.problem_type!r}); "
                f"use {'bce or asymmetric' if self.multi_label else 'cross_entropy, focal or logit_adjusted'}."
            )
        if self.loss == "logit_adjusted" and log_prior is None:
            raise ValueError("loss='logit_adjusted' needs log_prior, the log class frequencies of the training set.")
        self.label_smoothing = label_smoothing
        self.focal_gamma = focal_gamma
        self.logit_adjustment_tau = logit_adjustment_tau
        self.aggregation = aggregation
        # they follow the device, but the training set gives them again: not part of the state
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.register_buffer("log_prior", log_prior, persistent=False)

    def forward(self, batch):
        """`pixel_values` (B, T, C, H, W) or (B, V, T, C, H, W), optional `labels` -> `loss`, `losses` (B,), `logits` (B, K)."""
        logits = self._logits(batch["pixel_values"])
        outputs = {"logits": logits}
        if batch.get("labels") is not None:
            outputs["losses"] = self._losses(logits, batch["labels"])
            outputs["loss"] = outputs["losses"].mean()
        return outputs

    def records(self, outputs, batch):
        logits = outputs["logits"].detach().float().cpu()
        records = [{"logits": row} for row in logits]
        if "losses" in outputs:
            clip_losses = outputs["losses"].detach().float().cpu()
            for record, value, label in zip(records, clip_losses, batch["labels"].detach().cpu(), strict=True):
                record.update(loss=value, label=label)
        return records

    def metrics(self, records):
        labelled = [record for record in records if "label" in record]
        if not labelled:
            return {}
        logits = torch.stack([record["logits"] for record in labelled])
        labels = torch.stack([record["label"] for record in labelled])
        metrics = multi_label_metrics(logits, labels) if self.multi_label else single_label_metrics(logits, labels)
        return {"loss": torch.stack([record["loss"] for record in labelled]).double().mean().item(), **metrics}

    def model_options(self):
        """What the model is given beside the pixels, anew in every call."""
        return {}

    def _logits(self, pixel_values):
        views = pixel_values.shape[1] if pixel_values.ndim == 6 else 1
        if pixel_values.ndim == 6:
            pixel_values = pixel_values.flatten(0, 1)
        parameter_dtype = next(self.model.parameters()).dtype
        if parameter_dtype in (torch.float16, torch.bfloat16):
            pixel_values = pixel_values.to(parameter_dtype)
        logits = self.model(pixel_values=pixel_values, **self.model_options()).logits.float()
        if views == 1:
            return logits
        logits = logits.unflatten(0, (-1, views))
        if self.aggregation == "logit_mean":
            return logits.mean(1)
        # the log of the mean probability, so that the result is again something a loss takes for logits
        if self.multi_label:
            return torch.logit(logits.sigmoid().mean(1), eps=1e-6)
        return logits.log_softmax(-1).logsumexp(1) - torch.log(torch.tensor(float(views), device=logits.device))

    def _losses(self, logits, labels):
        # evaluation measures the plain loss: smoothing, weights and priors are ways to train
        smoothing = self.label_smoothing if self.training else 0.0
        weights = self.class_weights if self.training else None
        if self.loss == "bce":
            return losses.binary_cross_entropy(logits, labels, weights)
        if self.loss == "asymmetric":
            return losses.asymmetric_loss(logits, labels, class_weights=weights)
        if self.loss == "focal":
            return losses.focal_loss(logits, labels, self.focal_gamma, smoothing, weights)
        if self.loss == "logit_adjusted" and self.training:
            return losses.logit_adjusted_cross_entropy(
                logits, labels, self.log_prior, self.logit_adjustment_tau, smoothing, weights
            )
        return losses.cross_entropy(logits, labels, smoothing, weights)
