"""The section of a model card about distillation: who taught the student, under which licences, and what that bought."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..evaluation.distillation_arms import CNN_TEACHER, VIT_TEACHER
from ..evaluation.results import Provenance, ResultEntry
from ..training.distillation_record import RECORD_NAME, DistillationRecord, TeacherRecord
from .card_info import CardError, CardInfo, check_hub_id
from .distillation_results import arm_means, students_table, verdicts
from .escaping import escape_code, escape_markdown


_ROLES = {"vit": ("ViT", VIT_TEACHER), "cnn": ("CNN", CNN_TEACHER)}
_WEIGHTINGS = {
    "discrepancy_aware": "the more, sample by sample, the surer it is and the more the student disagrees with it",
    "uniform": "equally",
    "confidence": "the more, sample by sample, the surer it is",
    "discrepancy": "the more, sample by sample, the more the student disagrees with it",
    "ebkd": "by the entropy of its answers (EBKD)",
    "ca_mkd": "by its loss with the labels (CA-MKD)",
}


def find_distillation(model_or_path, model) -> DistillationRecord | None:
    """The record that a distillation left beside a checkpoint, None where there is none.

    Args:
        model_or_path: what is staged; a folder, an id or a model.
        model: the opened model.
    """
    for source in (model_or_path, getattr(model, "name_or_path", None)):
        if isinstance(source, (str, os.PathLike)) and source and Path(source, RECORD_NAME).is_file():
            return DistillationRecord.load(source)
    return None


def save_distillation(record: DistillationRecord, folder: Path) -> None:
    """Writes the record into a checkpoint folder, without the paths of this machine."""
    teachers = tuple(replace(teacher, name=_published_name(teacher.name)) for teacher in record.teachers)
    replace(record, teachers=teachers).save(folder)


def with_teachers(info: CardInfo, record: DistillationRecord) -> CardInfo:
    """The publisher's fields, completed: command and commit of the distillation where the publisher names no others.

    The licence is not carried over: no weight of a teacher is in the student. What the section says of the teachers' licences stands beside it.
    """
    return replace(
        info,
        training_command=info.training_command or record.provenance.get("command"),
        training_commit=info.training_commit or record.provenance.get("commit"),
    )


def distillation_section(record: DistillationRecord | None, entries: Sequence[ResultEntry] = ()) -> str | None:
    """Markdown of the section; None without a record.

    Args:
        record: who taught the student.
        entries: results, of which the arms of a distillation study become the ablation.
    """
    if record is None:
        return None
    many = "two teachers" if len(record.teachers) > 1 else "a teacher"
    lines = [
        "## Distilled",
        "",
        f"It learned from {many} beside the labels. Nothing of that is in it: the same graph as of a student that learned alone, the same cost, "
        "and no weight of a teacher.",
        "",
        "| teacher | model | architecture | parameters | licence of its weights | top-1 on the same videos |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_teacher_row(teacher, entries) for teacher in record.teachers),
        "",
        _licences(record),
        "",
        _how(record),
    ]
    table = students_table(entries)
    if table:
        lines += ["", "What it bought:", "", table, "", " ".join(verdicts(entries))]
        origin = arm_means(entries)[-1].provenance
        lines += [
            "",
            f"Intervals resample videos, not seeds. Measured with {escape_code(origin.command)}, commit "
            f"{escape_code(origin.commit or 'not recorded')}, {escape_markdown(origin.date)}.",
        ]
    return "\n".join(lines).rstrip()


def _teacher_row(teacher: TeacherRecord, entries) -> str:
    role, arm = _ROLES.get(teacher.role, (teacher.role, None))
    found = next((entry for entry in arm_means(entries) if entry.protocol["arm"] == arm), None)
    value = "not measured"
    if found is not None:
        top1 = found.metrics[0]
        value = f"{top1.value:.1%} [{top1.interval[0]:.1%}, {top1.interval[1]:.1%}]"
    parameters = f"{teacher.parameters:,}" if teacher.parameters else "not recorded"
    cells = (
        escape_markdown(role),
        _link(teacher.name),
        escape_code(teacher.model_type or "not recorded"),
        parameters,
        escape_markdown(teacher.license or "not stated"),
        value,
    )
    return f"| {' | '.join(cells)} |"


def _published_name(name: str) -> str:
    """A Hub id as it is; of a folder one word, so that nobody takes it for a repository."""
    place = Path(name)
    if place.is_absolute() or place.is_dir() or len(place.parts) > 2:
        return place.parent.name if place.name == "model" else place.name
    return name


def _link(name: str) -> str:
    name = _published_name(name)
    try:
        check_hub_id(name)
    except CardError:
        return escape_code(name)
    return f"[`{name}`](https://huggingface.co/{name})" if "/" in name else escape_code(name)


def _licences(record) -> str:
    stated = {teacher.license for teacher in record.teachers if teacher.license not in (None, "unknown")}
    silent = [teacher for teacher in record.teachers if teacher.license in (None, "unknown")]
    lines = []
    limited = sorted(licence for licence in stated if "-nc" in licence.lower())
    if limited:
        lines.append(
            f"A teacher is under {' and '.join(map(escape_markdown, limited))}, which excludes commercial use. Whether such terms reach a model that learned "
            "from its answers is not settled: ask its authors before you use this one commercially."
        )
    if silent:
        lines.append("A teacher's card states no licence: ask its authors before you rely on this model.")
    if not lines:
        lines.append("The licences of the teachers' weights are theirs; that of this model is below.")
    return " ".join(lines)


def _how(record) -> str:
    settings = record.settings
    told = []
    if settings.get("kd_weight", 0) > 0:
        together = len(record.teachers) > 1
        counts = f", each counting {_WEIGHTINGS.get(settings.get('weighting'), 'by a weight')}" if together else ""
        told.append(f"the class scores of {'both' if together else 'the teacher'}{counts}")
    if settings.get("residual_weight", 0) > 0 and settings.get("residual", "none") != "none":
        what = (
            "what the ViT sees and the CNN does not" if settings["residual"] == "discrepancy" else "the ViT's features"
        )
        told.append(f"{what}, by a branch that is dropped after training")
    if settings.get("relation_weight", 0) > 0:
        told.append("distances and angles between the clips of a batch")
    if settings.get("feature_loss", "none") != "none":
        told.append(f"features of the teachers ({escape_markdown(settings['feature_loss'])})")
    origin = Provenance(**record.provenance) if record.provenance.get("command") else None
    made = f" Made with {escape_code(origin.command)}." if origin else ""
    views = record.data.get("views")
    existed = "One view of every clip existed" if views == 1 else f"{views} random views of every clip existed"
    seen = f" {existed}, so that each teacher looked at them once." if views else ""
    return f"The teachers taught: {'; '.join(told) or 'nothing'} (`{RECORD_NAME}` holds all settings).{seen}{made}"
