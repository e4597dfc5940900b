"""The section of a model card about dropped blocks: which, what every one cost and gave, and whose weights these were."""

import os
from dataclasses import replace
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from ..auto import find_architecture
from ..evaluation.block_drop_chart import plot_block_drop
from ..evaluation.results import Provenance
from ..training.block_drop_outcome import OUTCOME_NAME, CompressionOutcome
from .card_check import split_card
from .card_info import CardError, CardInfo, check_hub_id
from .escaping import escape_code, escape_markdown


PICTURE = "block_drop.png"
_CRITERIA = {
    "metric": "what the model is worth without it",
    "loss": "the loss of the model without it",
    "discrepancy": "how much its output differs from its input",
}


def find_compression(model_or_path, model) -> CompressionOutcome | None:
    """The record that a compression left beside a checkpoint, None where there is none or nothing was dropped.

    Args:
        model_or_path: what is staged; a folder, an id or a model.
        model: the opened model.
    """
    for source in (model_or_path, getattr(model, "name_or_path", None)):
        if isinstance(source, (str, os.PathLike)) and source and Path(source, OUTCOME_NAME).is_file():
            outcome = CompressionOutcome.load(source)
            return outcome if outcome.final else None
    return None


def save_compression(outcome: CompressionOutcome, folder: Path) -> None:
    """Writes the record and its picture into a checkpoint folder, without the paths of this machine."""
    replace(outcome, source=base_name(outcome.source)).save(folder)
    for path in plot_block_drop(outcome.rows(), outcome.metric, folder / PICTURE):
        if path.name != PICTURE:
            path.unlink()
    (folder / "compression.md").unlink(missing_ok=True)  # the card holds the table


def base_name(source: str) -> str:
    """What a model was opened from, as others may read it: a Hub id as it is, of a folder its name."""
    source = str(source)
    folder = Path(source)
    if folder.is_absolute() or folder.is_dir() or len(folder.parts) > 2:
        return folder.name if folder.name != "model" else f"{folder.parent.name}/{folder.name}"
    return source


def with_base(info: CardInfo, outcome: CompressionOutcome) -> CardInfo:
    """The publisher's fields, completed: the uncompressed model, its licence, which holds for what is left of it, and how it was compressed.

    Args:
        info: what the publisher says.
        outcome: the record of the compression.

    Returns:
        With `base_model`, where the uncompressed model was opened from the Hub or its own card names a repository, and its licence
        where the publisher states none; command and commit of the compression where the publisher names no others.

    Raises:
        CardError: the publisher states a licence that allows commercial use, and the uncompressed model's does not.
    """
    card = _card_of(outcome.source)
    if info.base_model is None and _is_hub_id(outcome.source):
        info = replace(info, base_model=outcome.source)
    if info.training_command is None:
        info = replace(info, training_command=outcome.provenance.get("command"))
    if info.training_commit is None:
        info = replace(info, training_commit=outcome.provenance.get("commit"))
    if info.base_model is not None and info.base_model_relation is None:
        info = replace(info, base_model_relation="finetune")
    licence = card.get("license")
    if not isinstance(licence, str) or licence == "unknown":
        return info
    if info.license == "unknown":
        fields = {name: card.get(name) for name in ("license", "license_name", "license_link")}
        return replace(info, **fields)
    if "-nc" in licence and "-nc" not in info.license:
        raise CardError(
            f"license is {info.license!r}, and the model that blocks were dropped from is {licence!r}: its weights are in this one, so "
            "that its terms hold. Leave license out to carry it over."
        )
    return info


def compression_section(outcome: CompressionOutcome | None, config) -> str | None:
    """Markdown of the section; None without a record.

    Args:
        outcome: the record of the compression.
        config: the model's configuration.
    """
    if outcome is None:
        return None
    last, depth = outcome.final_step, outcome.depth
    part = (
        " of its trunk"
        if getattr(config, "backbone_config", None) and outcome.settings.get("part") != "detector"
        else ""
    )
    lines = [
        "## Blocks left out",
        "",
        f"{depth - len(last.kept)} of the {depth} blocks{part} of {escape_code(base_name(outcome.source))} are gone: "
        f"{_numbers(_gone(outcome))}, in this order, counted from 0. Left are {_numbers(last.kept)} (`kept_blocks` in `config.json`). {_how(outcome)}",
        "",
        outcome.table(),
        "",
        _measured(outcome),
        "",
        f"![Metric and time after every dropped block]({PICTURE})",
        "",
        _opens(config),
    ]
    return "\n".join(lines)


def _how(outcome) -> str:
    settings = outcome.settings
    together = str(settings.get("order", "")).endswith("at_once")
    if settings.get("blocks"):
        chosen = "They were named by hand"
    elif str(settings.get("order", "")).startswith("random"):
        chosen = "They were drawn at random"
    else:
        which = "the blocks that matter least, together" if together else "one at a time the block that matters least"
        chosen = f"Dropped were {which}, judged by {_CRITERIA.get(settings.get('criterion'), 'a score')}"
    if not settings.get("recovery", True):
        return f"{chosen}. Nothing was trained afterwards."
    tuned = "adapters (LoRA, merged), norms and patch embedding" if settings.get("tuning") == "lora" else "all weights"
    aligned = settings.get("align")
    teacher = "" if aligned == [] or aligned == () else ", held to the outputs of the uncompressed model"
    if teacher and settings.get("teacher") == "dynamic":
        teacher = ", held to the outputs of the model before each drop"
    return f"{chosen}. After each drop {tuned} were trained{teacher}."


def _measured(outcome) -> str:
    origin, first = Provenance(**outcome.provenance), outcome.steps[0]
    place = escape_markdown(outcome.data.get("name") or "(no name)")
    timed = f" Times of one input on {escape_markdown(origin.hardware)}, in turns." if first.milliseconds else ""
    return (
        f"Measured on {first.after.n} held-out videos of the data set {place}, never on its test split, with 95 % intervals; differences to the uncompressed "
        f"model are of the same videos, in points.{timed} Made with {escape_code(origin.command)}, commit "
        f"{escape_code(origin.commit or 'not recorded')}, {escape_markdown(origin.date)}."
    )


def _opens(config) -> str:
    model_type = str(config.model_type)
    if find_architecture(model_type) is None:
        return f"What is left is an ordinary {escape_code(model_type)}: the class of transformers opens it, with no code but its own."
    return f"What is left is an ordinary {escape_code(model_type)}, with fewer blocks and nothing else about it."


def _gone(outcome) -> list[int]:
    return [block for step in outcome.steps[1 : outcome.final + 1] for block in step.dropped]


def _numbers(blocks) -> str:
    return ", ".join(map(str, blocks))


def _is_hub_id(source: str) -> bool:
    if Path(source).exists() or Path(source).is_absolute():
        return False
    try:
        check_hub_id(source)
    except CardError:
        return False
    return "/" in source


def _card_of(source: str) -> dict:
    """Front matter of the uncompressed model's card; empty where there is no card to read."""
    path = Path(source, "README.md")
    if _is_hub_id(source):
        try:
            path = Path(hf_hub_download(source, "README.md"))
        except (OSError, HfHubHTTPError, HFValidationError):
            return {}
    try:
        return split_card(path.read_text(encoding="utf-8"))[0]
    except (OSError, UnicodeDecodeError, CardError):
        return {}
