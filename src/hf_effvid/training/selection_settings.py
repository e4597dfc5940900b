"""What a study of token selection compares, and how much of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..compression import OracleSettings
from ..evaluation.selection_report import FULL, LITE, ORACLES, RANDOM, StudyError
from .selection_adaptive import ADAPTIVE
from .selection_arms import FREE_SCORERS, MERGING_NAMES, REVERSED
from .selection_inputs import INPUT_ARMS
from .selection_selectors import VARIANTS, variant_arm


KEEP_RATIOS = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1)


def known_arms() -> list[str]:
    """Names of all arms that a study can have."""
    learned = [LITE, REVERSED, *(variant_arm(name) for name in VARIANTS)]
    others = ["motion_vectors", "attention", *ORACLES, *MERGING_NAMES.values(), *INPUT_ARMS, ADAPTIVE]
    return [FULL, RANDOM, *FREE_SCORERS, *learned, *others]


@dataclass(frozen=True)
class StudySettings:
    """What is compared, and how much of it.

    Attributes:
        keep_ratios: budgets P.
        arms: names of arms; None for all that the host allows. The full model, `random` and the `variants` always take part.
        draws: repetitions of random tokens.
        oracle: what the oracle reads.
        prior_videos: training videos whose mean oracle map is the position prior; 0 leaves it out.
        probe_videos: the first so many training videos fit the probe of LITE++.
        batch_size: clips per forward pass.
        max_videos: the first so many videos only.
        timing_rounds: interleaved rounds of the times; 0 measures none.
        timing_batch: clips per timed pass.
        examples: videos that masks are drawn on.
        num_workers: processes that decode.
        train_selector: train LITE's selector on the `train` split where the model brings none.
        variants: of the selector, see `selection_selectors.VARIANTS`; each is trained.
        selector_args: fields of `EffVidTrainingArguments` for these trainings.
    """

    keep_ratios: Sequence[float] = KEEP_RATIOS
    arms: Sequence[str] | None = None
    draws: int = 5
    oracle: OracleSettings = field(default_factory=OracleSettings)
    prior_videos: int = 256
    probe_videos: int = 512
    batch_size: int = 16
    max_videos: int | None = None
    timing_rounds: int = 7
    timing_batch: int = 1
    examples: int = 4
    num_workers: int = 0
    train_selector: bool = True
    variants: Sequence[str] = ()
    selector_args: dict = field(default_factory=dict)

    def __post_init__(self):
        if not self.keep_ratios or not all(0 < ratio < 1 for ratio in self.keep_ratios):
            raise StudyError(f"keep_ratios should lie above 0 and below 1, got {list(self.keep_ratios)}.")
        for name in ("draws", "batch_size", "timing_batch"):
            if getattr(self, name) < 1:
                raise StudyError(f"{name} should be at least 1, got {getattr(self, name)}.")
        for name, given, known in (("variants", self.variants, VARIANTS), ("arms", self.arms or (), known_arms())):
            unknown = [one for one in given if one not in known]
            if unknown:
                raise StudyError(f"{name} are {', '.join(known)}, got {', '.join(map(repr, unknown))}.")

    def wants(self, name: str) -> bool:
        """Whether an arm takes part."""
        always = (FULL, RANDOM, *(variant_arm(variant) for variant in self.variants))
        return self.arms is None or name in always or name in self.arms
