"""LoRA that a model recovers with after blocks were dropped: low-rank adapters on attention, and the few weights beside them that train.

W' = W + A B with A (D, r) drawn from N(0, 1) / sqrt(r), B = 0, r = D / 4 and scale 1, on the projections that mix tokens in every kept
block; norms and the patch embedding train as they are. Merged afterwards, the model is the plain model again.
"""

import math

import torch
from torch import nn

from .block_table import find_blocks_of, model_blocks, plain_model
from .lora import is_lora, merge_lora, wrap_with_lora


TUNINGS = ("lora", "full")
HEADS = ("train", "frozen")
# what mixes tokens, as the blocks of transformers and ours call it
_MIXERS = ("attention", "attn", "modulation", "mixer")
# where the flags stand that a recovery changes, to be put back by merging
_BEFORE = "_trainable_before_recovery"


def recovery_lora(model, part=None, rank=None, *, tuning="lora", head="train", targets=None, seed=0):
    """Chooses what trains after a block was dropped, and adds adapters.

    With `tuning="lora"` these train: adapters on the token-mixing projections of the blocks (query, key, value and output of
    attention; the f, h and output projections of a Video-FocalNet), all norms of the part, its patch embedding and temporal adapters.
    With `"full"` all of the part does. Weights that were frozen before (a token selector) stay so; only a trunk frozen by
    `freeze_backbone` is thawed, until it is merged.

    Args:
        model: a classifier or detector; edited in place.
        part: see `model_blocks`.
        rank: r; None: a quarter of the width of each adapted layer, D / 4.
        tuning: `"lora"` or `"full"`.
        head: `"train"`: what lies outside of the part trains in full (a detector's own network, a classifier), but no trunk; or
            `"frozen"`.
        targets: name endings of the linear layers of the blocks that get adapters; None: those that mix tokens.
        seed: of A, which is drawn from nothing else.

    Returns:
        The model to train: a `peft.PeftModel` with `"lora"`, the model itself with `"full"`. `merge_recovery_lora` ends both. Save
        after merging: a folder of adapters lacks the norms.

    Raises:
        ValueError: an unknown option, a model with adapters already, or no layer to adapt.
        UnsupportedBlocksError: see `model_blocks`.
        ImportError: peft is not installed.
    """
    _check(model, tuning, head, rank)
    names = recovery_targets(model, part, targets) if tuning == "lora" else []
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    trained = _trained_names(model, part, tuning, head, before)
    vars(model)[_BEFORE] = before
    _let_gradients_into_trunk(model, part)
    parameters = dict(model.named_parameters())
    wrapped = _with_adapters(model, names, rank, seed) if names else model
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in trained)
    return wrapped


def merge_recovery_lora(model):
    """Ends a recovery: adapters are added into the weights, names are plain again, and what trained before trains again.

    Args:
        model: what `recovery_lora` returned.

    Returns:
        The model that `recovery_lora` was given, with its new weights.
    """
    plain = merge_lora(model)
    before = vars(plain).pop(_BEFORE, None)
    if before is not None:
        for name, parameter in plain.named_parameters():
            parameter.requires_grad_(before[name])
        for trunk in _frozen_trunks(plain):
            trunk.frozen = True
            trunk.freeze()
    return plain


def recovery_targets(model, part=None, targets=None):
    """Full names of the linear layers that get adapters; see `recovery_lora`.

    Raises:
        ValueError: there is none.
    """
    chosen = []
    for block in model_blocks(model, part):
        linear = [name for name, module in block.module.named_modules() if isinstance(module, nn.Linear)]
        if targets is None:
            inside = [name for name in linear if any(mixer in name.split(".")[0] for mixer in _MIXERS)]
        else:
            inside = [name for name in linear if any(name == t or name.endswith("." + t) for t in targets)]
        chosen += [f"{block.name}.{name}" for name in inside]
    if not chosen:
        wanted = "that mixes tokens" if targets is None else f"ending in {', '.join(targets)}"
        raise ValueError(
            f"LoRA found no linear layer {wanted} in the blocks of {type(model).__name__}; use tuning='full', or name layers of its "
            "blocks as targets."
        )
    return chosen


def _check(model, tuning, head, rank):
    for name, value, known in (("tuning", tuning, TUNINGS), ("head", head, HEADS)):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be 1 or more, or None for a quarter of the width; got {rank}.")
    if is_lora(model):
        raise ValueError(
            "This model has adapters already: merge them with merge_recovery_lora before the next recovery."
        )
    if _BEFORE in vars(model):
        raise ValueError("This model is in a recovery already: end it with merge_recovery_lora before the next one.")


def _trained_names(model, part, tuning, head, before):
    """Names of the parameters that train beside adapters."""
    stack = find_blocks_of(model, part)
    modules = _part_modules(model, stack)
    own = {id(parameter) for module in modules for parameter in module.parameters()}
    chosen = own if tuning == "full" else _norms_and_embedding(modules, stack)
    trunks = {id(parameter) for trunk in _trunks(model) for parameter in trunk.trunk.parameters()}
    # V-JEPA 2 carries the predictor of its pre-training along, which no loss of a task reaches
    predictor = getattr(stack.base, "predictor", None)
    unreached = {id(parameter) for parameter in predictor.parameters()} if isinstance(predictor, nn.Module) else set()
    names = set()
    for name, parameter in model.named_parameters():
        number = id(parameter)
        wanted = number in chosen if number in own else head == "train" and number not in trunks
        if wanted and number not in unreached and (before[name] or number in trunks):
            names.add(name)
    return names


def _part_modules(model, stack):
    """The modules that make up a part: a whole trunk with its temporal adapters, or the blocks of a detector."""
    if stack.part == "detector":
        return [block.module for block in model_blocks(model, stack.part)]
    return [stack.base, *(companions for _, companions in stack.companions)]


def _norms_and_embedding(modules, stack):
    """Identities of the parameters of norms, patch embedding and temporal adapters."""
    inner = (module for outer in modules for module in outer.modules())
    found = [
        parameter
        for module in inner
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(False)
    ]
    for _, companions in stack.companions:
        found += companions.parameters()
    if stack.part == "backbone":
        found += stack.base.get_input_embeddings().parameters()
    return {id(parameter) for parameter in found}


def _with_adapters(model, names, rank, seed):
    widths = {name: model.get_submodule(name).in_features for name in names}
    ranks = {name: max(1, width // 4) if rank is None else rank for name, width in widths.items()}
    common = max(ranks.values())
    others = {name: own for name, own in ranks.items() if own != common}
    wrapped = wrap_with_lora(model, names, common, common, ranks=others)
    _draw(plain_model(wrapped), names, ranks, seed)
    return wrapped


@torch.no_grad()
def _draw(model, names, ranks, seed):
    """A from N(0, 1) / sqrt(r), layer after layer, the same on every device and process."""
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        for first in model.get_submodule(name).lora_A.values():
            first.weight.copy_(torch.randn(first.weight.shape, generator=generator) / math.sqrt(ranks[name]))


def _trunks(model):
    """Backbones of detectors: what runs a trunk clip by clip."""
    return [module for module in model.modules() if hasattr(module, "trunk") and hasattr(module, "freeze")]


def _frozen_trunks(model):
    return _trunks(model) if getattr(model.config, "freeze_backbone", False) else []


def _let_gradients_into_trunk(model, part):
    if find_blocks_of(model, part).part == "backbone":
        for trunk in _frozen_trunks(model):
            trunk.frozen = False
