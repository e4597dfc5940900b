"""Learning rates of Video-FocalNet's recipe: a warm-up from a rate above zero, a cosine to a rate above zero, and their scaling.

Every rate is a function of the optimiser's step, so nothing depends on how often a data loader was restarted.
"""

import math
from functools import partial

from torch.optim.lr_scheduler import LambdaLR


SCHEDULES = ("transformers", "cosine", "cosine_timm")


def learning_rate_at(step, schedule, peak, minimum, start, warmup_steps, num_steps):
    """The learning rate of one optimiser step.

    Let t be the step, W the warm-up, N all steps. Both schedules rise linearly from `start` to `peak` in W steps.

    * `cosine`: then minimum + (peak - minimum) / 2 * (1 + cos(pi (t - W) / (N - W))).
    * `cosine_timm`: what timm's `CosineLRScheduler` does as the code of Video-FocalNet (and of Swin) calls it. The cosine
      counts from step 0, cos(pi t / N), so that the rate drops where the warm-up ends (by 6.7 % of peak - minimum for
      W / N = 20 / 120); and the rate of step t is that of t - 1, because it is set after the step.

    Args:
        step: number of the optimiser step, from 0.
        schedule: `cosine` or `cosine_timm`.
        peak: rate at the end of the warm-up.
        minimum: rate at the end.
        start: rate at step 0, when there is a warm-up.
        warmup_steps: W.
        num_steps: N.
    """
    if schedule == "cosine_timm":
        step, cosine_from = max(step - 1, 0), 0
    else:
        cosine_from = warmup_steps
    if step < warmup_steps:
        return start + (peak - start) * step / warmup_steps
    if step >= num_steps:
        return minimum
    return minimum + (peak - minimum) / 2 * (1 + math.cos(math.pi * (step - cosine_from) / (num_steps - cosine_from)))


def make_schedule(optimizer, args, num_steps):
    """The scheduler of `args.lr_schedule` for an optimiser whose groups stand at their peak rates.

    Args:
        optimizer: its groups may have rates of their own (`layer_decay`), to which everything is in proportion.
        args: `EffVidTrainingArguments`.
        num_steps: optimiser steps of the run; the cosine may be drawn over more, `args.schedule_epochs`.
    """
    warmup_steps = args.get_warmup_steps(num_steps)
    if args.warmup_epochs:
        warmup_steps = round(num_steps * args.warmup_epochs / args.num_train_epochs)
    if args.schedule_epochs:
        num_steps = round(num_steps * args.schedule_epochs / args.num_train_epochs)
    rates = {
        "schedule": args.lr_schedule,
        "peak": args.learning_rate,
        "minimum": args.min_learning_rate,
        "start": args.warmup_learning_rate,
        "warmup_steps": warmup_steps,
        "num_steps": num_steps,
    }
    return LambdaLR(optimizer, partial(_relative_rate, **rates))


def _relative_rate(step, *, peak, **rates):
    return learning_rate_at(step, peak=peak, **rates) / peak
