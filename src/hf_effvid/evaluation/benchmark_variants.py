"""What is benchmarked: named models, where they come from, and in what form they are run."""

import contextlib
import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from ..host_loading import checkpoint_model_type, load_video_classifier, one_line_errors
from ..host_processing import NO_PROCESSOR, load_processor
from ..models.modeling_actionformer import ActionFormerForTemporalActionDetection
from .benchmark_execution import BenchmarkError, NumberType


DETECTOR = ActionFormerForTemporalActionDetection.config_class.model_type


@dataclass(frozen=True)
class BenchmarkVariant:
    """One line of a benchmark.

    Attributes:
        name: what it is called in tables and charts.
        model: a Hub id, a folder, a model, or a function without arguments that gives a model.
        processor: its processor, or folder or Hub id of one; None takes the one saved with the model, if there is one.
        dtype: `"float32"`, `"bfloat16"`, `"bfloat16-autocast"`, ...; None takes that of the benchmark.
        compile: mode of `torch.compile`; None takes that of the benchmark.
        clip_shape: (T, C, H, W) of one clip; None derives it from processor and configuration.
    """

    name: str
    model: str | os.PathLike | nn.Module | Callable[[], nn.Module]
    processor: object | None = None
    dtype: str | None = None
    compile: str | None = None
    clip_shape: tuple[int, int, int, int] | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise BenchmarkError(f"a variant needs a name, got {self.name!r}.")
        if not isinstance(self.model, (str, os.PathLike)) and not callable(self.model):
            raise BenchmarkError(
                f"{self.name}: expected a Hub id, a folder, a model or a function that gives one, got {self.model!r}."
            )


def as_variants(models) -> tuple[BenchmarkVariant, ...]:
    """Brings everything that `benchmark` accepts into one form.

    Args:
        models: one of, or a list of: Hub id, folder, model, `(name, any of these or a function that gives a model)`,
            `BenchmarkVariant`; or a dict name -> model.

    Raises:
        BenchmarkError: nothing, or two of the same name, were given.
    """
    if isinstance(models, Mapping):
        models = list(models.items())
    alone = isinstance(models, (str, os.PathLike, nn.Module, BenchmarkVariant)) or _is_named(models)
    variants = _told_apart([_as_variant(model) for model in ([models] if alone else models)])
    if not variants:
        raise BenchmarkError("expected at least one model, got none.")
    names = [variant.name for variant in variants]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BenchmarkError(f"two models are called {twice[0]!r}: name them with (name, model) pairs.")
    return variants


def in_every_form(models, dtypes: Sequence[str], compiles: Sequence[str | None]) -> tuple[BenchmarkVariant, ...]:
    """Every model in every number type and under every compiler mode, in that order.

    The first form bears the model's own name, under which its accuracy is known; the others say what differs from it.

    Args:
        models: see `as_variants`.
        dtypes: number types, for example `("float32", "bfloat16")`.
        compiles: modes of `torch.compile`, None for none.

    Raises:
        BenchmarkError: see `as_variants`; or a form is named twice.
    """
    forms = [(dtype, mode) for mode in compiles for dtype in dtypes]
    variants = [
        replace(variant, name=variant.name + _difference(form, forms[0]), dtype=form[0], compile=form[1])
        for variant in as_variants(models)
        for form in forms
    ]
    return as_variants(variants)


def _difference(form: tuple[str, str | None], first: tuple[str, str | None]) -> str:
    (dtype, mode), parts = form, []
    if dtype != first[0]:
        parts.append(dtype)
    if mode != first[1]:
        parts.append(f"compile {mode}" if mode else "eager")
    return f" ({', '.join(parts)})" if parts else ""


def are_detectors(models: Sequence[str]) -> bool:
    """Whether folders or Hub ids hold temporal action detectors, which `benchmark_detectors` measures.

    Raises:
        BenchmarkError: some do and some do not.
    """
    found = {name: checkpoint_model_type(name) == DETECTOR for name in models}
    if len(set(found.values())) > 1:
        raise BenchmarkError(
            f"{', '.join(name for name in found if found[name])} detect actions, the others classify: measure them one kind at a time."
        )
    return all(found.values())


def _is_named(value) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and not isinstance(value[1], str)


def _as_variant(model) -> BenchmarkVariant:
    if isinstance(model, BenchmarkVariant):
        return model
    if isinstance(model, (tuple, list)):
        if len(model) != 2 or not isinstance(model[0], str):
            raise BenchmarkError(f"expected (name, model), got {model!r}.")
        return BenchmarkVariant(model[0], model[1])
    if isinstance(model, (str, os.PathLike)):
        return BenchmarkVariant(_name_of(os.fspath(model)), os.fspath(model))
    saved_as = getattr(getattr(model, "config", None), "name_or_path", "")
    return BenchmarkVariant(_name_of(saved_as) if saved_as else type(model).__name__, model)


def _told_apart(variants: list[BenchmarkVariant]) -> tuple[BenchmarkVariant, ...]:
    """Folders of one name under the names of their parents too: the models of the steps of a compression."""
    names = [variant.name for variant in variants]

    def renamed(variant):
        is_folder = isinstance(variant.model, (str, os.PathLike)) and os.path.isdir(variant.model)
        if names.count(variant.name) == 1 or not is_folder or variant.name != _name_of(os.fspath(variant.model)):
            return variant
        return replace(variant, name="/".join(Path(variant.model).resolve().parts[-2:]))

    return tuple(renamed(variant) for variant in variants)


def _name_of(path_or_id: str) -> str:
    """The last part of a folder, whatever its parents say about this machine; a Hub id as it is."""
    path = Path(path_or_id)
    return path.resolve().name if path.is_dir() or path.is_absolute() else path_or_id


def processor_of(variant: BenchmarkVariant):
    """The processor of a variant, None when it has none."""
    source = variant.processor
    if source is None and isinstance(variant.model, (str, os.PathLike)):
        source = variant.model
    if not isinstance(source, (str, os.PathLike)):
        return source
    # a checkpoint without a processor is common, and its shape is in the configuration as well
    with contextlib.suppress(*NO_PROCESSOR):
        return load_processor(os.fspath(source))
    if variant.processor is not None:
        raise BenchmarkError(f"{variant.name}: no processor in {source!r}.")
    return None


@contextlib.contextmanager
def built(variant: BenchmarkVariant, number_type: NumberType, device: torch.device) -> Iterator[nn.Module]:
    """The model, on the device, in evaluation mode and in the right number type.

    A model that was handed over as an object is never changed: where type or device differ a copy is used, and every
    module gets its training flag back.
    """
    model = variant.model
    if isinstance(model, (str, os.PathLike)):
        model = _load(variant, number_type)
    elif not isinstance(model, nn.Module):
        model = model()
        if not isinstance(model, nn.Module):
            raise BenchmarkError(f"{variant.name}: its function gave {type(model).__name__}, expected a torch module.")
    fits = all(p.device == device and p.dtype == number_type.weights for p in model.parameters())
    if not fits:
        model = (copy.deepcopy(model) if model is variant.model else model).to(
            device=device, dtype=number_type.weights
        )
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes.items():
            module.training = training


def _load(variant: BenchmarkVariant, number_type: NumberType):
    path = os.fspath(variant.model)
    try:
        if checkpoint_model_type(path) == DETECTOR:
            with one_line_errors(path):
                return ActionFormerForTemporalActionDetection.from_pretrained(path, dtype=number_type.weights)
        return load_video_classifier(path, dtype=number_type.weights)
    except (OSError, ValueError, KeyError) as error:
        raise BenchmarkError(
            f"{variant.name}: {path!r} does not open as a video classifier or detector: {str(error).strip().splitlines()[0]}"
        ) from error


def with_defaults(variant: BenchmarkVariant, dtype: str, compile_mode: str | None) -> BenchmarkVariant:
    """The variant with what it leaves open filled in from the benchmark."""
    return replace(variant, dtype=variant.dtype or dtype, compile=variant.compile or compile_mode)
