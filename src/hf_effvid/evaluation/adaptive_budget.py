"""Was a budget per clip (LITE++) worth it? The same videos at the small and at the base budget, mixed by a gauge, by chance, or not at all.

Two comparisons say what the gauge knows: with one keep ratio for all clips that costs as much (the gauge's own cost counted), and with
the same number of small budgets dealt out at random. Arrays only; `training.budget_evaluation` runs the model.

Shapes: n videos, V views (clips) of each, K classes. A budget belongs to a view; a video is right when the mean of its views is.
"""

from dataclasses import asdict, dataclass, field

import numpy as np

from .intervals import bootstrap_interval, paired_bootstrap_difference
from .results import Cost, Metric, Provenance, ResultEntry
from .temperature_scaling import expected_calibration_error, log_probabilities


TASK = "token-selection"
PAIRED = "paired bootstrap over videos 95%"


@dataclass(frozen=True)
class BudgetMeasurement:
    """What was measured of every video.

    Attributes:
        labels: (n,) right classes.
        confidence: (n, V) of the gauge.
        is_easy: (n, V) bools, which views got the small budget.
        easy_logits, base_logits: (n, V, K) of all views at each budget.
        fixed_logits: (n, V, K) at `fixed_keep_ratio`, whose cost is that of the mixture; None where it was not measured.
        fixed_keep_ratio: the keep ratio, one for all, of equal mean cost.
        easy_keep_ratio, base_keep_ratio: realised shares of tokens (k / N).
        easy_gmacs, base_gmacs, gauge_gmacs, fixed_gmacs: multiply-accumulates of one view, in 1e9.
        cascade: the gauge is the host at the small budget, so that other views cost both.
        gauge_correct: (n, V) bools, whether the gauge itself named the right class; None where it has no classes of its own.
    """

    labels: np.ndarray
    confidence: np.ndarray
    is_easy: np.ndarray
    easy_logits: np.ndarray
    base_logits: np.ndarray
    easy_keep_ratio: float
    base_keep_ratio: float
    easy_gmacs: float
    base_gmacs: float
    gauge_gmacs: float = 0.0
    cascade: bool = False
    fixed_logits: np.ndarray | None = None
    fixed_keep_ratio: float | None = None
    fixed_gmacs: float | None = None
    gauge_correct: np.ndarray | None = None

    def __post_init__(self):
        shape = self.easy_logits.shape
        expected = {"labels": shape[:1], "confidence": shape[:2], "is_easy": shape[:2], "base_logits": shape}
        if len(shape) != 3 or not shape[0]:
            raise ValueError(f"expected logits (videos, views, classes) of at least one video, got {shape}.")
        for name, wanted in expected.items():
            if np.shape(getattr(self, name)) != wanted:
                raise ValueError(f"expected {name} of shape {wanted}, got {np.shape(getattr(self, name))}.")

    @property
    def mean_gmacs(self) -> float:
        """Mean multiply-accumulates of a view, the gauge included."""
        share = float(self.is_easy.mean())
        mixed = share * self.easy_gmacs + (1 - share) * self.base_gmacs
        return self.gauge_gmacs + (self.easy_gmacs + (1 - share) * self.base_gmacs if self.cascade else mixed)

    @property
    def mean_keep_ratio(self) -> float:
        """Mean share of tokens of the answers."""
        share = float(self.is_easy.mean())
        return share * self.easy_keep_ratio + (1 - share) * self.base_keep_ratio


@dataclass(frozen=True)
class CurveBin:
    """Views of similar confidence.

    Attributes:
        low, high: the confidences between which they lie.
        n: number of views.
        confidence: their mean confidence.
        gauge, easy, base: share of them whose class the gauge, the small and the base budget named right; None without the gauge's classes.
    """

    low: float
    high: float
    n: int
    confidence: float
    gauge: float | None
    easy: float
    base: float


@dataclass
class AdaptiveBudgetReport:
    """The numbers of one policy; accuracies are shares of videos.

    Attributes:
        n, num_views: videos, and views of each.
        easy_share: share of views with the small budget.
        mean_keep_ratio: realised mean budget of the answers.
        mean_gmacs: mean cost of a view, the gauge included.
        gmacs: cost of a view by name: `base`, `easy`, `gauge`, `fixed`, `random` (its mean).
        accuracy: by name: `adaptive`, `base`, `easy`, `fixed`, `random` (mean over the draws).
        random_draws: accuracy of each random assignment.
        differences: accuracy of `adaptive` minus that of the named one, with an interval: `{"difference", "interval"}`.
        curve: the gauge's calibration curve.
        calibration_error: expected calibration error of the gauge on its own classes, None without them.
        calibration_error_before: the same without the temperature of its policy, where it has one.
        fixed_keep_ratio: see `BudgetMeasurement`.
    """

    n: int
    num_views: int
    easy_share: float
    mean_keep_ratio: float
    mean_gmacs: float
    gmacs: dict
    accuracy: dict
    random_draws: list
    differences: dict
    curve: list = field(default_factory=list)
    calibration_error: float | None = None
    calibration_error_before: float | None = None
    fixed_keep_ratio: float | None = None

    def to_dict(self) -> dict:
        """JSON-ready."""
        return asdict(self)

    def summary(self) -> str:
        """A few lines for people; a difference whose interval holds 0 is called one."""
        lines = [
            f"{self.accuracy['adaptive']:.1%} of {self.n} videos at {self.mean_gmacs:.4g} GMACs per view "
            f"({self.easy_share:.0%} of the views on the small budget, mean keep ratio {self.mean_keep_ratio:.3f})"
        ]
        names = {
            "base": "the base budget for all",
            "easy": "the small budget for all",
            "fixed": f"keep ratio {self.fixed_keep_ratio} for all",
            "random": "the same budgets dealt at random",
        }
        for name, found in self.differences.items():
            low, high = found["interval"]
            verdict = "no difference to be seen" if low <= 0 <= high else "better" if low > 0 else "worse"
            lines.append(
                f"against {names[name]} ({self.accuracy[name]:.1%}, {self.gmacs[name]:.4g} GMACs): "
                f"{found['difference']:+.1%} [{low:+.1%}, {high:+.1%}], {verdict}"
            )
        return "\n".join(lines)

    def result_entries(
        self, model, dataset, split, provenance: Provenance, protocol=None, setting: str = ""
    ) -> list[ResultEntry]:
        """The mixture, the fixed keep ratio of equal cost and the random assignment, in the one results format.

        Args:
            model, dataset, split, provenance, protocol: see `ResultEntry`.
            setting: what tells this policy from others in the same file, such as gauge and budgets.
        """
        entries, setting = [], f" ({setting})" if setting else ""
        variants = {
            "adaptive": "LITE++",
            "fixed": "LITE, keep ratio of equal cost",
            "random": "LITE++, budgets at random",
        }
        for name, variant in variants.items():
            if name not in self.accuracy:
                continue
            if name == "random":  # a mean over draws is no proportion
                metrics = [Metric("top1", self.accuracy[name], self.n)]
            else:
                metrics = [Metric.proportion("top1", round(self.accuracy[name] * self.n), self.n)]
            if name == "adaptive":
                metrics.append(Metric("mean_keep_ratio", self.mean_keep_ratio, self.n))
                metrics.append(Metric("share on the small budget", self.easy_share, self.n * self.num_views))
                metrics += [
                    Metric(f"difference_to_{other}", found["difference"], self.n, tuple(found["interval"]), PAIRED)
                    for other, found in self.differences.items()
                ]
            entries.append(
                ResultEntry(
                    task=TASK,
                    model=model,
                    dataset=dataset,
                    split=split,
                    metrics=tuple(metrics),
                    cost=Cost(gmacs=self.mean_gmacs if name == "adaptive" else self.gmacs[name]),
                    provenance=provenance,
                    protocol=dict(protocol or {}),
                    variant=variant + setting,
                    notes=self._notes(name),
                )
            )
        return entries

    def _notes(self, name) -> tuple:
        if name == "random":
            lowest, highest = min(self.random_draws), max(self.random_draws)
            return (f"mean over {len(self.random_draws)} draws, from {lowest:.1%} to {highest:.1%}",)
        return (f"keep ratio {self.fixed_keep_ratio:.4g} for all",) if name == "fixed" else ()


def assess_adaptive_budget(measured: BudgetMeasurement, *, num_draws: int = 20, seed: int = 0) -> AdaptiveBudgetReport:
    """Compares a mixture of two budgets with what it could be replaced by.

    Args:
        measured: of every video.
        num_draws: random assignments of the same number of small budgets.
        seed: of the assignments and of the resampling.

    Returns:
        the report.

    Raises:
        ValueError: fewer than one draw.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}.")
    adaptive = right_videos(_mixture(measured, measured.is_easy), measured.labels)
    rng = np.random.default_rng(seed)
    draws = [
        right_videos(
            _mixture(measured, rng.permutation(measured.is_easy.ravel()).reshape(measured.is_easy.shape)),
            measured.labels,
        )
        for _ in range(num_draws)
    ]
    rivals = {
        "base": right_videos(measured.base_logits, measured.labels),
        "easy": right_videos(measured.easy_logits, measured.labels),
    }
    share = float(measured.is_easy.mean())
    gmacs = {
        "base": measured.base_gmacs,
        "easy": measured.easy_gmacs,
        "gauge": measured.gauge_gmacs,
        "random": share * measured.easy_gmacs + (1 - share) * measured.base_gmacs,
    }
    if measured.fixed_logits is not None:
        rivals["fixed"] = right_videos(measured.fixed_logits, measured.labels)
        gmacs["fixed"] = measured.fixed_gmacs
    differences = {name: _paired(adaptive, rival, seed) for name, rival in rivals.items()}
    gain = adaptive - np.mean(draws, axis=0)
    differences["random"] = {
        "difference": float(gain.mean()),
        "interval": list(
            bootstrap_interval(lambda index: gain[index].mean(), len(gain), num_resamples=2000, seed=seed)
        ),
    }
    accuracy = {"adaptive": adaptive, **rivals, "random": np.mean(draws, axis=0)}
    curve, error = calibration_curve(measured)
    return AdaptiveBudgetReport(
        n=len(measured.labels),
        num_views=measured.is_easy.shape[1],
        easy_share=share,
        mean_keep_ratio=measured.mean_keep_ratio,
        mean_gmacs=measured.mean_gmacs,
        gmacs=gmacs,
        accuracy={name: float(np.mean(right)) for name, right in accuracy.items()},
        random_draws=[float(draw.mean()) for draw in draws],
        differences=differences,
        curve=curve,
        calibration_error=error,
        fixed_keep_ratio=measured.fixed_keep_ratio,
    )


def right_videos(logits, labels) -> np.ndarray:
    """(n,) bools: is the largest mean probability over the views (n, V, K) that of the label?"""
    return np.exp(log_probabilities(logits)).mean(1).argmax(-1) == labels


def calibration_curve(measured: BudgetMeasurement, num_bins: int = 10) -> tuple[list[CurveBin], float | None]:
    """How often the gauge, the small and the base budget are right, by the gauge's confidence, and the gauge's calibration error.

    Bins have equal widths; empty ones are left out. The error is the mean of |accuracy - confidence| over the views, by bins.
    """
    confidence = np.asarray(measured.confidence, dtype=float).ravel()
    labels = np.repeat(measured.labels, measured.is_easy.shape[1])
    easy, base = (
        np.asarray(logits).reshape(len(labels), -1).argmax(-1) == labels
        for logits in (measured.easy_logits, measured.base_logits)
    )
    gauge = None if measured.gauge_correct is None else np.asarray(measured.gauge_correct, dtype=bool).ravel()
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    curve = []
    for number in range(num_bins):
        mask = bins == number
        if not mask.any():
            continue
        own = None if gauge is None else float(gauge[mask].mean())
        mean = float(confidence[mask].mean())
        curve.append(
            CurveBin(
                number / num_bins,
                (number + 1) / num_bins,
                int(mask.sum()),
                mean,
                own,
                float(easy[mask].mean()),
                float(base[mask].mean()),
            )
        )
    return curve, None if gauge is None else expected_calibration_error(confidence, gauge, num_bins)


def _mixture(measured, is_easy):
    return np.where(is_easy[..., None], measured.easy_logits, measured.base_logits)


def _paired(adaptive, rival, seed):
    found = paired_bootstrap_difference(adaptive, rival, seed)
    return {name: found[name] for name in ("difference", "interval", "only_a", "only_b")}
