# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Labels by name, as people say them, to classes by number, as the detector counts them: thresholds and scores of whole videos."""

from collections.abc import Mapping

import torch


OPERATING_POINTS = "operating_points"


def label_names(config):
    """{class number: name}; keys are strings where someone set `config.id2label` to what a JSON file holds."""
    return {int(index): name for index, name in config.id2label.items()}


def check_threshold(threshold, config):
    """Refuses thresholds that are no scores, or that name labels which the detector does not have.

    Args:
        threshold: a number, {label: number}, or "operating_points".
        config: of the detector.

    Raises:
        ValueError: saying what is wrong with it.
    """
    if isinstance(threshold, str):
        if threshold != OPERATING_POINTS:
            raise ValueError(
                f"threshold must be a number, {{label: number}} or {OPERATING_POINTS!r}, got {threshold!r}."
            )
        if config.operating_points is None:
            raise ValueError(
                "this detector has no operating points: pass a threshold, or set config.operating_points."
            )
        return
    numbers = threshold.values() if isinstance(threshold, Mapping) else [threshold]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
            raise ValueError(f"a threshold is a score from 0 to 1, got {number!r}.")


def threshold_per_class(threshold, config, names):
    """What `merge_windows` takes: a number, or {class number: number}.

    Args:
        threshold: see `check_threshold`; None: the operating points, where there are any.
        config: of the detector.
        names: {class number: label} of the detections.

    Raises:
        ValueError: a label that none of them has.
    """
    named = threshold is not None and threshold != OPERATING_POINTS
    if not named:
        threshold = config.operating_points or 0.0
    if not isinstance(threshold, Mapping):
        return threshold
    numbers = {name: number for number, name in names.items()}
    unknown = sorted(str(label) for label in threshold if label not in numbers)
    if unknown and named:
        raise ValueError(f"threshold names {unknown}: the labels are {sorted(numbers)}.")
    return {numbers[label]: score for label, score in threshold.items() if label in numbers}


def scores_of_video(given, config):
    """What a classifier says of one whole video, for `fuse_video_scores`.

    Args:
        given: {label: probability}, [{"label", "score"}, ...] as a video classification pipeline gives it, or probabilities (C,);
            None: nothing.
        config: of the detector. With more than one class labels are its own, and those that are not named have probability 0.

    Returns:
        ({class number: label} of the detections to come, probabilities (C,) or None).

    Raises:
        ValueError: a label that the detector does not have.
    """
    names = label_names(config)
    if given is None:
        return names, None
    if isinstance(given, (list, tuple)) and given and all(isinstance(entry, Mapping) for entry in given):
        given = {entry["label"]: entry["score"] for entry in given}
    if not isinstance(given, Mapping):
        scores = torch.as_tensor(given, dtype=torch.float64)
        if config.num_labels == 1:  # the classes are the classifier's, and nobody said their names
            names = {}
        elif scores.shape != (config.num_labels,):
            raise ValueError(
                f"expected {config.num_labels} probabilities in video_scores, got shape {tuple(scores.shape)}."
            )
        return names, scores
    if config.num_labels == 1:
        return dict(enumerate(given)), torch.tensor(list(given.values()), dtype=torch.float64)
    unknown = sorted(str(label) for label in given if label not in set(names.values()))
    if unknown:
        raise ValueError(f"video_scores names {unknown}: the labels are {sorted(names.values())}.")
    return names, torch.tensor(
        [float(given.get(names[index], 0.0)) for index in range(len(names))], dtype=torch.float64
    )


__all__ = ["check_threshold", "label_names", "scores_of_video", "threshold_per_class"]
