"""Any supported video classifier of transformers as the same classifier that reads a share of its tokens."""

import copy

import torch
from transformers import (
    PreTrainedModel,
    TimesformerForVideoClassification,
    VideoMAEForVideoClassification,
    VivitForVideoClassification,
    VJEPA2ForVideoClassification,
)

from ..models.modeling_lite_timesformer import LiteTimesformerForVideoClassification
from ..models.modeling_lite_videomae import LiteVideoMAEForVideoClassification
from ..models.modeling_lite_vivit import LiteVivitForVideoClassification
from ..models.modeling_lite_vjepa2 import LiteVJEPA2ForVideoClassification
from ..models.token_selection import TokenSelectionError


# model_type of the host -> its stock class and the one that selects
HOSTS = {
    "videomae": (VideoMAEForVideoClassification, LiteVideoMAEForVideoClassification),
    "vivit": (VivitForVideoClassification, LiteVivitForVideoClassification),
    "vjepa2": (VJEPA2ForVideoClassification, LiteVJEPA2ForVideoClassification),
    "timesformer": (TimesformerForVideoClassification, LiteTimesformerForVideoClassification),
}
# why others cannot be: attention that takes the grid of tokens apart would read the wrong neighbours, without an error
_REASONS = {
    "videoprism_vision_model": "its attention runs over space in each frame and then over time at each place, so that tokens "
    "dropped in one frame would shift the places of the others",
    "video_focalnet": "its convolutions need the whole grid of tokens",
}


class UnsupportedHostError(TokenSelectionError):
    """Tokens of this model cannot be selected without changing what it computes."""


def select_tokens(model, keep_ratio=None, scorer=None, **fields):
    """A video classifier that drops tokens before its first block; see `docs/token_selection.md`.

    VideoMAE, ViViT, V-JEPA 2 and TimeSformer keep any k = floor(keep_ratio * N) tokens (the class token always, in addition);
    TimeSformer with divided attention keeps whole tubes, floor(keep_ratio * places) of them.

    Args:
        model: a `VideoMAEForVideoClassification`, `VivitForVideoClassification`, `VJEPA2ForVideoClassification` or
            `TimesformerForVideoClassification`, or one of our Lite classes. It is left as it is and can be used on; the new model
            shares its weights, so that training one trains both.
        keep_ratio: P in (0, 1]; 1 keeps all tokens. None leaves what a Lite model has (1 for a stock model).
        scorer: name of the score that decides, a key of `models.token_selection.SCORERS`. None leaves what a Lite model has
            (`"lite"` for a stock model, whose selector is not trained yet).
        fields: other fields of a Lite configuration, such as `selector_kind` or `selector_hidden_sizes`; None leaves them. A Lite
            model whose selector would be of another shape gets a new, untrained one.

    Returns:
        A Lite classifier, with weights, device, precision, mode and attention function of the given one.

    Raises:
        UnsupportedHostError: tokens of this model cannot be selected; says which can.
        StrictDataclassFieldValidationError: a field is out of range.

    Example:
        >>> from transformers import VivitForVideoClassification
        >>> from hf_effvid import select_tokens
        >>> model = VivitForVideoClassification.from_pretrained("google/vivit-b-16x2-kinetics400")
        >>> half = select_tokens(model, keep_ratio=0.5, scorer="embedding_norm")
    """
    host_type, lite_class = _find_host(model)
    config = _lite_config(model.config, lite_class, keep_ratio=keep_ratio, scorer=scorer, **fields)
    if host_type == "timesformer" and config.attention_type == "space_only" and config.keep_ratio < 1:
        raise UnsupportedHostError(
            'TimeSformer with attention_type="space_only" answers once per frame and not per clip: its tokens cannot be selected.'
        )
    with torch.device("meta"):
        lite = lite_class(config)
    state = _shared_state(model, lite)
    thawed = {name: value.requires_grad for name, value in state.items()}
    # the very parameters, not copies of them
    missing, unexpected = lite.load_state_dict(state, strict=False, assign=True)
    if unexpected or any(not name.startswith("selector.") for name in missing):
        raise UnsupportedHostError(
            f"The weights of {type(model).__name__} are not those of its architecture (unexpected: {unexpected[:3]}, missing: "
            f"{missing[:3]}): merge adapters and undo quantisation first."
        )
    for name, value in lite.state_dict(keep_vars=True).items():
        value.requires_grad_(thawed.get(name, False))
    if missing:
        _draw_selector(lite, next(model.parameters()))
    _share_plain_tensors(model, lite)
    lite.name_or_path = model.name_or_path
    return lite.train(model.training)


def _find_host(model):
    """Type of the host and the Lite class of a model."""
    model_type = getattr(getattr(model, "config", None), "model_type", None)
    host_type = str(model_type).removeprefix("lite_")
    if host_type in HOSTS:
        stock_class, lite_class = HOSTS[host_type]
        # by name: a checkpoint that brought its own code has another class of the same name
        if isinstance(model, stock_class) or type(model).__name__ == lite_class.__name__:
            return host_type, lite_class
    supported = ", ".join(stock.__name__ for stock, _ in HOSTS.values())
    if not isinstance(model, PreTrainedModel):
        why = "select tokens before it is compiled or wrapped, and merge adapters (`merge_and_unload`) first"
    elif host_type in HOSTS:
        why = "it is no classifier"
    else:
        why = _REASONS.get(host_type, "nothing is known about how its attention uses the grid of tokens")
    raise UnsupportedHostError(
        f"Tokens of {type(model).__name__} ({model_type}) cannot be selected: {why}. Supported are {supported} and our Lite classes "
        "of them."
    )


def _lite_config(config, lite_class, **fields):
    fields = {name: value for name, value in fields.items() if value is not None}
    unknown = sorted(set(fields) - set(lite_class.config_class().to_dict()))
    if unknown:
        raise TypeError(
            f"select_tokens() got fields that {lite_class.config_class.__name__} does not have: {unknown}."
        )
    kind = ("selector_kind", "selector_hidden_sizes")
    stated = {name: copy.deepcopy(value) for name, value in config.to_dict().items()}
    before = [stated.get(name) for name in kind]
    new = lite_class.config_class.from_dict({**stated, **fields})
    if [new.to_dict()[name] for name in kind] != before and "selector_trained" not in fields:
        new.selector_trained = False
    new._attn_implementation = config._attn_implementation
    return new


def _shared_state(model, lite):
    """The parameters of a model under their names, without a selector of another shape."""
    shapes = {name: value.shape for name, value in lite.state_dict().items()}
    state = model.state_dict(keep_vars=True)
    old = {name: value.shape for name, value in state.items() if name.startswith("selector.")}
    if old != {name: shape for name, shape in shapes.items() if name.startswith("selector.")}:
        state = {name: value for name, value in state.items() if name not in old}
    return state


def _draw_selector(lite, reference):
    lite._add_selector(lite.config)
    with torch.no_grad():
        lite.selector.apply(lite._init_weights)
    lite.selector.to(reference.device, reference.dtype)


def _share_plain_tensors(model, lite):
    """Tensors that are neither parameters nor buffers, such as VideoMAE's position table, which may have been interpolated."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                setattr(lite.get_submodule(name), attribute, value)
