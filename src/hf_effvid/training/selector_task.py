"""Training LITE's selector: the host answers, the oracle reads off which tokens counted, the selector learns to say so from the embedding.

The loss of a clip is the mean over its tokens of the binary cross entropy between the oracle's scores in [0, 1] (soft targets) and the
sigmoid of the selector's logits. Host and oracle run in the same forward pass, frozen and in evaluation mode.
"""

import torch
from torch.nn import functional as F

from ..compression.token_deletion import rank_correlation
from ..compression.token_importance import OracleSettings, oracle_importance
from ..models.token_selection import num_kept_tokens
from .selector_targets import check_variants, of_other_clips, varied
from .tasks import MULTI_LABEL, Task


_PER_CLIP = ("losses", "correlations", "flat", "overlap", "top1_full", "top1_lite", "top1_random")


def labels_of_model(labels, label_map, num_labels):
    """Labels of a data set as labels of a model.

    Args:
        labels: (B,) classes, (B, K) with 1 for each class of a clip, or None.
        label_map: (K,) the model's class for each, -1 for none, or None when they are the same.
        num_labels: classes of the model.

    Returns:
        (B,) with -1 for classes that the model does not know; or (B, num_labels), where such classes are missing; or None.
    """
    if labels is None or label_map is None:
        return labels
    if labels.ndim == 1:
        return label_map[labels]
    known = label_map >= 0
    mapped = labels.new_zeros(len(labels), num_labels)
    mapped[:, label_map[known]] = labels[:, known]
    return mapped


class SelectorTask(Task):
    """Binary cross entropy between a selector and an oracle.

    Args:
        model: a Lite model; all but its `selector` is frozen.
        oracle: what the targets are.
        variants: names from `selector_targets.TARGET_VARIANTS`.
        shuffled: the control: every clip learns the targets of another.
        keep_ratio: share of the tokens at which evaluations compare the selector with the oracle, chance and the whole host.
        label_map: (classes of the data set,) class of the model for each, or None when they are the same; -1 marks a class that the model
            does not know, whose clips are left out of the accuracies.

    Raises:
        ValueError: a model without a selector, or an unknown variant.
    """

    def __init__(self, model, oracle=None, variants=(), shuffled=False, keep_ratio=0.5, label_map=None):
        super().__init__(model)
        if not hasattr(model, "selector"):
            raise ValueError(
                f"{type(model).__name__} has no selector to train; open the checkpoint with select_tokens or as a Lite class."
            )
        self.oracle, self.variants, self.shuffled = oracle or OracleSettings(), check_variants(variants), shuffled
        self.keep_ratio = keep_ratio
        self.register_buffer("label_map", label_map, persistent=False)
        model.requires_grad_(False)
        model.selector.requires_grad_(True)
        # said at once, so that every checkpoint of the run says it
        model.config.selector_trained = True

    def forward(self, batch):
        """`pixel_values` (B, T, C, H, W) or (B, V, T, C, H, W), `labels` (B,) or (B, K) -> `loss`, `flat_targets`, and per clip `losses`,
        `correlations`; in evaluation also right answers with all, the selector's and random tokens.

        A clip on which the oracle gives every token the same score teaches nothing: it counts 0.
        """
        pixel_values, labels = self._views(batch)
        importance = oracle_importance(self.model, pixel_values, labels, self.oracle)
        targets = importance.targets.float()
        if self.variants:
            targets = varied(targets, self.model._clip_patches(pixel_values).grid, self.variants)
        if self.shuffled and self.training:
            targets = of_other_clips(targets)
        logits = self.model.token_scores(pixel_values, scorer="lite")
        of_tokens = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        flat = importance.is_flat
        losses = of_tokens.mean(1).masked_fill(flat, 0)
        outputs = {"loss": losses.mean(), "losses": losses, "flat_targets": flat.float().mean()}
        if not self.training:
            outputs |= {"correlations": rank_correlation(logits, targets), "flat": flat}
            outputs |= self._agreement(logits, targets, pixel_values, labels, importance.logits)
        return outputs

    def records(self, outputs, batch):
        columns = {name: outputs[name].detach().float().cpu() for name in _PER_CLIP if name in outputs}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def metrics(self, records):
        """`loss`; `rank_correlation` with the oracle and `overlap` of the kept tokens with the oracle's; `top1_full`, `top1_lite`,
        `top1_random` at the keep ratio, over clips with a class the model knows."""
        if not records:
            return {}
        columns = {
            name: torch.stack([record[name] for record in records]).double()
            for name in _PER_CLIP
            if name in records[0]
        }
        told = columns["flat"] == 0
        metrics = {"loss": columns["losses"].mean().item(), "flat_targets": columns["flat"].mean().item()}
        if told.any():
            metrics["rank_correlation"] = columns["correlations"][told].mean().item()
            metrics["overlap"] = columns["overlap"][told].mean().item()
        for name in columns:
            known = columns[name] >= 0
            if name.startswith("top1_") and known.any():
                metrics[name] = columns[name][known].mean().item()
        return metrics

    def _views(self, batch):
        pixel_values, labels = batch["pixel_values"], batch.get("labels")
        if pixel_values.ndim == 6:
            labels = labels.repeat_interleave(pixel_values.shape[1], 0) if labels is not None else None
            pixel_values = pixel_values.flatten(0, 1)
        return pixel_values, labels_of_model(labels, self.label_map, self.config.num_labels)

    def _agreement(self, logits, targets, pixel_values, labels, full_logits):
        """What keeping the selector's tokens means, per clip; -1 where the class is not known."""
        kept = num_kept_tokens(logits.shape[1], self.keep_ratio)
        chosen, wanted = (
            torch.zeros_like(targets).scatter(1, scores.topk(kept, dim=1).indices, 1.0) for scores in (logits, targets)
        )
        found = {"overlap": (chosen * wanted).sum(1) / kept}
        if labels is None or self.config.problem_type == MULTI_LABEL:
            return found
        answers = {"top1_full": full_logits}
        for name, scorer in (("top1_lite", "lite"), ("top1_random", "random")):
            output = self.model(
                **{self.model.main_input_name: pixel_values}, keep_ratio=self.keep_ratio, scorer=scorer
            )
            answers[name] = output.logits
        for name, answer in answers.items():
            found[name] = (answer.argmax(-1) == labels).float().masked_fill(labels < 0, -1)
        return found
