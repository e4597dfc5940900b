"""How sure something cheap is of a clip: the gauges that `token_budget` decides by.

A confidence is the largest softmax probability. Labels that exclude each other are meant; several labels per video have none.
"""

import torch
import torch.nn.functional as F
from torch import nn


POOLINGS = ("mean", "mean_std")


def confidence_of(logits, temperature=1.0):
    """The largest softmax probability of (B, K) logits at a temperature, (B,) float32."""
    return (logits.float() / temperature).softmax(-1).amax(-1)


def pool_embeddings(patch_embeddings, pooling="mean_std"):
    """Patch embeddings of a clip as one vector, in float32.

    Args:
        patch_embeddings: (B, N, D).
        pooling: "mean" over the tokens, or "mean_std", the standard deviation behind it.

    Returns:
        (B, D) or (B, 2 D).
    """
    embeddings = patch_embeddings.float()
    mean = embeddings.mean(1)
    return mean if pooling == "mean" else torch.cat([mean, embeddings.std(1, correction=0)], dim=-1)


class BudgetProbe(nn.Linear):
    """The gauge `probe`: class logits from pooled patch embeddings. Saved as `budget_probe.weight` and `budget_probe.bias`.

    Args:
        hidden_size: D of the embeddings.
        num_labels: K.
        pooling: see `pool_embeddings`.
    """

    def __init__(self, hidden_size, num_labels, pooling="mean_std"):
        super().__init__(hidden_size * (2 if pooling == "mean_std" else 1), num_labels)
        self.pooling = pooling

    def forward(self, patch_embeddings):
        """(B, N, D) -> (B, K) float32."""
        pooled = pool_embeddings(patch_embeddings, self.pooling)
        return F.linear(pooled, self.weight.float(), self.bias.float())
