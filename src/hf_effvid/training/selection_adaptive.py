"""LITE++ as an arm of a study: easy clips get the small budget, by the confidence of a probe that costs next to nothing."""

from dataclasses import dataclass, field

from torch import nn

from ..models.token_budget import PUBLISHED_EASY_KEEP_RATIOS, BudgetPolicy
from .budget_calibration import PUBLISHED_EASY_SHARE, calibrate_budget
from .budget_measuring import budget_costs
from .selection_arms import Arm, ArmUnavailable, OneRun, sharing_weights


ADAPTIVE = "LITE++"
CALIBRATED_AT = 0.5
"""Base budget whose thresholds serve all: they are confidences of the probe, which sees no budget."""


@dataclass
class AdaptiveArm(Arm):
    """Every clip has its own budget.

    Attributes:
        models: base budget -> LITE with a policy.
        gmacs: base budget -> multiply-accumulates of a clip, in units of 1e9, at the share of easy clips of the calibration.
    """

    models: dict[float, nn.Module] = field(default_factory=dict)
    gmacs: dict[float, float] = field(default_factory=dict)

    def logits(self, prepared, keep_ratio):
        return self.models[keep_ratio](pixel_values=prepared.pixel_values).logits

    def reaches(self, keep_ratio):
        return keep_ratio in self.models

    def model_at(self, keep_ratio):
        return OneRun(self.models[keep_ratio])

    def known_gmacs(self, keep_ratio):
        return self.gmacs[keep_ratio]

    @property
    def is_timed(self):
        # one clip takes as long as its own budget: the mean over clips is what counts, and no clip has it
        return False


def adaptive_arm(lite, processor, data, keep_ratios, views_shape, **options) -> AdaptiveArm:
    """LITE++ with the paper's rule: easy clips keep .3 of their tokens, or .2 where the others keep .3.

    The thresholds put about half of the held-out clips on the small budget, as the paper's costs imply.

    Args:
        lite: the Lite model with its trained selector; it is left as it is.
        processor: its processor.
        data: what `load_video_dataset` takes; the probe is fitted on `train`, the thresholds on `validation` or a part of `train`.
        keep_ratios: base budgets; those for which the paper has a small one are used.
        views_shape: (1, T, C, H, W).
        options: further arguments of `calibrate_budget`.

    Raises:
        ArmUnavailable: no such budget, or the data cannot be calibrated on.
    """
    published = [ratio for ratio in keep_ratios if ratio in PUBLISHED_EASY_KEEP_RATIOS]
    if not published:
        raise ArmUnavailable("the paper has a small budget for P = .9, .7, .5 and .3 alone.")
    model = sharing_weights(lite)
    model.config.scorer = "lite"
    try:
        found = calibrate_budget(model, data, gauge="probe", keep_ratio=CALIBRATED_AT, processor=processor, **options)
    except ValueError as error:  # also of the splits: no clips to hold out, no training clips
        raise ArmUnavailable(str(error)) from error
    policy = BudgetPolicy(found.thresholds.low, found.thresholds.high, None, "probe", found.policy.probe_pooling)
    models, gmacs, share = {}, {}, found.thresholds.easy_share
    for ratio in published:
        models[ratio] = sharing_weights(model)
        models[ratio].config.keep_ratio = ratio
        models[ratio].set_budget_policy(policy, probe=model.budget_probe)
        gmacs[ratio] = budget_costs(models[ratio], views_shape, policy).mean(share)
    settings = {"policy": policy.to_dict(), "easy_share": share, "wanted_share": PUBLISHED_EASY_SHARE}
    return AdaptiveArm(ADAPTIVE, "adaptive", settings=settings, models=models, gmacs=gmacs)
