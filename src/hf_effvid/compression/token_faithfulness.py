"""Does an oracle know which tokens count? The check before a selector learns from it.

Three questions, on the same clips:

- **Rank.** Does the oracle order tokens as leave-one-out deletion does, that is by how much the label's log-probability falls without them?
- **Curves.** Does the label's probability rise faster than by chance when the oracle's tokens are shown first, and fall faster when they
  are taken away first?
- **Leak.** An oracle that is told the true label can pass it on: tokens that speak for a label make the host say it, true or not. So the
  clips are classified by the oracle's tokens for the true, the predicted and a wrong label. What the true label gains over the predicted one
  is the leak; how often the host says the wrong label shows how strong it is. The clips that the host gets wrong are reported apart, since only
  they can be won.

The first two decide (`passed`); the third is told.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from ..models.token_selection import num_kept_tokens
from .oracle_hosts import evaluation_mode
from .token_deletion import (
    deletion_and_insertion,
    label_log_probability,
    leave_one_out,
    logits_of_top,
    rank_correlation,
    with_ties_broken,
)
from .token_importance import OracleSettings, class_weights, oracle_importance


REPORT_NAME = "token_faithfulness.json"
MIN_RANK_CORRELATION = 0.2
_Z = 1.96


class UnfaithfulOracleError(ValueError):
    """The oracle is not shown to be better than chance, so that nothing should learn from it."""


@dataclass(frozen=True)
class FaithfulnessProtocol:
    """How the check is made. A clip costs about `num_deletions` + 15 passes of the host.

    Attributes:
        num_clips: clips looked at, at most.
        num_deletions: tokens of a clip that are deleted one by one, drawn at random; all where there are no more.
        shares: shares of the tokens at which the curves are read.
        random_draws: orders of chance that the curves are compared with.
        keep_ratios: shares of the tokens that the clips are classified by.
        seed: seed of all draws.
    """

    num_clips: int = 64
    num_deletions: int = 24
    shares: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    random_draws: int = 2
    keep_ratios: tuple[float, ...] = (0.5, 0.2)
    seed: int = 0

    def __post_init__(self):
        for name, least in (("num_clips", 2), ("num_deletions", 3), ("random_draws", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")

    def to_dict(self) -> dict:
        """Plain values, as JSON gives them back."""
        return {**asdict(self), "shares": list(self.shares), "keep_ratios": list(self.keep_ratios)}


@dataclass(frozen=True)
class MeanOverClips:
    """A mean of one number per clip, and where it lies: mean +- 1.96 standard errors."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: torch.Tensor) -> "MeanOverClips":
        """From (n,) numbers."""
        values = values.double()
        error = _Z * values.std().item() / len(values) ** 0.5 if len(values) > 1 else float("inf")
        return cls(values.mean().item(), values.mean().item() - error, values.mean().item() + error, len(values))


@dataclass
class TokenFaithfulness:
    """What the check found; `to_dict` is its JSON.

    Attributes:
        oracle: the oracle's settings.
        protocol: how it was checked.
        rank_correlation: Spearman's with leave-one-out deletion.
        insertion_gain: area under the insertion curve minus that of random orders.
        deletion_gain: area under the deletion curve of random orders minus the oracle's.
        flat_clips: share of the clips on which the oracle gives every token the same score.
        selection: keep ratio -> accuracies by the tokens of the oracle with the `true`, the `predicted` and a `wrong` label and by `random`
            tokens, `says_wrong` (how often the wrong label is the answer), `leak`; empty for several labels per clip. The same for the
            clips that the host gets wrong, under `of_wrong_clips`.
        full_accuracy: of the host with all tokens, None for several labels per clip.
        says_wrong_unasked: how often the host says those wrong labels with all tokens.
        forced: whether training went on although the check failed.
    """

    oracle: dict
    protocol: dict
    rank_correlation: MeanOverClips
    insertion_gain: MeanOverClips
    deletion_gain: MeanOverClips
    flat_clips: float
    selection: dict = field(default_factory=dict)
    full_accuracy: float | None = None
    says_wrong_unasked: float | None = None
    forced: bool = False

    @property
    def failures(self) -> list[str]:
        """What speaks against the oracle, in words; empty when it passed."""
        failures = []
        if not self.rank_correlation.value > MIN_RANK_CORRELATION:
            failures.append(
                f"its rank correlation with leave-one-out deletion is {self.rank_correlation.value:.2f}, not above "
                f"{MIN_RANK_CORRELATION}"
            )
        for name, verb, gain in (
            ("insertion", "shown", self.insertion_gain),
            ("deletion", "deleted", self.deletion_gain),
        ):
            if not gain.low > 0:
                failures.append(
                    f"{verb} first, its tokens are not shown to beat random ones ({name} gain {gain.value:+.3f} "
                    f"[{gain.low:+.3f}, {gain.high:+.3f}])"
                )
        return failures

    @property
    def passed(self) -> bool:
        """Whether the oracle is better than chance by all of the checks."""
        return not self.failures

    def require(self, force: bool = False) -> "TokenFaithfulness":
        """The report, if the oracle may be learned from.

        Args:
            force: whatever it says; the report then says so.

        Raises:
            UnfaithfulOracleError: it failed.
        """
        if self.passed:
            return self
        if force:
            return replace(self, forced=True)
        raise UnfaithfulOracleError(
            f"The oracle ({self.oracle['oracle_tensor']} of block {self.oracle['oracle_block']}, {self.oracle['label_source']} label) "
            f"does not know which tokens count, on {self.rank_correlation.n} clips: {'; '.join(self.failures)}. Take another "
            "oracle_tensor or oracle_block, train the host further, or pass force=True (--force)."
        )

    def to_dict(self) -> dict:
        """JSON-ready, with the verdict."""
        return {**asdict(self), "passed": self.passed, "failures": self.failures}

    @classmethod
    def from_dict(cls, document: dict) -> "TokenFaithfulness":
        """The inverse of `to_dict`."""
        values = {name: value for name, value in document.items() if name not in ("passed", "failures")}
        for name in ("rank_correlation", "insertion_gain", "deletion_gain"):
            values[name] = MeanOverClips(**values[name])
        return cls(**values)

    def save(self, folder) -> Path:
        """Writes `token_faithfulness.json` into a folder and returns its path."""
        path = Path(folder) / REPORT_NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder) -> "TokenFaithfulness":
        """Reads what `save` wrote."""
        return cls.from_dict(json.loads((Path(folder) / REPORT_NAME).read_text(encoding="utf-8")))

    def summary(self) -> str:
        """A few lines for the terminal."""
        rank, shown, deleted = self.rank_correlation, self.insertion_gain, self.deletion_gain
        verdict = "passed" if self.passed else "FAILED, forced" if self.forced else "FAILED"
        lines = [
            f"oracle {self.oracle['oracle_tensor']} of block {self.oracle['oracle_block']}, {self.oracle['label_source']} label, on {rank.n} "
            f"clips: {verdict}",
            f"  rank correlation with leave-one-out {rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}], insertion gain {shown.value:+.3f} "
            f"[{shown.low:+.3f}, {shown.high:+.3f}], deletion gain {deleted.value:+.3f} [{deleted.low:+.3f}, {deleted.high:+.3f}]",
        ]
        for ratio, found in self.selection.items():
            lines.append(
                f"  keep {ratio}: true label {found['true']:.3f}, predicted {found['predicted']:.3f}, random {found['random']:.3f}, all "
                f"tokens {self.full_accuracy:.3f}; leak {found['leak']['value']:+.3f}; a wrong label is said in {found['says_wrong']:.3f} "
                f"(unasked {self.says_wrong_unasked:.3f})"
            )
        return "\n".join(lines)


def measure_faithfulness(
    model,
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    settings: OracleSettings | None = None,
    protocol: FaithfulnessProtocol | None = None,
) -> TokenFaithfulness:
    """Checks an oracle on clips.

    Args:
        model: see `logits_of_top`.
        batches: (pixel_values (B, T, C, H, W), labels (B,) or (B, K)), or labels None with `label_source="predicted"`; read until the
            protocol has its clips.
        settings: the oracle.
        protocol: how to check it.

    Raises:
        ValueError: fewer than two clips.
        OracleError: see `oracle_importance` and `logits_of_top`.
    """
    settings, protocol = settings or OracleSettings(), protocol or FaithfulnessProtocol()
    generator = torch.Generator().manual_seed(protocol.seed)
    found, num_clips = [], 0
    with torch.no_grad(), evaluation_mode(model):
        for pixel_values, labels in batches:
            left = protocol.num_clips - num_clips
            pixel_values, labels = pixel_values[:left], labels[:left] if labels is not None else None
            found.append(_measure_batch(model, pixel_values, labels, settings, protocol, generator))
            num_clips += len(pixel_values)
            if num_clips >= protocol.num_clips:
                break
    if num_clips < 2:
        raise ValueError(f"an oracle is checked on two clips or more, got {num_clips}.")
    values = {name: torch.cat([one[name] for one in found]) for name in found[0]}
    report = TokenFaithfulness(
        oracle=settings.to_dict(),
        protocol={**protocol.to_dict(), "num_clips": num_clips},
        rank_correlation=MeanOverClips.of(values["rank"]),
        insertion_gain=MeanOverClips.of(values["insertion"] - values["random"]),
        deletion_gain=MeanOverClips.of(values["random"] - values["deletion"]),
        flat_clips=values["flat"].double().mean().item(),
    )
    if "correct" in values:
        report.full_accuracy = values["correct"].mean().item()
        report.says_wrong_unasked = values["says_wrong"].mean().item()
        for ratio in protocol.keep_ratios:
            arms = {arm: values[f"{arm}@{ratio}"] for arm in ("true", "predicted", "wrong", "random", "says_wrong")}
            report.selection[str(ratio)] = {
                **_of_clips(arms),
                "of_wrong_clips": _of_clips({arm: hit[values["correct"] == 0] for arm, hit in arms.items()}),
            }
    return report


def _of_clips(arms: dict[str, torch.Tensor]) -> dict:
    n = len(arms["true"])
    if n == 0:
        return {"n": 0}
    leak = MeanOverClips.of(arms["true"] - arms["predicted"])
    return {"n": n, **{arm: hits.mean().item() for arm, hits in arms.items()}, "leak": asdict(leak) if n > 1 else None}


def _measure_batch(model, pixel_values, labels, settings, protocol, generator) -> dict[str, torch.Tensor]:
    """Name -> (B,) on the CPU."""
    importance = oracle_importance(model, pixel_values, labels, settings)
    _, weights = class_weights(importance.logits, importance.labels, "given")
    batch_size, num_tokens = importance.scores.shape
    device = importance.scores.device
    some = torch.rand(batch_size, num_tokens, generator=generator).argsort(1)[:, : protocol.num_deletions].to(device)
    drops = leave_one_out(model, pixel_values, weights, some, num_tokens)
    order = with_ties_broken(importance.scores, generator)
    curves = deletion_and_insertion(model, pixel_values, order, weights, protocol.shares).mean(-1)
    # shown or deleted, random tokens are the same: one curve per draw
    chance = []
    for _ in range(protocol.random_draws):
        draw = torch.rand(batch_size, num_tokens, generator=generator).to(device)
        for share in protocol.shares:
            count = min(max(round(share * num_tokens), 1), num_tokens - 1)
            logits = logits_of_top(model, pixel_values, draw, count)
            chance.append(label_log_probability(model, logits, weights).exp())
    values = {
        "rank": rank_correlation(importance.scores.gather(1, some), drops),
        "deletion": curves[:, 0],
        "insertion": curves[:, 1],
        "random": torch.stack(chance).mean(0),
        "flat": importance.is_flat,
    }
    if labels is not None and labels.ndim == 1:
        values |= _triplet(model, pixel_values, labels.to(device), importance.logits, settings, protocol, generator)
    return {name: value.cpu() for name, value in values.items()}


def _triplet(model, pixel_values, labels, full_logits, settings, protocol, generator) -> dict[str, torch.Tensor]:
    """Right answers by the tokens of the oracle with the true, the predicted and a wrong label, at every keep ratio."""
    batch_size, num_classes = full_logits.shape
    shift = torch.randint(1, num_classes, (batch_size,), generator=generator).to(labels.device)
    wrong = (labels + shift) % num_classes
    given = {"true": labels, "predicted": full_logits.argmax(-1), "wrong": wrong}
    scores = {
        name: oracle_importance(model, pixel_values, label, replace(settings, label_source="given")).scores
        for name, label in given.items()
    }
    num_tokens = scores["true"].shape[1]
    orders = {name: with_ties_broken(of_label, generator) for name, of_label in scores.items()}
    orders["random"] = torch.rand(batch_size, num_tokens, generator=generator).to(labels.device)
    answers = full_logits.argmax(-1)
    values = {"correct": (answers == labels).double(), "says_wrong": (answers == wrong).double()}
    for ratio in protocol.keep_ratios:
        for name, order in orders.items():
            said = logits_of_top(model, pixel_values, order, num_kept_tokens(num_tokens, ratio)).argmax(-1)
            values[f"{name}@{ratio}"] = (said == labels).double()
            if name == "wrong":
                values[f"says_wrong@{ratio}"] = (said == wrong).double()
    return values
