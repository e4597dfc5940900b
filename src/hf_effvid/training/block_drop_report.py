"""What a compression run leaves for people: the record, the table, the picture, and for detectors what goes wrong before and after."""

import shutil
from dataclasses import replace
from pathlib import Path

from ..evaluation.block_drop_chart import plot_block_drop
from ..evaluation.detection_charts import plot_errors
from ..evaluation.detection_error_change import plot_error_change
from ..evaluation.detection_errors import analyze_detections
from .block_drop_outcome import OUTCOME_NAME


CHART_NAME, ERRORS_FOLDER = "block_drop", "errors"


def write_report(outcome, answers=None):
    """Writes `compression.json` and `compression.md`, the picture, and `errors/` of a detector; the record goes into the model's folder too.

    Args:
        outcome: a `CompressionOutcome`.
        answers: `WindowAnswers` of the uncompressed and of the compressed detector on the held-out videos; None for a classifier.

    Returns:
        The outcome, with `errors` where there are any.
    """
    folder = Path(outcome.folder)
    title = f"{Path(outcome.source).name} on {outcome.data['name']}, {outcome.steps[0].after.n} held-out videos"
    plot_block_drop(outcome.rows(), outcome.metric, folder / CHART_NAME, title)
    if answers is not None:
        found = {}
        for name, one in zip(("before", "after"), answers, strict=True):
            one.report.model_name, one.report.dataset_name, one.report.split = name, outcome.data["name"], "held out"
            found[name] = analyze_detections(one.report)
            plot_errors(found[name], folder / ERRORS_FOLDER / name)
        plot_error_change(found["before"], found["after"], folder / ERRORS_FOLDER / "change", title)
        outcome = replace(outcome, errors={name: one.to_dict() for name, one in found.items()})
    outcome.save()
    shutil.copy(folder / OUTCOME_NAME, Path(outcome.model_dir) / OUTCOME_NAME)
    return outcome
