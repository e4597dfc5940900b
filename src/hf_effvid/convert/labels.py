# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Label lists as published with datasets and checkpoints: lines of "id,name"."""

import csv
from pathlib import Path


def read_labels(source):
    """Maps class index to name from a CSV file.

    Names may contain commas without quotes (some of Something-Something's do): whatever follows the first comma is the
    name. A header line is skipped.

    Args:
        source: Path of a file with one "id,name" per line.

    Returns:
        `{0: name, 1: name, ...}` in the order of the ids.

    Raises:
        ValueError: A line has no id, or the ids are not 0 to K - 1, each once.
    """
    path = Path(source)
    labels = {}
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or (number == 1 and not row[0].strip().isdigit()):  # blank line, header
                continue
            if len(row) < 2 or not row[0].strip().isdigit():
                raise ValueError(f'{path}, line {number}: expected "id,name", got {",".join(row)!r}.')
            index = int(row[0])
            if index in labels:
                raise ValueError(f"{path}, line {number}: id {index} was already {labels[index]!r}.")
            labels[index] = ",".join(row[1:]).strip()
    if sorted(labels) != list(range(len(labels))) or not labels:
        raise ValueError(
            f"{path}: expected ids 0 to K - 1, each once, got {len(labels)} ids up to {max(labels, default=None)}."
        )
    return {index: labels[index] for index in sorted(labels)}
