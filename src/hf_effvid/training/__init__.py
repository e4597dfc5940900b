"""Training: tasks, a `transformers.Trainer` subclass with one variation point, and `train_classifier`."""

from .arguments import EffVidTrainingArguments
from .checkpointing import IncompleteCheckpointError, last_complete_checkpoint
from .nonfinite import NonFiniteError
from .tasks import ClassificationTask, Task
from .trainer import EffVidTrainer


__all__ = [
    "ClassificationTask",
    "EffVidTrainer",
    "EffVidTrainingArguments",
    "IncompleteCheckpointError",
    "NonFiniteError",
    "Task",
    "last_complete_checkpoint",
]
