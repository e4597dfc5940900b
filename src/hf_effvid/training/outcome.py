"""What a training run hands back, for people (`summary`) and programs (`to_dict`)."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainOutcome:
    """Result of `train_classifier`, `train_detector` and `distill_classifier`.

    Attributes:
        model_dir: the final self-contained Hub folder.
        best_checkpoint: checkpoint folder of the best evaluation, None without evaluations.
        adapter_dir: the LoRA adapters alone, None without LoRA.
        metrics: validation metrics of the final model (`loss`, `top1`, ...; `mAP`, `micro_f1`; `average_mAP`), empty without
            validation.
        train_loss: mean training loss over the run.
        steps: optimiser steps taken.
        epochs: passes over the training set.
        seconds: wall time of this call's training.
        class_names: classes in the order of the labels.
        num_train: training clips.
        num_validation: validation clips.
        num_parameters: parameters of the model, adapters included.
        num_trainable: parameters that were trained.
        skipped: unreadable files that were left out, with the reason.
        held_out: whether the validation clips were split off the training set because there was no validation split.
        items: what the data sets hold: `clips`, or `windows` of long videos.
        history: log lines of the run.
        distillation: of a student: its teachers (name, licence, classes), the settings and the terms that were computed; None: trained alone.
    """

    model_dir: str
    best_checkpoint: str | None
    adapter_dir: str | None
    metrics: dict
    train_loss: float
    steps: int
    epochs: float
    seconds: float
    class_names: list
    num_train: int | None
    num_validation: int
    num_parameters: int
    num_trainable: int
    skipped: list
    held_out: bool
    history: list
    items: str = "clips"
    distillation: dict | None = None

    def to_dict(self):
        """Plain values, for JSON."""
        return asdict(self)

    def save(self, path):
        """Writes everything, the history included, as JSON."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, default=str) + "\n", encoding="utf-8")

    def summary(self):
        """A few lines for the terminal."""
        clips = f"{self.num_train if self.num_train is not None else 'streamed'} {self.items} of {len(self.class_names)} classes"
        lines = [
            f"trained {self.num_trainable:,} of {self.num_parameters:,} parameters on {clips}: "
            f"{self.steps} steps, {self.epochs:.1f} epochs, {self.seconds:.0f} s, mean loss {self.train_loss:.4f}"
        ]
        if self.distillation and self.distillation["teachers"]:
            teachers = ", ".join(f"{one['name']} ({one['role']})" for one in self.distillation["teachers"])
            lines.append(f"taught by {teachers}: {', '.join(self.distillation['data']['terms'])}")
        if self.metrics:
            split = f"{self.items} held out of the training set" if self.held_out else f"validation {self.items}"
            shown = ", ".join(f"{name} {value:.4f}" for name, value in self.metrics.items())
            lines.append(f"{self.num_validation} {split}: {shown}")
        if self.skipped:
            lines.append(
                f"{len(self.skipped)} unreadable files were left out, the first is {self.skipped[0]['source']}"
            )
        if self.best_checkpoint:
            lines.append(f"best checkpoint: {self.best_checkpoint}")
        lines.append(f"model: {self.model_dir}")
        return "\n".join(lines)
