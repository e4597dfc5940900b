"""LITE++: how many tokens each clip gets, decided by how sure a cheap gauge is of it.

With the confidence c of the gauge (the largest softmax probability), two thresholds and two budgets, the published rule is

    keep ratio = P_easy   where c < low    (hopeless: nothing is invested)
                 P_easy   where c > high   (easy)
                 P        otherwise,

P_easy = .3 for P in {.9, .7, .5} and .2 for P = .3. The paper does not print its thresholds; here they are calibrated on held-out
videos. Three gauges:

* `model`: any video classifier, with pixels of its own (`difficulty_gauge.VideoDifficultyGauge`); the policy names it, it is never part of
  the checkpoint.
* `probe`: a linear classifier on pooled patch embeddings, which the host has computed anyway.
* `cascade`: the host itself at P_easy; the answer stands where the rule says easy, other clips run again at P.

There are only two budgets, so a batch is cut into buckets of one length each: no padding, no mask, every attention backend, and the
same numbers as clip by clip.
"""

import functools
import math
import os
from dataclasses import asdict, dataclass, replace

import torch

from .budget_gauges import POOLINGS, BudgetProbe, confidence_of
from .difficulty_gauge import GaugeNotAvailableError, VideoDifficultyGauge


GAUGES = ("model", "probe", "cascade")
PUBLISHED_EASY_KEEP_RATIOS = {0.9: 0.3, 0.7: 0.3, 0.5: 0.3, 0.3: 0.2}


def published_easy_keep_ratio(keep_ratio):
    """The small budget that the paper pairs with a base budget.

    Raises:
        ValueError: the paper states none for this one.
    """
    if keep_ratio not in PUBLISHED_EASY_KEEP_RATIOS:
        raise ValueError(
            f"The paper pairs easy budgets with keep_ratio {sorted(PUBLISHED_EASY_KEEP_RATIOS)}, got {keep_ratio}: set easy_keep_ratio."
        )
    return PUBLISHED_EASY_KEEP_RATIOS[keep_ratio]


@dataclass(frozen=True)
class BudgetPolicy:
    """The rule of LITE++, as the field `budget_policy` of a configuration holds it (there as a dict).

    Args:
        low, high: thresholds on the confidence, 0 <= low <= high <= 1. `low=0` calls no clip hopeless.
        easy_keep_ratio: the small budget; None takes the published one of the base budget.
        gauge: one of `GAUGES`.
        probe_pooling: what the probe sees of the patch embeddings over all tokens, one of `POOLINGS`.
        bucket_multiple: buckets are filled up to a multiple of this with repeated clips, so that a compiled model meets few batch sizes.
        gauge_model: for the gauge `model`, the folder or Hub id of the classifier; None: whoever loads the model sets it.
        gauge_temperature: what its logits are divided by, see `difficulty_gauge.py`; None: the gauge's own.
        host_mean, host_std: the normalisation of the clips that the model gets, which the gauge undoes; None: it need not be undone.

    Raises:
        ValueError: a field out of range.
    """

    low: float
    high: float
    easy_keep_ratio: float | None = None
    gauge: str = "probe"
    probe_pooling: str = "mean_std"
    bucket_multiple: int = 1
    gauge_model: str | None = None
    gauge_temperature: float | None = None
    host_mean: list | tuple | None = None
    host_std: list | tuple | None = None

    def __post_init__(self):
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"A budget policy needs 0 <= low <= high <= 1, got low={self.low}, high={self.high}.")
        if self.easy_keep_ratio is not None:
            check_keep_ratio("easy_keep_ratio", self.easy_keep_ratio)
        if self.gauge not in GAUGES:
            raise ValueError(f"gauge must be one of {GAUGES}, got {self.gauge!r}.")
        if self.probe_pooling not in POOLINGS:
            raise ValueError(f"probe_pooling must be one of {POOLINGS}, got {self.probe_pooling!r}.")
        if self.bucket_multiple < 1:
            raise ValueError(f"bucket_multiple must be an integer >= 1, got {self.bucket_multiple}.")
        if self.gauge_temperature is not None and not self.gauge_temperature > 0:
            raise ValueError(f"gauge_temperature must be above 0, got {self.gauge_temperature}.")
        if (self.host_mean is None) != (self.host_std is None):
            raise ValueError("host_mean and host_std belong together: give both or neither.")

    def easy_ratio(self, base_keep_ratio):
        """The small budget beside a base budget.

        Raises:
            ValueError: the small budget is the larger one, or the paper states none.
        """
        check_keep_ratio("keep_ratio", base_keep_ratio)
        easy = self.easy_keep_ratio if self.easy_keep_ratio is not None else published_easy_keep_ratio(base_keep_ratio)
        if easy > base_keep_ratio:
            raise ValueError(
                f"easy_keep_ratio={easy} is above keep_ratio={base_keep_ratio}: easy clips get the smaller budget."
            )
        return easy

    @torch.compiler.disable
    def is_easy(self, confidence):
        """Which clips get the small budget.

        Args:
            confidence: (B,), from 0 to 1. NaN is neither sure nor unsure and gets the base budget.

        Returns:
            (B,) bool on the CPU.
        """
        # in double precision a threshold between two neighbouring floats stays between them
        confidence = torch.as_tensor(confidence).detach().cpu().double()
        return (confidence < self.low) | (confidence > self.high)

    def keep_ratios(self, confidence, base_keep_ratio):
        """The keep ratio of every clip, a list of B floats."""
        easy = self.easy_ratio(base_keep_ratio)
        return [easy if is_easy else base_keep_ratio for is_easy in self.is_easy(confidence).tolist()]

    def to_dict(self):
        return asdict(self)


def check_keep_ratio(name, value):
    """Raise ValueError for what is no share of tokens."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ValueError(f"{name} must be a number in (0, 1], got {value!r}.")


# ---- buckets ----------------------------------------------------------------------------------------------------------


@torch.compiler.disable
def budget_buckets(keep_ratios):
    """Rows of a batch by their keep ratio: a list of (keep ratio, list of rows), from the smallest budget to the largest.

    Raises:
        ValueError: a ratio outside (0, 1].
    """
    buckets = {}
    for row, ratio in enumerate(keep_ratios):
        check_keep_ratio(f"keep_ratio of clip {row}", ratio)
        buckets.setdefault(ratio, []).append(row)
    return sorted(buckets.items())


def fill_bucket(rows, multiple):
    """Rows of a bucket, the last one repeated up to a multiple."""
    return rows + rows[-1:] * (math.ceil(len(rows) / multiple) * multiple - len(rows))


# What stands in a merged output where a clip has no value: -1 is no place of a token.
_FILLS = {"logits": 0.0, "token_scores": math.nan, "kept_indices": -1, "realised_keep_ratio": math.nan}
# Everything else in `selection_extras` has a line per clip.
_SHARED_EXTRAS = ("position_prior", "seed", "generator")


def merge_rows(parts, batch_size, fill):
    """Results of buckets in the order of the batch.

    Args:
        parts: list of (rows, tensor), the tensor with a line per row or more of them; later parts win. Lines of different lengths are
            filled up at their ends.
        batch_size: B.
        fill: what stands where there is no value.

    Returns:
        (B, ...) of the type of the first part.
    """
    first = parts[0][1]
    widths = [part.shape[1] for _, part in parts if part.ndim > 1]
    shape = (batch_size, max(widths), *first.shape[2:]) if widths else (batch_size,)
    merged = first.new_full(shape, fill)
    for rows, part in parts:
        index = torch.as_tensor(rows, device=part.device)
        if widths:
            merged[index] = fill
            merged[index, : part.shape[1]] = part[: len(rows)]
        else:
            merged[index] = part[: len(rows)]
    return merged


@torch.compiler.disable
def merge_outputs(parts, batch_size):
    """Outputs of a Lite classifier for parts of a batch, as one output for the batch.

    Args:
        parts: list of (rows, output); later parts win.
        batch_size: B.

    Returns:
        an output of the same class: `logits` (B, K), `token_scores` (B, N) (NaN for clips that kept everything), `kept_indices`
        (B, largest k) with -1 behind those of a smaller budget, `realised_keep_ratio` (B,).

    Raises:
        ValueError: hidden states or attentions of several lengths.
    """
    if len(parts) == 1 and parts[0][0] == list(range(batch_size)) == list(range(len(parts[0][1].logits))):
        return parts[0][1]
    if any(output.hidden_states is not None or output.attentions is not None for _, output in parts):
        raise ValueError(
            "Clips with different budgets have no common hidden states or attentions: ask for them with one keep_ratio for all clips."
        )
    merged = {}
    for name, fill in _FILLS.items():
        values = [(rows, getattr(output, name)) for rows, output in parts if getattr(output, name) is not None]
        if values:
            merged[name] = merge_rows(values, batch_size, fill)
    return type(parts[0][1])(**merged)


# ---- what a Lite classifier does with it ------------------------------------------------------------------------------


class TokenBudgetMixin:
    """Budgets per clip for a Lite classifier, whose `forward` carries `with_clip_budgets` and whose `__init__` calls `_add_budget_probe`.

    The host gives `embed_patches(pixel_values) -> (B, N, D)`, the embeddings before positions.
    """

    # the user's own classifier; set on the instance past nn.Module, so that it is no part of the model
    _budget_gauge = None

    def _add_budget_probe(self, config):
        """Adds `self.budget_probe`, None where the policy has no use for one."""
        policy = BudgetPolicy(**config.budget_policy) if config.budget_policy else None
        self.budget_probe = None
        if policy is not None and policy.gauge == "probe":
            self.budget_probe = BudgetProbe(config.hidden_size, config.num_labels, policy.probe_pooling)
            self.budget_probe.requires_grad_(False)

    def set_budget_policy(self, policy, probe=None, gauge=None):
        """Gives every clip a budget of its own from now on; the policy and the probe are saved with the model.

        Args:
            policy: a `BudgetPolicy`, or None to go back to `config.keep_ratio` for all clips.
            probe: the trained `BudgetProbe` of a policy whose gauge is `probe`.
            gauge: for the gauge `model`, what gives the confidence (B,) of clips (B, T, C, H, W): a `VideoDifficultyGauge`, whose name,
                temperature and view of this model's pixels become part of the policy where that does not say them, or any callable. The
                gauge is not saved. A named one is loaded again when it is first asked; others are set again by whoever loads the model.

        Raises:
            ValueError: the policy needs a probe that is not given, or does not fit `config.keep_ratio`.
        """
        if policy is None:
            self.config.budget_policy, self.budget_probe = None, None
            object.__setattr__(self, "_budget_gauge", None)
            return
        policy.easy_ratio(self.config.keep_ratio)
        if policy.gauge == "probe" and probe is None and self.budget_probe is None:
            raise ValueError(
                "a policy with gauge='probe' needs the trained probe: set_budget_policy(policy, probe=...)."
            )
        if policy.gauge == "probe" and probe is not None:
            reference = next(self.parameters())
            self.budget_probe = probe.to(reference.device, reference.dtype).requires_grad_(False)
        elif policy.gauge != "probe":
            self.budget_probe = None
        if hasattr(gauge, "under"):
            policy, gauge = gauge.under(policy)
        self.config.budget_policy = policy.to_dict()
        object.__setattr__(self, "_budget_gauge", gauge)

    def load_budget_gauge(self, name=None, **options):
        """Loads the classifier that the policy asks, once; what it is called then stands in the policy.

        Args:
            name: folder or Hub id; None: the one that the policy names, as it is or inside of this model's own folder.
            options: of `VideoDifficultyGauge.from_pretrained`, such as `trust_remote_code=True`.

        Raises:
            GaugeNotAvailableError: the policy asks no classifier or names none, or it does not open.
        """
        policy = BudgetPolicy(**self.config.budget_policy) if self.config.budget_policy else None
        if policy is None or policy.gauge != "model":
            raise GaugeNotAvailableError("the budget policy of this model asks no other classifier.")
        name = name or policy.gauge_model
        if name is None:
            raise GaugeNotAvailableError(
                "The budget policy of this model asks a classifier that is not part of it, and does not name it: give it with "
                "set_budget_policy(policy, gauge=VideoDifficultyGauge(...)) or load_budget_gauge(name), pass "
                "selection_extras={'confidence': (B,)}, or pass one keep_ratio."
            )
        inside = os.path.join(self.name_or_path or "", name)
        place = inside if not os.path.isdir(name) and os.path.isdir(inside) else name
        try:
            gauge = VideoDifficultyGauge.from_pretrained(place, **options).to(self.device)
        except GaugeNotAvailableError as error:
            raise GaugeNotAvailableError(
                f"The budget policy of this model asks a classifier that is not part of it: {error} Give it with load_budget_gauge(name, "
                "trust_remote_code=...), pass selection_extras={'confidence': (B,)}, or pass one keep_ratio."
            ) from error
        self.set_budget_policy(replace(policy, gauge_model=os.fspath(name)), gauge=gauge)
        return self._budget_gauge

    @torch.compiler.disable
    def gauge_confidence(self, pixel_values, selection_extras=None):
        """How sure the gauge of the policy is of every clip, (B,); None for a cascade, which asks the host itself.

        Raises:
            GaugeNotAvailableError: the gauge is a classifier that is neither given nor to be found under the name in the policy.
        """
        policy = BudgetPolicy(**self.config.budget_policy)
        given = (selection_extras or {}).get("confidence")
        if given is not None:
            given = torch.as_tensor(given)
            if given.shape != pixel_values.shape[:1]:
                raise ValueError(
                    f"selection_extras['confidence'] should have one number per clip, {tuple(pixel_values.shape[:1])}, "
                    f"got {tuple(given.shape)}."
                )
            return given
        if policy.gauge == "cascade":
            return None
        if policy.gauge == "probe":
            with torch.no_grad():
                embeddings = (selection_extras or {}).get("patch_embeddings")
                embeddings = self.embed_patches(pixel_values) if embeddings is None else embeddings
                return confidence_of(self.budget_probe(embeddings))
        if self._budget_gauge is None:
            self.load_budget_gauge()
        return self._budget_gauge(pixel_values)


def with_clip_budgets(forward):
    """Decorator of a Lite classifier's `forward`, which knows one keep ratio, so that every clip may have its own.

    * `keep_ratio=None`: what `config.budget_policy` says, or `config.keep_ratio` for all clips where there is none and in training.
    * a number: for all clips, whatever the policy says.
    * a list or tensor (B,): one per clip.

    The batch runs in buckets of one length, so that the numbers are those of a loop over the clips.
    """

    @functools.wraps(forward)
    def budgeted(self, pixel_values=None, *args, keep_ratio=None, **kwargs):
        several = isinstance(keep_ratio, (list, tuple)) or (torch.is_tensor(keep_ratio) and keep_ratio.ndim > 0)
        adaptive = keep_ratio is None and not self.training and self.config.budget_policy is not None
        if not several and not adaptive:
            return forward(self, pixel_values, *args, keep_ratio=keep_ratio, **kwargs)
        if args:
            raise TypeError("pass what follows pixel_values by name where clips have budgets of their own.")
        return _in_buckets(forward, self, pixel_values, keep_ratio, **kwargs)

    return budgeted


# Which rows are in which bucket is new in every batch: compiled into the graph it would mean a graph per batch. So only `forward` is
# compiled, one graph per budget and size of a bucket. What splits and joins a batch is left out altogether, `_in_buckets` and what calls
# `forward` in it without what they call.
_not_itself_compiled = functools.partial(torch.compiler.disable, recursive=False)


@_not_itself_compiled
def _in_buckets(forward, model, pixel_values, keep_ratio=None, labels=None, selection_extras=None, **kwargs):
    """`forward` on the rows of each budget, put together; `keep_ratio=None` asks the policy."""
    batch_size, base = pixel_values.shape[0], model.config.keep_ratio
    policy = BudgetPolicy(**model.config.budget_policy) if keep_ratio is None else None

    @_not_itself_compiled
    def run(ratio, rows):
        rows = fill_bucket(rows, policy.bucket_multiple if policy is not None else 1)
        clips, extras = rows_of_batch(rows, pixel_values, selection_extras)
        return forward(model, clips, keep_ratio=ratio, selection_extras=extras, **kwargs)

    if policy is not None and policy.gauge == "probe" and "confidence" not in (selection_extras or {}):
        # the probe reads it first, then the host
        selection_extras = {**(selection_extras or {}), "patch_embeddings": model.embed_patches(pixel_values)}
    confidence = model.gauge_confidence(pixel_values, selection_extras) if policy is not None else None
    if policy is not None and confidence is None:
        parts = _cascade(policy, base, run, batch_size)
    else:
        ratios = ratios_per_clip(keep_ratio, batch_size) if policy is None else policy.keep_ratios(confidence, base)
        parts = [(rows, run(ratio, rows)) for ratio, rows in budget_buckets(ratios)]
    output = merge_outputs(parts, batch_size)
    if labels is not None:
        output.loss = model.loss_function(labels, output.logits, model.config)
    return output


@_not_itself_compiled
def _cascade(policy, base_keep_ratio, run, batch_size):
    """All clips at the small budget, those that the rule does not call easy again at the base budget."""
    everyone = list(range(batch_size))
    first = run(policy.easy_ratio(base_keep_ratio), everyone)
    easy = policy.is_easy(confidence_of(first.logits[:batch_size])).tolist()
    unsure = [row for row in everyone if not easy[row]]
    return [(everyone, first), *([(unsure, run(base_keep_ratio, unsure))] if unsure else [])]


@torch.compiler.disable
def ratios_per_clip(keep_ratio, batch_size):
    """A list or tensor of keep ratios as a list of floats, one per clip.

    Raises:
        ValueError: there are more or fewer than clips.
    """
    ratios = keep_ratio.tolist() if torch.is_tensor(keep_ratio) else list(keep_ratio)
    if len(ratios) != batch_size:
        raise ValueError(f"expected one keep_ratio for all clips or {batch_size}, one per clip, got {len(ratios)}.")
    # a float32 tensor holds 0.699999988 for 0.7, which would keep a token less
    return [round(ratio, 6) for ratio in ratios] if torch.is_tensor(keep_ratio) else ratios


@torch.compiler.disable
def rows_of_batch(rows, pixel_values, extras):
    """The clips of some rows, and what `selection_extras` has on them."""
    own = {name: value for name, value in (extras or {}).items() if name != "confidence"}
    if rows == list(range(pixel_values.shape[0])):
        return pixel_values, own
    index = torch.as_tensor(rows, device=pixel_values.device)
    for name, value in own.items():
        if torch.is_tensor(value) and name not in _SHARED_EXTRAS:
            own[name] = value[index.to(value.device)]
    return pixel_values[index], own
