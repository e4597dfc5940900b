"""The score from which a detection of each class is worth showing: where the harmonic mean of precision and recall is best."""

import numpy as np

from .detection import DetectionReport


def choose_operating_points(report: DetectionReport, tiou: float = 0.5) -> dict[str, float]:
    """For every class the lowest score of the best F1 = 2 TP / (predictions + annotations) at one overlap.

    Measure it on validation videos: on those of the test, numbers at these thresholds would flatter.

    Args:
        report: of all detections, also of low scores; `tiou` is among its thresholds.
        tiou: overlap at which a detection is right.

    Returns:
        Thresholds by class name; classes without annotations, or of which nothing was found, are not in it.

    Raises:
        ValueError: the report was not measured at that overlap.
    """
    places = np.flatnonzero(np.isclose(report.tious, tiou))
    if not len(places):
        raise ValueError(f"the report has the overlaps {report.tious}, not {tiou}: evaluate at it, too.")
    hits = report.matches.true_positives()
    scores = report.data.predictions.score[report.matches.order]
    thresholds = {}
    for name, rows, count in report.classes():
        found = np.cumsum(hits[rows, places[0]])
        if not len(found) or found[-1] == 0:
            continue
        ranked = scores[rows]
        f1 = 2 * found / (np.arange(1, len(found) + 1) + count)
        # several predictions of one score stand or fall together
        last_of_score = np.append(ranked[1:] != ranked[:-1], True)
        best = int(np.argmax(np.where(last_of_score, f1, -1.0)))
        thresholds[name] = float(ranked[best])
    return thresholds
