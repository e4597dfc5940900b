"""A PEFT adapter as a repository of its own: small, and naming the base model that everyone can fetch."""

import json
from pathlib import Path

from transformers import AutoConfig

from .card_info import CardError, check_hub_id
from .stage_files import StageError


def save_adapter(model, folder: Path, base_model: str | None) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` for others to use.

    PEFT records where *this* process found the base model (often a local folder) and the module the class came from
    (often a hash-named folder of a cache); both are replaced by what holds elsewhere.

    Args:
        model: the PEFT model.
        folder: an existing, empty folder.
        base_model: Hub id of the base model; default: the one PEFT recorded.

    Raises:
        StageError: the base model is not a Hub id, or has other classes, so that nobody could load the adapter.
    """
    _check_classes(model)
    model.save_pretrained(folder, safe_serialization=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    base = base_model or config.get("base_model_name_or_path")
    try:
        if base is not None and Path(base).exists():
            raise CardError(f"{base!r} is a local folder.")
        check_hub_id(base)
    except CardError as error:
        raise StageError(
            f"an adapter needs the Hub id of its base model: {error} Pass card=CardInfo(base_model='org/name', "
            "base_model_relation='adapter')."
        ) from error
    config["base_model_name_or_path"] = base
    config["auto_mapping"] = None
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card, which is empty


def _check_classes(model) -> None:
    """The classes are in the configuration of the base model, and others load the adapter with that one."""
    recorded = next(iter(model.peft_config.values())).base_model_name_or_path
    try:
        theirs = AutoConfig.from_pretrained(recorded).id2label
    except (OSError, ValueError, TypeError):  # not to be had from here; `verify` loads it all
        return
    ours = model.config.id2label
    if ours != theirs:
        raise StageError(
            f"the adapter has {len(ours)} classes of its own and its base model {len(theirs)} others, which those who load it "
            "would get. Publish the whole model instead: model.merge_and_unload(), or the folder that training wrote it to."
        )
