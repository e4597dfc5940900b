"""What a publisher says about a checkpoint: the part of a card that cannot be measured."""

import re
from dataclasses import dataclass, field


class CardError(ValueError):
    """A card cannot be written, or one that exists is wrong."""


_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")
_RELATIONS = ("finetune", "adapter", "quantized", "merge")


@dataclass(frozen=True)
class CardInfo:
    """The publisher's part of a model card. Every field is optional; what is missing is said to be missing.

    Attributes:
        title: heading; default: the repository name.
        summary: one paragraph (Markdown).
        license: licence of the *weights*, as a Hub licence id (`"apache-2.0"`, `"cc-by-nc-4.0"`, `"other"`).
        license_name, license_link: obligatory with `"other"`.
        base_model: Hub id of the model whose weights these derive from.
        base_model_relation: `"finetune"`, `"adapter"`, `"quantized"` or `"merge"`.
        teacher: Hub id or name of a teacher that was distilled; weights do not derive from it, so it is no base model.
        datasets: Hub ids of the training data.
        training_data: what it was trained on, in words, with the terms of that data.
        training_command: the command line that trained it.
        training_commit: commit of the code that trained it.
        limitations: known failures, one sentence each; two general ones are always added.
        intended_use: what it is meant for; default: what models of its task are good for.
        tags: further Hub tags.
        source_url, source_sha256: the file the weights were converted from.
        citation: BibTeX; default: the paper of the architecture.
    """

    title: str | None = None
    summary: str | None = None
    license: str = "unknown"
    license_name: str | None = None
    license_link: str | None = None
    base_model: str | None = None
    base_model_relation: str | None = None
    teacher: str | None = None
    datasets: tuple[str, ...] = ()
    training_data: str | None = None
    training_command: str | None = None
    training_commit: str | None = None
    limitations: tuple[str, ...] = ()
    intended_use: str | None = None
    tags: tuple[str, ...] = ()
    source_url: str | None = None
    source_sha256: str | None = None
    citation: str | None = field(default=None)

    def __post_init__(self):
        for name in ("datasets", "limitations", "tags"):
            value = getattr(self, name)
            if isinstance(value, str) or any(not isinstance(item, str) for item in value):
                raise CardError(f"{name} must be a list of strings, got {value!r}.")
            object.__setattr__(self, name, tuple(value))
        if not isinstance(self.license, str) or not self.license:
            raise CardError("license must be a Hub licence id; use 'unknown' when you do not know it.")
        if self.license == "other" and not (self.license_name and self.license_link):
            raise CardError("license 'other' needs license_name and license_link.")
        if self.base_model_relation and self.base_model_relation not in _RELATIONS:
            raise CardError(f"base_model_relation must be one of {_RELATIONS}, got {self.base_model_relation!r}.")
        if self.base_model_relation and not self.base_model:
            raise CardError("base_model_relation says how the weights derive from base_model: give that as well.")
        for hub_id in filter(None, (self.base_model, *self.datasets)):
            check_hub_id(hub_id)

    @classmethod
    def from_dict(cls, document: dict) -> "CardInfo":
        """From a manifest entry or a JSON file.

        Raises:
            CardError: an unknown key, or a value that does not fit.
        """
        unknown = sorted(set(document) - set(cls.__dataclass_fields__))
        if unknown:
            raise CardError(f"unknown card fields {unknown}; known are {sorted(cls.__dataclass_fields__)}.")
        return cls(**document)


def check_hub_id(name: str) -> str:
    """Returns a valid Hub id (`"org/name"` or `"name"`).

    Raises:
        CardError: it is none, for example a local path.
    """
    if not isinstance(name, str) or not _HUB_ID.fullmatch(name) or ".." in name or "--" in name:
        raise CardError(f"expected a Hub id such as 'org/name', got {name!r}.")
    return name
