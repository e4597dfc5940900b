"""Every combination of dropped blocks, kept tokens and number type of one classifier, as models that run.

Blocks are dropped, and models trained again, before: one checkpoint for each number of blocks. Tokens are selected and numbers rounded here.
"""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..compression.block_table import model_blocks
from ..compression.host_selection import select_tokens
from ..evaluation.macs import MacsError, count_macs, count_parameters
from .errors import ExportError, ParityError
from .int8 import write_int8
from .onnx_format import DEFAULT_OPSET, check_onnx, write_onnx
from .parity import TOLERANCES, clips_to_try, compare
from .runtime import ExportedClassifier
from .tracing import LogitsOnly, trace


# name -> scheme of 8 bits; the file in floats stands beside it, so that what the runtime gives is not taken for what the bits give
ONNX_TYPES = {"onnx": None, "int8": "dynamic", "int8-weight-only": "weight-only"}
TORCH_TYPES = ("float32", "bfloat16")
NUMBER_TYPES = (*TORCH_TYPES, *ONNX_TYPES)
ALL_TOKENS, PLAIN = 1.0, "float32"


class SearchError(ValueError):
    """Models or settings do not make a search; the message says why and what to do."""


@dataclass(frozen=True)
class Candidate:
    """One combination.

    Attributes:
        dropped: blocks that the model has fewer than the first one.
        keep_ratio: share of tokens that it reads.
        number_type: one of `NUMBER_TYPES`.
        model: takes `pixel_values` (B, T, C, H, W), gives `logits`; in evaluation mode.
        gmacs: multiply-accumulates of one clip in units of 1e9; None where they cannot be counted.
        parameters: their number.
    """

    dropped: int
    keep_ratio: float
    number_type: str
    model: nn.Module
    gmacs: float | None
    parameters: int

    @property
    def name(self) -> str:
        """What it is called in tables and charts."""
        blocks = "all blocks" if not self.dropped else f"{self.dropped} dropped"
        tokens = "all tokens" if self.keep_ratio == ALL_TOKENS else f"keep {self.keep_ratio:g}"
        return f"{blocks}, {tokens}, {self.number_type}"


def check_settings(keep_ratios: Sequence[float], number_types: Sequence[str]) -> None:
    """Before any model is opened.

    Raises:
        SearchError: a share of tokens or a number type that does not exist, or that stands there twice.
        MissingExtraError: ONNX without the `export` extra.
    """
    unknown = [name for name in number_types if name not in NUMBER_TYPES]
    if unknown or not number_types:
        raise SearchError(f"number types are {', '.join(NUMBER_TYPES)}, got {', '.join(unknown) or 'none'}.")
    if not keep_ratios or any(not 0 < ratio <= 1 for ratio in keep_ratios):
        raise SearchError(f"shares of tokens lie above 0 and up to 1, got {list(keep_ratios)}.")
    if len(set(keep_ratios)) < len(keep_ratios) or len(set(number_types)) < len(number_types):
        raise SearchError(f"something stands there twice: {list(keep_ratios)}, {list(number_types)}.")
    if any(name in ONNX_TYPES for name in number_types):
        check_onnx(DEFAULT_OPSET)


def make_candidates(
    models: Sequence[nn.Module],
    clip: torch.Tensor,
    keep_ratios: Sequence[float],
    number_types: Sequence[str],
    work: Path,
    *,
    scorer: str | None = None,
    threads: int | None = None,
    advance=lambda text: None,
) -> list[Candidate]:
    """All combinations; first the first model with all tokens in float32, which the others are compared with.

    Args:
        models: the same classifier with 0, 1, 2, ... blocks dropped.
        clip: (1, T, C, H, W) of their own shape, prepared as their recipe says.
        keep_ratios: shares of tokens.
        number_types: of `NUMBER_TYPES`.
        work: folder that ONNX files are written to.
        scorer: what decides which tokens stay; None: the model's own trained selector, else `"random"`.
        threads: processor threads of ONNX files.
        advance: is told what is being made.

    Raises:
        SearchError: two models have equally many blocks, or the first does not have most of them.
        UnsupportedBlocksError, UnsupportedHostError: an architecture that cannot be searched.
        ExportError: a model does not become an ONNX file; ParityError: one that answers otherwise.
    """
    depths = [len(model_blocks(model)) for model in models]
    if len(set(depths)) < len(depths) or depths[0] != max(depths):
        raise SearchError(
            f"expected the model with all of its blocks first, then one for each smaller number of blocks, got {depths} blocks."
        )
    baseline = (depths[0], ALL_TOKENS, PLAIN)
    wanted = [(depth, ratio, kind) for depth in depths for ratio in keep_ratios for kind in number_types]
    made = []
    for (depth, ratio), group in itertools.groupby(
        [baseline, *(one for one in wanted if one != baseline)], key=lambda one: one[:2]
    ):
        with torch.no_grad():
            host = _with_tokens(models[depths.index(depth)], ratio, scorer)
            gmacs, parameters = _gmacs(host, clip), _parameters(host)
            for _, _, kind in group:
                candidate = Candidate(depths[0] - depth, ratio, kind, nn.Identity(), gmacs, parameters)
                advance(candidate.name)
                model = _in_numbers(host, kind, clip, work / f"{depth}-{ratio:g}.onnx", threads)
                made.append(Candidate(candidate.dropped, ratio, kind, model, gmacs, parameters))
    return made


def _with_tokens(model, keep_ratio: float, scorer: str | None):
    """The model itself, or with tokens selected."""
    if keep_ratio == ALL_TOKENS:
        if getattr(model.config, "keep_ratio", 1.0) != ALL_TOKENS:
            model = select_tokens(model, keep_ratio=ALL_TOKENS)
        return model.eval()
    trained = getattr(model.config, "selector_trained", False)
    return select_tokens(model, keep_ratio=keep_ratio, scorer=scorer or (None if trained else "random")).eval()


def _gmacs(model, clip) -> float | None:
    try:
        count = count_macs(model, {"pixel_values": clip})
    except MacsError:
        return None
    return None if count.uncounted else count.gmacs


def _parameters(model) -> int:
    """Their number, without those of a selector that does not choose."""
    idle = getattr(model, "selector", None) if getattr(model.config, "scorer", None) != "lite" else None
    return count_parameters(model) - (0 if idle is None else count_parameters(idle))


def _in_numbers(model, kind: str, clip, source: Path, threads: int | None):
    if kind == PLAIN:
        return model
    if kind in TORCH_TYPES:
        return _Cast(copy.deepcopy(model).to(getattr(torch, kind)))
    reference = LogitsOnly(model)
    if not source.exists():
        write_onnx(trace(reference, clip.shape[1:], ("batch",)), source, ("batch",))
    found = ExportedClassifier(source, model.config, threads)
    clips = clips_to_try([(1, *clip.shape[1:]), (3, *clip.shape[1:])], clip)
    parity = compare(reference, lambda pixels: found(pixels).logits, clips)
    if not parity.max_relative <= TOLERANCES[PLAIN]:
        raise ParityError(
            f"the ONNX file differs from the model by {parity.max_relative:.3g} of its largest logit, worst on {parity.worst}: leave "
            "onnx and int8 out of the number types."
        )
    if ONNX_TYPES[kind] is None:
        return found
    target = source.with_name(f"{kind}-{source.name}")
    try:
        write_int8(source, target, ONNX_TYPES[kind])
    except ExportError as error:
        raise ExportError(f"{kind}: {error}") from error
    return ExportedClassifier(target, model.config, threads)


class _Cast(nn.Module):
    """Takes float32 clips, as the others do."""

    main_input_name = "pixel_values"

    def __init__(self, model):
        super().__init__()
        self.model, self.dtype = model.eval(), model.dtype

    def forward(self, pixel_values):
        return self.model(pixel_values=pixel_values.to(self.dtype))
