"""Publishing: stage a checkpoint, verify it from the outside, push it in one commit."""

from ..lazy_names import lazy_names


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

__all__, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
