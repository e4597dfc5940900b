"""Label names that a mirror turns into each other: with them, horizontal flips teach the wrong thing."""

import re
from collections.abc import Sequence


# Longer spellings first: "counter clockwise" contains "clockwise".
_TURNS = (
    (re.compile(r"\b(?:counter|anti|contra)[ ]?clockwise|\bccw\b|\bacw\b"), "<turn-b>"),
    (re.compile(r"\bclockwise|\bcw\b"), "<turn-a>"),
)
_SIDES = (
    (re.compile(r"\bleft(?=\b|wards?\b|ward\b|hand|side|arm|foot|leg|turn|most)|\bl\b|\blhs\b"), "<side-a>"),
    (re.compile(r"\bright(?=\b|wards?\b|ward\b|hand|side|arm|foot|leg|turn|most)|\br\b|\brhs\b"), "<side-b>"),
)
_MIRRORED = {"<turn-a>": "<turn-b>", "<turn-b>": "<turn-a>", "<side-a>": "<side-b>", "<side-b>": "<side-a>"}


def labels_forbid_flips(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Find pairs of labels that a horizontal flip turns into each other.

    Left and right, and clockwise and counter-clockwise, in English label names in whatever spelling: ``move_left`` /
    ``move_right``, ``TurnLeft`` / ``TurnRight``, ``from left to right`` / ``from right to left``, ``cw`` / ``ccw``. A label
    whose mirrored partner is not among the labels is no pair.

    Returns:
        The pairs in the order of the labels; empty when flips are safe as far as names can tell.
    """
    by_key = {}
    for label in labels:
        by_key.setdefault(_key(str(label)), str(label))
    pairs = []
    for label in labels:
        key = _key(str(label))
        mirrored = re.sub("|".join(_MIRRORED), lambda match: _MIRRORED[match[0]], key)
        partner = by_key.get(mirrored)
        if mirrored != key and partner is not None and (partner, str(label)) not in pairs:
            pairs.append((str(label), partner))
    return pairs


def _key(label: str) -> str:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label)  # TurnLeft -> Turn Left
    words = " ".join(re.findall(r"[^\W_]+", spaced.lower()))
    for pattern, token in (*_TURNS, *_SIDES):
        words = pattern.sub(token, words)
    return words
