"""Scores of whole videos by a classifier, in the files that ActivityNet's detectors take their classes from."""

import json
import os
from pathlib import Path


def read_video_scores(path: str | os.PathLike) -> dict[str, dict[str, float]]:
    """Probabilities of the classes of every video.

    Args:
        path: JSON: `{"class": [name, ...], "results": {video: [probability, ...]}}`, as the scores of CUHK's classifier come, or
            `{video: {label: probability}}`.

    Returns:
        `{video: {label: probability}}`.

    Raises:
        ValueError: neither of the two, or values that are no probabilities.
    """
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object of videos, found {str(content)[:60]}.")
    names = content.get("class")
    if isinstance(names, list) and isinstance(content.get("results"), dict):
        content = {video: dict(zip(names, values, strict=True)) for video, values in content["results"].items()}
    for video, scores in content.items():
        numbers = scores.values() if isinstance(scores, dict) else [None]
        if not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in numbers):
            raise ValueError(
                f"{path}, video {video[:60]!r}: expected {{label: probability}}, found {str(scores)[:60]}."
            )
    return content
