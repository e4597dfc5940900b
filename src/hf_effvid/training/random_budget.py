"""Fine-tuning of a host under random keep ratios, so that one checkpoint serves every budget.

An arm of its own beside LITE, which never touches the host: it needs labels and a training run, and its accuracy at a budget must not be
read as that of a selector. The idea of training under dropped tokens is FluxViT's (https://huggingface.co/papers/2503.14237); this is not
its recipe, which distils from a larger teacher.
"""

import torch

from ..compression.host_selection import select_tokens
from ..models.token_budget import check_keep_ratio
from .tasks import ClassificationTask


class RandomBudgetTask(ClassificationTask):
    """Classification in which every training step keeps another share of the tokens; evaluations keep what the configuration says.

    The share is drawn from torch's generator of the CPU, which the trainer seeds by (seed, step, process): a resumed run draws what it
    would have drawn. One share per step and process, so that lengths stay static.

    Args:
        model: a Lite classifier, also wrapped by PEFT.
        keep_ratios: the shares to draw from, all equally likely.
        options: those of `ClassificationTask`.

    Raises:
        ValueError: no share, one outside (0, 1], or a model without token selection.
    """

    def __init__(self, model, keep_ratios, **options):
        super().__init__(model, **options)
        if not keep_ratios:
            raise ValueError("keep_ratios needs at least one share of tokens, got none.")
        for ratio in keep_ratios:
            check_keep_ratio("keep_ratios", ratio)
        if not selects_tokens(model):
            raise ValueError(
                f"random_keep_ratios need a model with token selection, got {type(model).__name__}: turn it into one with select_tokens."
            )
        self.keep_ratios = tuple(keep_ratios)

    def model_options(self):
        if not self.training:
            return {}
        return {"keep_ratio": self.keep_ratios[int(torch.randint(len(self.keep_ratios), ()))]}


def selects_tokens(model):
    """Whether a classifier, also one wrapped by PEFT, has budgets of tokens."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return hasattr(base, "set_budget_policy")


def with_token_selection(model):
    """The model itself if it selects tokens, else the same weights as a Lite model that keeps all tokens and drops at random when asked.

    Raises:
        UnsupportedHostError: tokens of this model cannot be selected.
    """
    return model if selects_tokens(model) else select_tokens(model, keep_ratio=1.0, scorer="random")
