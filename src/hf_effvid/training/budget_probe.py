"""The probe of LITE++: a linear classifier on pooled patch embeddings, fitted in one convex problem."""

import torch
from torch import nn

from ..models.budget_gauges import BudgetProbe


def fit_budget_probe(features, labels, num_labels, pooling="mean_std", weight_decay=1e-2, max_iterations=200):
    """Multinomial logistic regression on features of the training clips.

    With x standardised, it minimises mean CE(W x + b, y) + weight_decay / 2 ||W||^2 by L-BFGS in double precision, from zero: the same
    features give the same probe. The standardisation is folded into the weights.

    Args:
        features: (n, F), what `pool_embeddings` gives.
        labels: (n,) class numbers.
        num_labels: K.
        pooling: how the features were pooled; F has to fit it.
        weight_decay: of the weights of standardised features.
        max_iterations: of L-BFGS.

    Returns:
        a `BudgetProbe`, float32 on the CPU.

    Raises:
        ValueError: features and labels that do not fit each other.
    """
    features = torch.as_tensor(features, dtype=torch.float64)
    labels = torch.as_tensor(labels, dtype=torch.long)
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise ValueError(
            f"expected features (n, F) and labels (n,), n above 0, got {tuple(features.shape)} and {tuple(labels.shape)}."
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_labels:
        raise ValueError(
            f"expected labels from 0 to {num_labels - 1}, got {int(labels.min())} to {int(labels.max())}."
        )
    mean, scale = features.mean(0), features.std(0, correction=0)
    # a feature that never changes says nothing; its weight stays zero
    scale = torch.where(scale > 1e-12 * (1 + mean.abs()), scale, torch.inf)
    inputs = (features - mean) / scale
    weight = torch.zeros(num_labels, inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_labels, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iterations, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = (
            nn.functional.cross_entropy(inputs @ weight.T + bias, labels) + weight_decay / 2 * weight.square().sum()
        )
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    probe = BudgetProbe(features.shape[1] // (2 if pooling == "mean_std" else 1), num_labels, pooling)
    with torch.no_grad():
        folded = weight / scale
        probe.weight.copy_(folded)
        probe.bias.copy_(bias - folded @ mean)
    return probe
