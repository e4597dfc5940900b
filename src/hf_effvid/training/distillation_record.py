"""What a distilled checkpoint knows of its teachers: a file beside its weights, which goes with it when it is staged and which its card tells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..evaluation.provenance import current_provenance
from .block_drop_outcome import write_json


RECORD_NAME = "distillation.json"
_VERSION = 1


@dataclass(frozen=True)
class TeacherRecord:
    """One teacher.

    Attributes:
        role: `"vit"` or `"cnn"`.
        name: what it was opened from: a Hub id, or a folder.
        license: licence of its weights, a Hub licence id; None where its card states none.
        model_type: its architecture.
        parameters: how many it has.
    """

    role: str
    name: str
    license: str | None = None
    model_type: str | None = None
    parameters: int | None = None

    @classmethod
    def of(cls, teacher) -> "TeacherRecord":
        """Of an opened `Teacher`, or of anything with its `role`, `name`, `license` and `model`."""
        model = getattr(teacher, "model", None)
        return cls(
            role=teacher.role,
            name=str(teacher.name),
            license=getattr(teacher, "license", None),
            model_type=None if model is None else str(model.config.model_type),
            parameters=None if model is None else sum(parameter.numel() for parameter in model.parameters()),
        )


@dataclass(frozen=True)
class DistillationRecord:
    """Who taught a student, and how.

    Attributes:
        teachers: the ViT first.
        settings: fields of `DistillationSettings`, as they were after terms without a teacher were dropped.
        data: `name` of the training data, `views` per clip (None: new ones in every epoch).
        provenance: command, commit, seed, hardware, versions.
    """

    teachers: tuple[TeacherRecord, ...]
    settings: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    provenance: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls, teachers: Sequence, settings, data: Mapping | None = None, seed: int | None = None
    ) -> "DistillationRecord":
        """The record of the running process.

        Args:
            teachers: opened `Teacher`s.
            settings: a `DistillationSettings`, or a mapping of its fields.
            data: see the class.
            seed: of the run.
        """
        named = sorted(map(TeacherRecord.of, teachers), key=lambda teacher: teacher.role != "vit")
        settings = dict(settings if isinstance(settings, Mapping) else settings.to_dict())
        return cls(tuple(named), settings, dict(data or {}), asdict(current_provenance(seed=seed)))

    def teacher(self, role: str) -> TeacherRecord | None:
        """The teacher in that role, None without one."""
        return next((teacher for teacher in self.teachers if teacher.role == role), None)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {"version": _VERSION, **asdict(self), "teachers": [asdict(teacher) for teacher in self.teachers]}

    def save(self, folder) -> Path:
        """Writes `distillation.json` into a model folder."""
        write_json(Path(folder, RECORD_NAME), self.to_dict())
        return Path(folder, RECORD_NAME)

    @classmethod
    def load(cls, folder) -> "DistillationRecord":
        """The inverse of `save`.

        Raises:
            ValueError: the file is not such a record.
        """
        path = Path(folder, RECORD_NAME)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("version") != _VERSION:
                raise ValueError("it is of another version")
            document["teachers"] = tuple(TeacherRecord(**teacher) for teacher in document["teachers"])
            return cls(**document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} is no record of a distillation ({error}): delete it, or distil again."
            ) from error
