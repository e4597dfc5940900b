"""Publishing: stage a checkpoint, verify it from the outside, push it in one commit."""

import importlib


# resolved on first use: these import transformers
_PUBLIC_NAMES = {
    "CardInfo": "card_info",
    "PushReport": "push",
    "StageError": "stage_files",
    "VerifyReport": "verify",
    "list_staged_files": "stage_files",
    "push_checkpoint": "push",
    "stage_checkpoint": "staging",
    "verify_checkpoint": "verify",
}

__all__ = list(_PUBLIC_NAMES)


def __getattr__(name):
    if name not in _PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC_NAMES[name]}", __name__), name)


def __dir__():
    return sorted({*globals(), *__all__})
