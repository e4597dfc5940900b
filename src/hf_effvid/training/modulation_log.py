"""Logs whether focal modulation learns: the gates of every level, and how much gradient each branch gets.

What goes wrong in a Video-FocalNet shows there first: a temporal branch whose gradient is far below the spatial one's stays as it was
initialised, and gates that stay at zero or all at the global context say that a level is not used.
"""

from collections import defaultdict

import torch
from transformers import TrainerCallback

from ..explanation import require_modulators
from ..explanation.modulators import modulators_of, stage_of_blocks


PREFIX = "modulation"
_SPATIAL_PARTS = ("projection_in", "projection_context", "spatial_kernel_", "joint_kernel_")


class ModulationLog(TrainerCallback):
    """Adds to every log line of a training (`modulation/...`, so also to TensorBoard and other trackers):

    - `modulation/gate/stage2/temporal/level1`: mean size |gate| of a focal level over the blocks of a stage and all sites, the global
      context under `global`; and `modulation/gate_mean/...`, the same with its sign. From one forward pass in evaluation mode over
      the first clips of the last batch, for each log line.
    - `modulation/gradient/spatial`, `temporal`, `other`: norm of the gradients of the parameters of the spatial branch (query
      included), of the temporal branch, and of the rest, and `modulation/gradient/temporal_to_spatial`. Means over the steps since the
      last line, as the optimiser gets them: after clipping, and with fp16 without clipping times the loss scale.

    Weights, gradients and random draws are left alone: a training with it gives the weights of one without it.

    Args:
        trainer: the `EffVidTrainer` it belongs to; `EffVidTrainingArguments(log_modulation=True)` adds it.
        max_clips: clips of a batch that the gates are computed on.

    Raises:
        NoModulatorsError: the model has no modulators.
        ValueError: the weights are sharded over processes.
    """

    def __init__(self, trainer, max_clips=4):
        require_modulators(trainer.task.config)
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError(
                "log_modulation=True looks at whole parameters and gradients and cannot follow FSDP or DeepSpeed shards; set "
                "log_modulation=False."
            )
        self.trainer, self.max_clips = trainer, max_clips
        self.pixel_values = None
        self.gradients, self.num_steps = defaultdict(float), 0
        self.hook = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.hook = self.trainer.task.register_forward_pre_hook(self._remember)

    def on_train_end(self, args, state, control, **kwargs):
        self.hook.remove()
        self.hook = self.pixel_values = None

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        found = self._gradients_by_branch()
        for branch, gradients in found.items():
            self.gradients[branch] += torch.stack(torch._foreach_norm(gradients)).float().norm()
        # a batch that was skipped as non-finite left none
        self.num_steps += bool(found)

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_log:
            self._hand_over()

    def on_epoch_end(self, args, state, control, **kwargs):
        if control.should_log:
            self._hand_over()

    def _remember(self, task, inputs):
        """Keeps the last clips that were trained on; evaluations are not looked at."""
        if task.training:
            self.pixel_values = inputs[0]["pixel_values"][: self.max_clips]

    def _gradients_by_branch(self):
        found = defaultdict(list)
        for name, parameter in self.trainer.task.model.named_parameters():
            if parameter.grad is not None:
                found[branch_of(name)].append(parameter.grad.detach())
        return found

    def _hand_over(self):
        """Puts the values where the trainer's next log line takes its own terms from."""
        values = self._gates() if self.pixel_values is not None else {}
        if self.num_steps:
            norms = {branch: total / self.num_steps for branch, total in self.gradients.items()}
            values.update({f"gradient/{branch}": norm for branch, norm in norms.items()})
            if "spatial" in norms and "temporal" in norms:
                values["gradient/temporal_to_spatial"] = norms["temporal"] / norms["spatial"].clamp_min(1e-12)
        self.gradients, self.num_steps = defaultdict(float), 0
        self.trainer.logged_terms.update({f"{PREFIX}/{name}": (value, 1) for name, value in values.items()})

    def _gates(self):
        model, pixel_values = self.trainer.task.model, self.pixel_values
        if pixel_values.ndim == 6:  # several views of each clip
            pixel_values = pixel_values[:, 0]
        output = modulators_of(model, pixel_values)
        found = defaultdict(list)
        for branch, of_branch in (("spatial", output.spatial_gates), ("temporal", output.temporal_gates)):
            for stage, gates in zip(stage_of_blocks(model.config.depths), of_branch or (), strict=False):
                levels = gates.float().flatten(0, -2)
                for level in range(levels.shape[-1]):
                    name = f"stage{stage + 1}/{branch}/{'global' if level == levels.shape[-1] - 1 else f'level{level + 1}'}"
                    found[f"gate/{name}"].append(levels[:, level].abs().mean())
                    found[f"gate_mean/{name}"].append(levels[:, level].mean())
        return {name: torch.stack(of_blocks).mean() for name, of_blocks in found.items()}


def branch_of(name):
    """The branch that a parameter of a Video-FocalNet belongs to: "spatial", "temporal" or "other"."""
    inside, _, part = name.partition(".modulation.")
    if not part:
        return "other"
    if "temporal" in part:
        return "temporal"
    return "spatial" if part.startswith(_SPATIAL_PARTS) else "other"
