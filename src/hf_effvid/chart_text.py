"""Text of a stranger (names of models, classes and data sets) made harmless inside a matplotlib picture."""


def plain_text(text: str) -> str:
    """One line. A dollar sign would start a formula, which matplotlib may not even be able to parse."""
    return " ".join(text.replace("$", r"\$").split())
