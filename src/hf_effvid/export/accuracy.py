"""What a change of format or of number type costs in accuracy, on videos with labels."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..evaluation.classification import evaluate_classifier
from ..evaluation.classification_report import ClassificationReport
from ..evaluation.intervals import paired_bootstrap_difference
from ..evaluation.results import Cost, Metric, ResultEntry
from .errors import ExportError
from .opening import open_subject
from .report import ORIGINAL, ExportedFile, ExportReport
from .runtime import load_exported


# what tables of results look for in a comparison of two models
DIFFERENCE = "top1 difference, A minus B"


@dataclass(frozen=True)
class VariantAccuracy:
    """Accuracy of one exported file, and how it differs from the model's on the same videos.

    Attributes:
        row: the file.
        report: its accuracy.
        difference: top-1 of the file minus that of the model, with the interval of the paired bootstrap; None for
            multi-label models.
        agreement: share of videos with the same answer.
    """

    row: ExportedFile
    report: ClassificationReport
    difference: Metric | None
    agreement: Metric


@dataclass(frozen=True)
class AccuracyReport:
    """Accuracy of a model and of its exported files on the same videos.

    Attributes:
        export: what was exported.
        original: the model's own accuracy, in PyTorch.
        variants: one per file.
    """

    export: ExportReport
    original: ClassificationReport
    variants: tuple[VariantAccuracy, ...]

    def to_text(self) -> str:
        """A few lines for the terminal."""
        names = [metric.name for metric in self.original.metrics]
        lines = [f"{self.original.dataset_name} ({self.original.split}), n = {self.original.n}"]
        lines.append(f"  {ORIGINAL:<22}" + _values(self.original, names))
        for variant in self.variants:
            line = f"  {variant.row.variant:<22}" + _values(variant.report, names)
            if variant.difference is not None:
                low, high = variant.difference.interval
                line += f"   {100 * variant.difference.value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
            same = round(variant.agreement.value * variant.agreement.n)
            lines.append(f"{line}   same answer on {same} of {variant.agreement.n}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {"results": [entry.to_dict() for entry in self.to_result_entries()]}

    def to_result_entries(self, variant: str = "") -> list[ResultEntry]:
        """Per file its accuracy, and its paired difference to the model, in the one results format.

        Args:
            variant: what distinguishes this run besides, put in front of the name of each file.
        """
        prefix = f"{variant}, " if variant else ""
        return [entry for measured in self.variants for entry in self._entries(measured, prefix)]

    def _entries(self, measured: VariantAccuracy, prefix: str) -> list[ResultEntry]:
        row = measured.row
        entry = measured.report.to_result_entry(variant=prefix + row.variant)
        entry = replace(entry, provenance=replace(entry.provenance, dtype=_number_type(row.variant)))
        # operations and parameters cannot be read from a file; they are the model's, times are the export's to tell
        entries = [replace(entry, cost=self.original.cost)]
        if measured.difference is not None:
            metrics = (measured.difference, measured.agreement)
            entries.append(
                replace(
                    entry,
                    variant=f"{prefix}{row.variant} against PyTorch float32",
                    metrics=metrics,
                    cost=Cost(),
                )
            )
        return entries


def measure_accuracy(
    export: ExportReport,
    model,
    dataset,
    processor=None,
    *,
    variants: Iterable[str] | None = None,
    model_name: str | None = None,
    trust_remote_code: bool = False,
    **options,
) -> AccuracyReport:
    """Evaluates a model and what was exported of it on the same videos.

    Args:
        export: what `export_model` gave.
        model: the model, or a folder or Hub id of it.
        dataset: rows with videos and labels, as `evaluate_classifier` takes them.
        processor: the model's processor; default: the one saved with it.
        variants: names of the files to evaluate, such as `"ONNX int8 dynamic"`; default: every file.
        model_name: name of the checkpoint in the results; default: that of its folder.
        trust_remote_code: run model code that comes with the checkpoint.
        **options: further arguments of `evaluate_classifier`.

    Returns:
        The report.

    Raises:
        ExportError: the folder of the export is gone, or no video was evaluated by both.
        LabelMismatchError, NothingEvaluatedError, VideoError, TypeError, ValueError: as `evaluate_classifier`.
    """
    subject = open_subject(model, processor, trust_remote_code)
    original = evaluate_classifier(subject.model, dataset, subject.processor, **options, device="cpu")
    original.model_name = model_name or subject.name
    wanted = None if variants is None else set(variants)
    measured = []
    for row in export.files:
        if wanted is not None and row.variant not in wanted:
            continue
        exported = load_exported(export.folder, row.variant, export.num_threads)
        report = evaluate_classifier(exported, dataset, subject.processor, **options, device="cpu")
        report.model_name = original.model_name
        measured.append(_compared(row, report, original))
    return AccuracyReport(export, original, tuple(measured))


def _compared(row: ExportedFile, report: ClassificationReport, original: ClassificationReport) -> VariantAccuracy:
    """A file beside its model, on the videos that both could evaluate: a busy machine may time one out in one of the two."""
    ours, theirs = _rows_of_both(report, original)
    if report.multi_label:
        same = int(((report.scores[ours] > 0.5) == (original.scores[theirs] > 0.5)).all(axis=1).sum())
        return VariantAccuracy(row, report, None, Metric.proportion("same_answer", same, len(ours)))
    same = int((report.scores[ours].argmax(axis=1) == original.scores[theirs].argmax(axis=1)).sum())
    paired = paired_bootstrap_difference(report.correct[ours], original.correct[theirs])
    difference = Metric(
        DIFFERENCE, paired["difference"], paired["n"], tuple(paired["interval"]), "paired bootstrap over videos 95%"
    )
    return VariantAccuracy(row, report, difference, Metric.proportion("same_answer", same, len(ours)))


def _rows_of_both(report: ClassificationReport, original: ClassificationReport) -> tuple[list[int], list[int]]:
    """Where in either report the videos stand that both evaluated."""
    ours = {prediction.index: row for row, prediction in enumerate(report.evaluated)}
    theirs = {prediction.index: row for row, prediction in enumerate(original.evaluated)}
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise ExportError("the model and the exported file could not evaluate one video in common.")
    return [ours[index] for index in common], [theirs[index] for index in common]


def _values(report: ClassificationReport, names: list[str]) -> str:
    return "".join(f"{name} {report.metric(name).value:6.1%}   " for name in names).rstrip()


def _number_type(variant: str) -> str:
    return variant.split(" ", 1)[1]
