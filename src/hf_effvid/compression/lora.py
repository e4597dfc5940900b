"""Low-rank adapters through PEFT: wrapping a model, and merging back to a plain one."""


def wrap_with_lora(model, targets, r, alpha, dropout=0.0, trained=(), ranks=None):
    """A `peft.PeftModel` around a model, with adapters in place.

    Args:
        model: edited in place.
        targets: full names of the layers that get adapters.
        r: rank.
        alpha: their scale is alpha / r.
        dropout: before the adapters.
        trained: names of modules that train in full beside them, as copies of their own.
        ranks: layer -> a rank of its own, with scale 1.

    Raises:
        ImportError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError("LoRA needs peft: pip install 'hf_effvid[train]'.") from error
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets),
        modules_to_save=list(trained),
        rank_pattern=dict(ranks or {}),
        alpha_pattern=dict(ranks or {}),
    )
    return get_peft_model(model, config)


def is_lora(model):
    """Whether a model is wrapped by PEFT."""
    return hasattr(model, "peft_config") and hasattr(model, "merge_and_unload")


def merge_lora(model):
    """The plain model with its adapters added into the weights; a model without adapters comes back unchanged."""
    return model.merge_and_unload() if is_lora(model) else model
