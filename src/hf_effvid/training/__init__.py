"""Training: tasks, a `transformers.Trainer` subclass with one variation point, and `train_classifier`."""

from .alignment_task import AlignmentTask
from .arguments import EffVidTrainingArguments
from .budget_calibration import BudgetCalibration, calibrate_budget
from .budget_evaluation import evaluate_budget
from .budget_measuring import ClipReading
from .checkpointing import IncompleteCheckpointError, last_complete_checkpoint
from .classification import train_classifier
from .detection import train_detector
from .detection_task import DetectionTask
from .distillation import distill_classifier
from .distillation_settings import DistillationError, DistillationSettings
from .dual_teacher_distiller import DualTeacherDistiller
from .modulation_log import ModulationLog
from .nonfinite import NonFiniteError
from .outcome import TrainOutcome
from .selector_task import SelectorTask
from .tasks import ClassificationTask, Task
from .token_selector import SelectorOutcome, train_token_selector
from .trainer import EffVidTrainer


__all__ = [
    "AlignmentTask",
    "BudgetCalibration",
    "ClassificationTask",
    "ClipReading",
    "DetectionTask",
    "DistillationError",
    "DistillationSettings",
    "DualTeacherDistiller",
    "EffVidTrainer",
    "EffVidTrainingArguments",
    "IncompleteCheckpointError",
    "ModulationLog",
    "NonFiniteError",
    "SelectorOutcome",
    "SelectorTask",
    "Task",
    "TrainOutcome",
    "calibrate_budget",
    "distill_classifier",
    "evaluate_budget",
    "last_complete_checkpoint",
    "train_classifier",
    "train_detector",
    "train_token_selector",
]
