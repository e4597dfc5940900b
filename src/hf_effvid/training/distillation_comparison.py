"""Does the student exceed its teachers? All of them on the same validation clips, each as its own recipe says, with paired differences."""

from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..compression.teachers import Teacher
from ..data import label_names
from ..evaluation.classification import evaluate_classifier
from ..evaluation.intervals import paired_bootstrap_difference, wilson_interval
from .arguments import EffVidTrainingArguments
from .block_drop_outcome import write_json
from .data_splits import training_splits
from .distillation_settings import ROLES, DistillationError


COMPARISON_NAME = "comparison.json"
DEFAULT_SEED = EffVidTrainingArguments.__dataclass_fields__["seed"].default


@dataclass(frozen=True)
class ComparedModel:
    """The student or a teacher on the clips that all of them could read.

    Attributes:
        role: "student", "vit" or "cnn".
        name: folder or Hub id.
        top1: share of right answers.
        interval: of it, Wilson, 95 %.
        parameters, gmacs: of the model, and of one view; gmacs None where they cannot be counted.
        views: views per clip.
        difference, difference_interval: of a teacher: the student's top-1 less its own, a paired bootstrap over clips, 95 %.
    """

    role: str
    name: str
    top1: float
    interval: tuple[float, float]
    parameters: int
    gmacs: float | None
    views: int
    difference: float | None = None
    difference_interval: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """Of a teacher: whether the student exceeds it, as far as the clips can tell."""
        low, high = self.difference_interval
        if low > 0:
            return "the student exceeds it"
        return "the student stays below it" if high < 0 else "they cannot be told apart"


@dataclass(frozen=True)
class StudentComparison:
    """Student and teachers.

    Attributes:
        n: clips that all could read.
        held_out: whether they were split off the training clips.
        student, teachers: the models.
    """

    n: int
    held_out: bool
    student: ComparedModel
    teachers: tuple[ComparedModel, ...]

    def to_dict(self) -> dict:
        """Plain values, for JSON; with a `verdict` for every teacher."""
        document = asdict(self)
        document["teachers"] = [asdict(teacher) | {"verdict": teacher.verdict} for teacher in self.teachers]
        return document

    def save(self, folder) -> Path:
        """Writes `comparison.json` into the folder of a run."""
        write_json(Path(folder, COMPARISON_NAME), self.to_dict())
        return Path(folder, COMPARISON_NAME)

    def to_text(self) -> str:
        """For a terminal."""
        where = "held out of the training split" if self.held_out else "of the validation split"
        lines = [f"{self.n} clips {where}, top-1:", f"  {_line(self.student)}"]
        for teacher in self.teachers:
            low, high = teacher.difference_interval
            lines.append(f"  {_line(teacher)}")
            lines.append(
                f"    student less teacher {100 * teacher.difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]: "
                f"{teacher.verdict}"
            )
        return "\n".join(lines)


def compare_with_teachers(
    student,
    data,
    *,
    teacher_vit=None,
    teacher_cnn=None,
    validation_share=0.2,
    seed=DEFAULT_SEED,
    label_map=None,
    batch_size=4,
    device=None,
    trust_remote_code=False,
    progress=True,
    **load_kwargs,
) -> StudentComparison:
    """Measures a distilled student and its teachers on the clips that its run was validated on.

    A checkpoint that was chosen on these clips has an advantage on them: final numbers come from a test split.

    Args:
        student: the model's folder.
        data, teacher_vit, teacher_cnn, validation_share, label_map, trust_remote_code, load_kwargs: those of `distill_classifier`.
        seed: that of the run, which chose the clips that are held out.
        batch_size: views per forward pass.
        device: torch device; default: a GPU if there is one.
        progress: show a progress bar.

    Raises:
        DistillationError: no teacher, no validation clips, or none that all models could read.
        ValueError: a model, the data or the classes do not fit.
    """
    rows = training_splits(data, validation_share, seed, load_kwargs)
    if rows.validation is None:
        raise DistillationError(
            "There are no validation clips to compare on: add a validation split, or hold out a share of the training clips "
            f"(validation_share, now {validation_share})."
        )
    sources = {
        role: source for role, source in zip(ROLES, (teacher_vit, teacher_cnn), strict=True) if source is not None
    }
    if not sources:
        raise DistillationError("There is no teacher to compare with: give teacher_vit, teacher_cnn or both.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    options = {"batch_size": batch_size, "device": device, "progress": progress, "split": "validation"}
    options |= {"trust_remote_code": trust_remote_code}
    reports = {"student": evaluate_classifier(student, rows.validation, **options)}
    names = {"student": str(student)}
    for role, source in sources.items():
        opened = {"label_map": label_map, "trust_remote_code": trust_remote_code}
        teacher = Teacher.open(source, role, label_names(rows.train), **opened)
        names[role] = teacher.name
        with _renamed(teacher.model, label_map):
            reports[role] = evaluate_classifier(teacher.model, rows.validation, teacher.processor, **options)
    return _compared(reports, names, rows.held_out)


@contextmanager
def _renamed(model, label_map):
    """A teacher under the class names of the data set."""
    before = model.config.id2label
    model.config.id2label = {number: (label_map or {}).get(name, name) for number, name in before.items()}
    try:
        yield
    finally:
        model.config.id2label = before


def _compared(reports, names, held_out) -> StudentComparison:
    """Of every report the clips that all of them have."""
    right = {
        role: {video.index: bool(hit) for video, hit in zip(report.evaluated, report.correct, strict=True)}
        for role, report in reports.items()
    }
    shared = sorted(set.intersection(*(set(hits) for hits in right.values())))
    if not shared:
        raise DistillationError("There is no validation clip that student and teachers could all read.")
    hits = {role: [answers[index] for index in shared] for role, answers in right.items()}
    models = {role: _model(role, names[role], reports[role], hits[role], hits["student"]) for role in reports}
    student = models.pop("student")
    return StudentComparison(len(shared), held_out, student, tuple(models.values()))


def _model(role, name, report, hits, student_hits) -> ComparedModel:
    paired = {}
    if role != "student":
        found = paired_bootstrap_difference(student_hits, hits)
        paired = {"difference": found["difference"], "difference_interval": tuple(found["interval"])}
    return ComparedModel(
        role=role,
        name=name,
        top1=sum(hits) / len(hits),
        interval=wilson_interval(sum(hits), len(hits)),
        parameters=report.cost.parameters,
        gmacs=report.cost.gmacs,
        views=max(video.num_views for video in report.evaluated),
        **paired,
    )


def _line(model: ComparedModel) -> str:
    title = model.role if model.role == "student" else f"{model.role} teacher"
    macs = "" if model.gmacs is None else f", {model.gmacs:.4g} GMACs per view"
    views = f", {model.views} views" if model.views > 1 else ""
    low, high = (100 * end for end in model.interval)
    return (
        f"{title} {model.name}: {100 * model.top1:.1f} % [{low:.1f}, {high:.1f}], {model.parameters / 1e6:.3f} M "
        f"parameters{macs}{views}"
    )
