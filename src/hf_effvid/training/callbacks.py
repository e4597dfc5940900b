"""What has to happen at fixed moments of the Trainer's loop."""

import math

from transformers import TrainerCallback


class TrainerHooks(TrainerCallback):
    """Keeps the parts of an `EffVidTrainer` in step with transformers' loop.

    Args:
        trainer: the trainer it belongs to.
    """

    def __init__(self, trainer):
        self.trainer = trainer

    def on_epoch_begin(self, args, state, control, **kwargs):
        # set here because accelerate does not reach the sampler when several processes resume within an epoch
        if self.trainer.sampler is not None:
            self.trainer.sampler.set_epoch(math.floor(state.epoch or 0))

    def on_step_begin(self, args, state, control, **kwargs):
        self.trainer.micro_step = 0
        self.trainer.task.begin_step(state.global_step, state.max_steps)

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.trainer.average is not None:
            self.trainer.average.update(self.trainer.task.model)

    def on_train_end(self, args, state, control, **kwargs):
        # from here on the model is what was evaluated, unless the best checkpoint has been loaded already
        trainer = self.trainer
        if trainer.average is not None and not trainer.average_is_live:
            trainer.average.copy_to(trainer.task.model)
            trainer.average_is_live = True
