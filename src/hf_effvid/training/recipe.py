"""A training recipe as a YAML file: values for `train_classifier` or `train_detector`, nothing executable.

extends: published.yaml      # another recipe of the same folder, whose values this one changes; left out: none
choose: {size: tiny}         # which of the `choices` counts; change it with --set choose.size=base
choices:                     # named sets of values, laid over the rest of the file in the order of this list
  size:
    tiny: {model: {embed_dim: 96}}
    base: {model: {embed_dim: 128}}
model:                       # a folder, a Hub id, "<model_type>:<preset>", or the fields of a configuration
  model_type: video_focalnet
  embed_dim: 24
data:                        # format and missing of `load_video_dataset`
  format: kinetics
processor:                   # fields of EffVidVideoProcessor; left out: what fits the model
  num_frames: 8
augmentation: light          # a preset, or the fields of AugmentationConfig
cache: ram                   # keep decoded videos in memory; left out: decode every time
validation_share: 0.2        # held out of the training split where there is no validation split
selection:                   # arguments of train_token_selector; for `effvid select train` alone
  keep_ratio: 0.5
compression:                 # fields of BlockDropSettings; for `effvid compress` alone
  drop: 3
distillation:                # fields of DistillationSettings, and teacher_vit, teacher_cnn, views, view_seed; for `effvid distill` alone
  teacher_cnn: path/or/hub-id
  weighting: uniform
training:                    # fields of EffVidTrainingArguments
  num_train_epochs: 10

And for a temporal action detector:

task: detection
model:                       # fields of ActionFormerConfig alone
  model_type: actionformer
backbone: path/or/hub-id     # the classifier whose trunk it starts from; left out: stored features, or random weights
processor: {}                # fields of ActionFormerProcessor
features:                    # of a folder with one file of features per video: stride, num_frames, fps, key, channels_first
  stride: 4
windows:                     # fields of WindowSampling
  min_visible: 0.5
detection:                   # one_class, train_split, validation_split, tious, operating_points of train_detector
  train_split: validation

Overrides (`--set`) come last: they win over everything in files.
"""

import re
from dataclasses import dataclass, field, fields
from pathlib import Path

import yaml
from transformers import AutoConfig, PreTrainedConfig

from ..auto import register
from ..data import AugmentationConfig
from ..data.feature_store import FeatureStore
from ..data.window_sampling import WindowSampling
from ..models.video_processing_actionformer import ActionFormerProcessor
from ..models.video_processing_effvid import EffVidVideoProcessor
from .arguments import EffVidTrainingArguments
from .block_drop_settings import BlockDropSettings
from .distillation_settings import DistillationSettings


_KINDS = {
    "choose": (dict,),
    "task": (str,),
    "backbone": (str,),
    "features": (dict,),
    "windows": (dict,),
    "detection": (dict,),
    "model": (str, dict),
    "data": (dict,),
    "processor": (dict,),
    "augmentation": (str, dict),
    "cache": (str,),
    "validation_share": (float, int),
    "selection": (dict,),
    "compression": (dict,),
    "distillation": (dict,),
    "training": (dict,),
}
_WORDS = {str: "a word", dict: "`key: value` lines", float: "a number", int: "a whole number"}
# A recipe may come from a stranger: which files a list may name is not among what it can say.
_DATA_OPTIONS = ("format", "missing")
_FEATURE_OPTIONS = ("stride", "num_frames", "fps", "key", "channels_first")
_DETECTION_OPTIONS = ("one_class", "train_split", "validation_split", "tious", "operating_points")
_TASKS = ("classification", "detection")
_SELECTION_OPTIONS = (
    "keep_ratio",
    "oracle_block",
    "oracle_tensor",
    "label_source",
    "kind",
    "hidden_sizes",
    "variants",
)
_DISTILLATION_OPTIONS = {"teacher_vit": (str,), "teacher_cnn": (str,), "views": (int,), "view_seed": (int,)}


class RecipeFileError(ValueError):
    """A recipe file, or an override of one of its values, cannot be used; the message names the key."""


@dataclass
class TrainRecipe:
    """What a recipe file holds; see the module's docstring for the meaning of each section."""

    model: str | dict | None = None
    data: dict = field(default_factory=dict)
    processor: dict | None = None
    augmentation: str | dict = "light"
    cache: str | None = None
    validation_share: float = 0.2
    selection: dict = field(default_factory=dict)
    compression: dict = field(default_factory=dict)
    distillation: dict = field(default_factory=dict)
    training: dict = field(default_factory=dict)
    choose: dict = field(default_factory=dict)
    task: str = "classification"
    backbone: str | None = None
    features: dict = field(default_factory=dict)
    windows: dict = field(default_factory=dict)
    detection: dict = field(default_factory=dict)

    def build_model_source(self) -> str | PreTrainedConfig:
        """The folder, id or preset, or a configuration made of the fields of `model`."""
        if self.model is None:
            raise RecipeFileError("no model: name one with --model, or give the recipe a `model` section.")
        if isinstance(self.model, str):
            return self.model
        values = dict(self.model)
        model_type = values.pop("model_type", None)
        if model_type is None:
            raise RecipeFileError(
                "model: the fields of a configuration need `model_type`, for example video_focalnet."
            )
        register()
        known = _fields_of_config(model_type)
        _refuse_unknown("model", values, known)
        return AutoConfig.for_model(model_type, **values)

    def detector_fields(self) -> dict:
        """The fields of `ActionFormerConfig` in the `model` section; none where it is a folder, an id or left out."""
        if not isinstance(self.model, dict):
            return {}
        values = dict(self.model)
        if values.pop("model_type", "actionformer") != "actionformer":
            raise RecipeFileError(
                f"model: a detector is an actionformer, found model_type {self.model['model_type']!r}."
            )
        register()
        _refuse_unknown("model", values, _fields_of_config("actionformer"))
        return values

    def detector_processor_fields(self) -> dict:
        """The fields of `ActionFormerProcessor` in the `processor` section."""
        _refuse_unknown("processor", self.processor or {}, ActionFormerProcessor.valid_kwargs.__annotations__)
        return dict(self.processor or {})

    def open_features(self, folder) -> FeatureStore:
        """The stored features of a folder; one that was written by `effvid cache --features` says itself what they are."""
        known = (Path(folder) / "index.json").is_file()
        return FeatureStore.open(folder, **({} if known else self.features))

    def distillation_options(self) -> dict:
        """`teacher_vit`, `teacher_cnn`, `views` and `view_seed`, those that the recipe names."""
        return {name: self.distillation[name] for name in _DISTILLATION_OPTIONS if name in self.distillation}

    def distillation_fields(self) -> dict:
        """The fields of `DistillationSettings` in the `distillation` section."""
        return {name: value for name, value in self.distillation.items() if name not in _DISTILLATION_OPTIONS}

    def build_processor(self) -> EffVidVideoProcessor | None:
        """The processor of the `processor` section, or None when there is no such section."""
        if self.processor is None:
            return None
        _refuse_unknown("processor", self.processor, EffVidVideoProcessor.valid_kwargs.__annotations__)
        return EffVidVideoProcessor(**self.processor)

    def build_augmentation(self) -> AugmentationConfig | str:
        """A preset's name, or the `AugmentationConfig` of the fields given."""
        if isinstance(self.augmentation, str):
            return self.augmentation
        _refuse_unknown("augmentation", self.augmentation, [f.name for f in fields(AugmentationConfig)])
        return AugmentationConfig(**self.augmentation)


def load_recipe(path=None, overrides=()) -> TrainRecipe:
    """Reads a recipe file and applies overrides such as `training.learning_rate=1e-3` or `choose.size=base`.

    Args:
        path: a YAML file, or None for an empty recipe.
        overrides: `section.key=value` strings; values are read as YAML, so `true`, `3` and `[1, 2]` mean what they say.

    Raises:
        RecipeFileError: a file that is no YAML mapping, an unknown section, key or choice, a section of the wrong kind, or an
            override without `=` or whose value is not YAML.
    """
    document = {} if path is None else _read_with_base(Path(path))
    chosen, others = [], []
    for override in overrides:
        (chosen if re.match(r"choose[.=]", override) else others).append(override)
    for override in chosen:
        _apply_override(document, override)
    document = _choose(document)
    for override in others:
        _apply_override(document, override)
    _refuse_unknown("recipe", document, [f.name for f in fields(TrainRecipe)])
    recipe = TrainRecipe(**document)
    _refuse_wrong_kinds(recipe)
    recipe.data = recipe.data or {}
    _refuse_unknown("data", recipe.data, _DATA_OPTIONS)
    if recipe.task not in _TASKS:
        raise RecipeFileError(f"task: expected one of {', '.join(_TASKS)}, found {recipe.task!r}.")
    for section, known in (
        ("features", _FEATURE_OPTIONS),
        ("windows", [f.name for f in fields(WindowSampling)]),
        ("detection", _DETECTION_OPTIONS),
    ):
        setattr(recipe, section, getattr(recipe, section) or {})
        _refuse_unknown(section, getattr(recipe, section), known)
    recipe.selection = recipe.selection or {}
    _refuse_unknown("selection", recipe.selection, _SELECTION_OPTIONS)
    recipe.compression = recipe.compression or {}
    _refuse_unknown("compression", recipe.compression, [f.name for f in fields(BlockDropSettings)])
    recipe.distillation = {name: _as_number(value) for name, value in (recipe.distillation or {}).items()}
    known = [*_DISTILLATION_OPTIONS, *(f.name for f in fields(DistillationSettings))]
    _refuse_unknown("distillation", recipe.distillation, known)
    for name, value in recipe.distillation_options().items():
        _refuse_wrong_kind(f"distillation.{name}", value, _DISTILLATION_OPTIONS[name])
    recipe.training = {name: _as_meant(name, value) for name, value in (recipe.training or {}).items()}
    _refuse_unknown("training", recipe.training, [f.name for f in fields(EffVidTrainingArguments)])
    return recipe


def _read_with_base(path: Path, above: tuple[Path, ...] = ()) -> dict:
    """The values of a file over those of the file that it extends."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeFileError(f"{path}: not a YAML file ({error}).") from error
    if not isinstance(document, dict):
        raise RecipeFileError(f"{path}: expected sections such as `model:` and `training:`, found {document!r}.")
    base = document.pop("extends", None)
    if base is None:
        return document
    if not isinstance(base, str) or Path(base).name != base or base in ("", ".", ".."):
        raise RecipeFileError(f"{path}: extends names a file of the same folder, found {base!r}.")
    if path.with_name(base) in (path, *above):
        raise RecipeFileError(f"{path}: extends {base}, which extends it.")
    if not path.with_name(base).is_file():
        raise RecipeFileError(f"{path}: extends {base}, but there is no {path.with_name(base)}.")
    return _laid_over(_read_with_base(path.with_name(base), (path, *above)), document)


def _choose(document: dict) -> dict:
    """The document with the chosen of its `choices` laid over it."""
    choices, choose = document.pop("choices", None) or {}, document.get("choose") or {}
    if not isinstance(choices, dict) or not isinstance(choose, dict):
        raise RecipeFileError("choices and choose: expected `key: value` lines.")
    _refuse_unknown("choose", choose, choices)
    for name, sets in choices.items():
        if not isinstance(sets, dict) or not all(isinstance(values, dict) for values in sets.values()):
            raise RecipeFileError(f"choices.{name}: expected named sets of sections, found {sets!r}.")
        if choose.get(name) not in sets:
            raise RecipeFileError(
                f"choose.{name}: expected one of {', '.join(map(str, sets))}, found {choose.get(name)!r}."
            )
        document = _laid_over(document, sets[choose[name]])
    return document


def _laid_over(below: dict, above: dict) -> dict:
    """The values of both; of two for one key the upper one, of two mappings their values in turn."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _laid_over(merged[key], value) if both else value
    return merged


def _apply_override(document: dict, override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeFileError(f"--set expects section.key=value, got {override!r}.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeFileError(f"{override!r}: the value is not YAML ({error}).") from error
    *sections, name = key.split(".")
    place = document
    for section in sections:
        if not isinstance(place.get(section), dict):
            place[section] = {}
        place = place[section]
    place[name] = _as_number(value)


def _as_meant(name: str, value):
    """YAML 1.1 also reads `no` as false, but `eval_strategy: no` is a word."""
    return "no" if name.endswith("_strategy") and value is False else _as_number(value)


def _as_number(value):
    """YAML 1.1 reads `1e-3` (no dot) as text; nobody means that."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _fields_of_config(model_type: str) -> list[str]:
    try:
        config = AutoConfig.for_model(model_type)
    except ValueError as error:
        raise RecipeFileError(f"model: unknown model_type {model_type!r}.") from error
    return [*config.to_dict(), *(f.name for f in fields(config))]


def _refuse_wrong_kinds(recipe: TrainRecipe) -> None:
    """A list where fields belong would otherwise fail much later, far from the file."""
    for section, kinds in _KINDS.items():
        _refuse_wrong_kind(section, getattr(recipe, section), kinds)


def _refuse_wrong_kind(name: str, value, kinds: tuple) -> None:
    if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        expected = " or ".join(_WORDS[kind] for kind in kinds)
        raise RecipeFileError(f"{name}: expected {expected}, found {value!r}.")


def _refuse_unknown(section: str, given, known) -> None:
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise RecipeFileError(f"{section}: unknown keys {unknown}; known are {sorted(known)}.")
