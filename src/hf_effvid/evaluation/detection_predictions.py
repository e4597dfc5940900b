"""Detections as ActivityNet's results files have them."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path


def as_predictions(detections: Mapping, id2label: Mapping[int, str]) -> list[dict]:
    """The detections of one video as entries of a results file.

    Args:
        detections: "segments" (K, 2) in seconds, "scores" (K,), "labels" (K,), as the processor gives them.
        id2label: class names by number.

    Returns:
        `[{"label", "score", "segment": [start, end]}]`; segments without a finite end are left out.
    """
    columns = (detections[name].tolist() for name in ("segments", "scores", "labels"))
    return [
        {"label": id2label[label], "score": score, "segment": segment}
        for segment, score, label in zip(*columns, strict=True)
        if all(math.isfinite(value) for value in segment)
    ]


def save_predictions(path: str | os.PathLike, predictions: Mapping[str, list[dict]], external: Mapping | None = None):
    """Write a results file.

    Args:
        path: where to.
        predictions: entries of `as_predictions` by video.
        external: what the file says of how they came about.
    """
    document = {"version": "VERSION 1.3", "results": dict(predictions), "external_data": dict(external or {})}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
