"""Public names of a package that are imported when they are first used, so that importing the package costs nothing."""

import importlib
import sys
from collections.abc import Callable, Mapping


def lazy_names(package: str, modules: Mapping[str, str]) -> tuple[list[str], Callable, Callable]:
    """`__all__`, `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: its `__name__`.
        modules: public name -> module that defines it, relative to the package.
    """
    namespace = vars(sys.modules[package])

    def get(name):
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f".{modules[name]}", package), name)
        namespace[name] = value  # asked for once
        return value

    return list(modules), get, lambda: sorted({*namespace, *modules})
