"""What a run may set: transformers' `TrainingArguments` with the defaults and the extra fields of video training.

A field is documented by the line under it. Every field of `TrainingArguments` stays available; those repeated here only
change their default.
"""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..models.token_budget import check_keep_ratio
from .schedule import SCHEDULES


LOSSES = ("auto", "cross_entropy", "focal", "logit_adjusted", "bce", "asymmetric")
CLASS_WEIGHTS = ("none", "balanced", "effective_number")
NON_FINITE_POLICIES = ("stop", "skip", "ignore")
_RATES_OF_SCHEDULE = ("min_learning_rate", "warmup_learning_rate", "warmup_epochs", "schedule_epochs")


@dataclass
class EffVidTrainingArguments(TrainingArguments):
    """Arguments of `EffVidTrainer` and `train_classifier`."""

    # ---- changed defaults -------------------------------------------------------------------------------------------
    remove_unused_columns: bool = False
    """Kept off: the data sets yield clips, not columns, and `index` has to reach the evaluation."""
    learning_rate: float = 5e-4
    """Peak learning rate of the head; blocks below it get `layer_decay` powers of it."""
    weight_decay: float = 0.05
    """Decay of matrices and kernels; norms, biases, layer scales and position tables never decay."""
    lr_scheduler_type: str = "cosine"
    """Schedule after the warm-up."""
    warmup_steps: float = 0.1
    """Linear warm-up: a share of all steps when below 1, a number of steps otherwise."""
    logging_steps: float = 10
    """Steps between two log lines."""
    logging_nan_inf_filter: bool = False
    """Kept off: a non-finite loss is dealt with by `non_finite`, not hidden from the logs."""
    eval_strategy: str = "epoch"
    """When to evaluate."""
    save_strategy: str = "epoch"
    """When to write a checkpoint."""
    save_total_limit: int | None = 2
    """Complete checkpoints to keep, the best one and the newest one always among them."""
    load_best_model_at_end: bool = True
    """End with the weights of the best evaluation instead of the last ones."""
    restore_callback_states_from_checkpoint: bool = True
    """Kept on: otherwise a resumed run forgets how long early stopping has been waiting."""

    # ---- learning rates ---------------------------------------------------------------------------------------------
    lr_schedule: str = "transformers"
    """`transformers`: what `lr_scheduler_type` says; `cosine` or `cosine_timm`: between the rates below (see `schedule`)."""
    min_learning_rate: float = 0.0
    """Rate at the end of `cosine` and `cosine_timm`."""
    warmup_learning_rate: float = 0.0
    """Rate at the first step of `cosine` and `cosine_timm`."""
    warmup_epochs: float = 0.0
    """Length of their warm-up in epochs, in place of `warmup_steps`."""
    lr_batch_size: int = 0
    """Total batch that the three rates are meant for: they are multiplied by the run's (clips per step over all devices and accumulated
    batches) over this. 0 takes the rates as they are."""

    lr_factors: dict | None = None
    """Factors on the learning rate of parts of the model, by a name in their parameters' names, such as `{"backbone": 0.1}`; the innermost
    counts."""
    schedule_epochs: float = 0.0
    """Epochs that `cosine` and `cosine_timm` are drawn over, for runs that end before it does; 0: those of the run."""

    # ---- loss and labels --------------------------------------------------------------------------------------------
    loss: str = "auto"
    """`cross_entropy`, `focal`, `logit_adjusted`; multi-label: `bce`, `asymmetric`; `auto` picks by problem type."""
    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes (single-label losses)."""
    focal_gamma: float = 2.0
    """Focusing exponent of `loss="focal"`."""
    logit_adjustment_tau: float = 1.0
    """Strength of the class prior in `loss="logit_adjusted"`."""
    class_weights: str = "none"
    """Weight of each class in the loss: `none`, `balanced` (inverse frequency) or `effective_number`."""
    effective_number_beta: float = 0.999
    """Overlap between samples of one class in `class_weights="effective_number"`."""
    balanced_sampling: bool = False
    """Draw clips (with replacement) so that every class is seen equally often."""

    # ---- augmentation of whole batches ------------------------------------------------------------------------------
    mixup_alpha: float = 0.0
    """Beta parameter of mixup; 0 switches it off."""
    cutmix_alpha: float = 0.0
    """Beta parameter of cutmix; 0 switches it off."""

    # ---- what is trained, and how -----------------------------------------------------------------------------------
    layer_decay: float = 1.0
    """Learning-rate factor from one block to the block below it; 0.75 is usual for pretrained transformers."""
    freeze: list[str] | None = None
    """Parts that stay as they are: `backbone`, or regular expressions searched in parameter names."""
    lora_r: int = 0
    """Rank of LoRA adapters (PEFT); 0 trains the weights themselves."""
    lora_alpha: float | None = None
    """Scale of the adapters, twice the rank when not given."""
    lora_dropout: float = 0.0
    """Dropout before the adapters."""
    lora_targets: list[str] | None = None
    """Name endings of the linear layers that get adapters; None takes every linear layer inside the blocks."""
    random_keep_ratios: list[float] | None = None
    """Shares of tokens: every step keeps one of them, drawn anew, so that one checkpoint serves every budget. A host without token
    selection becomes the Lite model of its kind. Evaluations keep what its configuration says."""
    ema_decay: float = 0.0
    """Decay of the moving average that is evaluated and saved; 0 switches it off."""
    early_stopping_patience: int = 0
    """Evaluations without improvement before training stops; 0 never stops early."""
    non_finite: str = "stop"
    """On a NaN or Inf loss or gradient: `stop` (naming the block), `skip` the batch, or `ignore`."""
    max_skipped_batches: int = 20
    """Non-finite batches in a row that `non_finite="skip"` tolerates."""

    # ---- what is logged ---------------------------------------------------------------------------------------------
    log_modulation: bool = False
    """Log the gates of every focal level and the gradient norm of each branch of a Video-FocalNet (`ModulationLog`)."""

    # ---- evaluation -------------------------------------------------------------------------------------------------
    num_clips: int = field(default=1)
    """Clips per video in the evaluations during training; the final numbers come from `effvid evaluate`."""

    def __post_init__(self):
        _check_choice("loss", self.loss, LOSSES)
        _check_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        _check_choice("class_weights", self.class_weights, CLASS_WEIGHTS)
        _check_choice("non_finite", self.non_finite, NON_FINITE_POLICIES)
        _check_range("label_smoothing", self.label_smoothing, 0.0, 1.0, upper_inclusive=False)
        _check_range("ema_decay", self.ema_decay, 0.0, 1.0, upper_inclusive=False)
        _check_range("effective_number_beta", self.effective_number_beta, 0.0, 1.0, upper_inclusive=False)
        _check_range("layer_decay", self.layer_decay, 0.0, 1.0, lower_inclusive=False)
        for name in (
            "learning_rate",
            "weight_decay",
            "lora_r",
            "early_stopping_patience",
            "mixup_alpha",
            "cutmix_alpha",
            "focal_gamma",
            "min_learning_rate",
            "warmup_learning_rate",
            "warmup_epochs",
            "lr_batch_size",
            "schedule_epochs",
        ):
            _check_range(name, getattr(self, name), 0, float("inf"))
        for name, factor in (self.lr_factors or {}).items():
            _check_range(f"lr_factors.{name}", factor, 0, float("inf"))
        _check_range("num_clips", self.num_clips, 1, float("inf"))
        for ratio in self.random_keep_ratios or ():
            check_keep_ratio("random_keep_ratios", ratio)
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must be False: the batches carry clips and their index, got True.")
        if self.label_smoothing_factor:
            raise ValueError(
                f"label_smoothing_factor={self.label_smoothing_factor} would smooth a second time outside the task; "
                "set label_smoothing instead."
            )
        unused = (
            [name for name in _RATES_OF_SCHEDULE if getattr(self, name)] if self.lr_schedule == "transformers" else []
        )
        if self.lr_schedule != "transformers" and not self.learning_rate:
            raise ValueError(f"lr_schedule={self.lr_schedule!r} needs a learning_rate above 0, got 0.")
        if unused:
            raise ValueError(
                f"{', '.join(unused)} belong to lr_schedule='cosine' or 'cosine_timm', got 'transformers'."
            )
        if self.eval_strategy == "no":
            # without evaluations there is no best model to go back to
            self.load_best_model_at_end = False
        super().__post_init__()

    @property
    def learning_rate_scale(self) -> float:
        """What the learning rates are multiplied by: 1, or the total batch of a step over `lr_batch_size`."""
        if not self.lr_batch_size:
            return 1.0
        return self.train_batch_size * self.world_size * self.gradient_accumulation_steps / self.lr_batch_size


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def _check_range(name, value, low, high, lower_inclusive=True, upper_inclusive=True):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    above = value >= low if lower_inclusive else value > low
    below = value <= high if upper_inclusive else value < high
    if not (above and below):
        brackets = "[" if lower_inclusive else "(", "]" if upper_inclusive else ")"
        raise ValueError(f"{name} must be in {brackets[0]}{low}, {high}{brackets[1]}, got {value}.")
