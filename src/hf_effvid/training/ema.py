"""Exponential moving average of a model's trainable weights and floating-point buffers."""

from contextlib import contextmanager

import torch


class WeightAverage:
    """Keeps averaged copies next to the live weights and swaps them in while evaluating or saving.

    The decay is ramped, min(decay, (1 + steps) / (10 + steps)), so that the first average is not the initialisation.

    Args:
        model: the module that is averaged (the model of the task, not its auxiliaries).
        decay: weight of the old average in one update.
    """

    def __init__(self, model, decay):
        self.decay = decay
        self.num_updates = 0
        # tables that a model recomputes are no state, and no checkpoint holds them
        self.persistent = set(model.state_dict())
        self.shadow = {name: tensor.detach().clone() for name, tensor in self._live(model)}

    def _live(self, model):
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter
        for name, buffer in model.named_buffers():
            # running statistics belong to the weights they were measured with
            if name in self.persistent and buffer.is_floating_point():
                yield name, buffer

    @torch.no_grad()
    def update(self, model):
        """Moves the average towards the live weights; call it once per optimiser step."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for name, tensor in self._live(model):
            self.shadow[name].lerp_(tensor.detach().to(self.shadow[name].dtype), 1 - decay)

    @contextmanager
    def applied_to(self, model):
        """Within the block the model has the averaged weights."""
        self._swap(model)
        try:
            yield model
        finally:
            self._swap(model)

    @torch.no_grad()
    def copy_to(self, model):
        """Gives the model the averaged weights for good."""
        for name, tensor in self._live(model):
            tensor.copy_(self.shadow[name])

    @torch.no_grad()
    def _swap(self, model):
        for name, tensor in self._live(model):
            live = tensor.detach().clone()
            tensor.copy_(self.shadow[name])
            self.shadow[name] = live

    def load(self, tensors, num_updates):
        """Takes over averaged tensors, by name.

        Raises:
            KeyError: names that the running model does not have, or lacks.
        """
        missing = sorted(set(self.shadow) - set(tensors))
        if missing:
            raise KeyError(
                f"The checkpoint's moving average lacks {len(missing)} tensors, the first is {missing[0]!r}."
            )
        for name, shadow in self.shadow.items():
            shadow.copy_(tensors[name].to(shadow.dtype))
        self.num_updates = num_updates
