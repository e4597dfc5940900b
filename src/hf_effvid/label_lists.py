# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Label lists as published with data sets and checkpoints: lines of "id,name", or JSON."""

import csv
import json
from pathlib import Path


def read_labels(source):
    """Maps class index to name.

    A CSV file has one "id,name" per line. Names may contain commas without quotes (some of Something-Something's do):
    whatever follows the first comma is the name. A header line is skipped. A JSON file holds names to ids, as
    Something-Something's ``labels.json`` does, or a list of names in the order of their ids.

    Args:
        source: Path of the file.

    Returns:
        `{0: name, 1: name, ...}` in the order of the ids.

    Raises:
        ValueError: A line has no id, the JSON is neither of the two, or the ids are not 0 to K - 1, each once.
    """
    path = Path(source)
    labels = {}
    for place, index, name in _json_items(path) if path.suffix.lower() == ".json" else _csv_items(path):
        if index in labels:
            raise ValueError(f"{path}{place}: id {index} was already {labels[index]!r}.")
        labels[index] = name
    if sorted(labels) != list(range(len(labels))) or not labels:
        raise ValueError(
            f"{path}: expected ids 0 to K - 1, each once, got {len(labels)} ids up to {max(labels, default=None)}."
        )
    return {index: labels[index] for index in sorted(labels)}


def _csv_items(path):
    with open(path, newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.reader(file), start=1):
            if not row or (number == 1 and not row[0].strip().isdigit()):  # blank line, header
                continue
            if len(row) < 2 or not row[0].strip().isdigit():
                raise ValueError(f'{path}, line {number}: expected "id,name", got {",".join(row)!r}.')
            yield f", line {number}", int(row[0]), ",".join(row[1:]).strip()


def _json_items(path):
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({type(error).__name__}).") from None
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        content = {name: index for index, name in enumerate(content)}
    if not isinstance(content, dict) or not all(str(index).isdigit() for index in content.values()):
        raise ValueError(f"{path}: expected a list of names, or names to ids, got {str(content)[:80]!r}.")
    for name, index in content.items():
        yield "", int(index), name.strip()
