"""Modules for the `evaluate` library, loaded by path: `evaluate.load(metric_path("topk_accuracy"))`."""

from pathlib import Path


def metric_path(name: str) -> str:
    """Folder of a metric, for `evaluate.load`.

    Raises:
        ValueError: there is no metric of that name; lists those that exist.
    """
    here = Path(__file__).parent
    known = sorted(path.parent.name for path in here.glob("*/*.py") if path.stem == path.parent.name)
    if name not in known:
        raise ValueError(f"there is no metric {name!r}; there are {known}.")
    return str(here / name)
