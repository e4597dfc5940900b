"""What a compression run may be told: which blocks go, in what order, how the model recovers, and when it stops."""

from dataclasses import asdict, dataclass, fields

from .block_drop_errors import BlockDropError


ORDERS = ("progressive", "at_once", "random", "random_at_once")
CRITERIA = ("metric", "loss", "discrepancy")
ALIGNMENT = ("feature", "classification", "boundary")
_CHOICES = {
    "order": ORDERS,
    "criterion": CRITERIA,
    "score_on": ("train", "validation"),
    "tuning": ("lora", "full"),
    "head": ("train", "frozen"),
    "preset": ("paper", "released"),
    "teacher": ("static", "dynamic"),
    "part": ("backbone", "detector"),
}
# A run that is continued may stop elsewhere than it was to stop before: its first steps are the same.
_MAY_CHANGE = ("drop", "target_ms", "target_macs", "margin", "timing_rounds")


@dataclass(frozen=True)
class BlockDropSettings:
    """Settings of `progressive_block_drop`.

    Attributes:
        drop: blocks to drop; None with no other rule to stop by: a quarter of them.
        target_ms: stop when one input takes at most so many milliseconds.
        target_macs: stop when one input takes at most so many multiply-accumulates, in units of 1e9.
        margin: stop when the held-out metric stays lower than before by more than this (a fraction: 0.01 is a point) even after
            recovery; the last model that was within it is the result.
        order: `progressive`: score, drop the least important block, recover, and again; `at_once`: score once, drop all together, recover
            once (with `drop=0` the control: the whole model, recovered); `random` and `random_at_once`: the same with blocks drawn by the seed.
        blocks: original indices to drop instead, in this order.
        criterion: what the importance of a block is taken from: the `metric` without it, the `loss` without it, or the `discrepancy`
            of its input and output.
        score_on: score on the `train` part, or on the held-out `validation` part.
        score_videos: score on so many videos, spread evenly over the part; None: all.
        metric: `top1`; multi-label: `mAP`; detectors: `average_mAP` or `mAP@<overlap>`; None: the first of them that applies.
        recovery: align and train after every drop.
        tuning: train LoRA adapters, norms and patch embedding, or (`full`) all weights.
        rank: of the adapters; None: a quarter of the width.
        head: train the head too, or leave it `frozen`.
        align: which of `feature`, `classification`, `boundary` hold the model to its teacher; None: all that apply; () trains on labels
            alone.
        preset: `paper`, or `released`: what differs in the authors' code (kind of boundary loss, temperature, teacher).
        teacher: `static`: the uncompressed model; `dynamic`: the model before this drop; None: the preset's.
        temperature: of classification alignment; None: the preset's.
        mlp_width: after the last drop, prune the MLPs to so many channels (`prune_channels`, VideoMAE) and recover once more; with `drop=0`
            channels go instead of blocks.
        relu: after that, put ReLU in the place of GELU and recover once more.
        part: of a detector: blocks of its `backbone`, or of the `detector` itself; None: the backbone where there is one.
        timing_rounds: rounds in which the models take turns to be timed; 0 measures no time.
    """

    drop: int | None = None
    target_ms: float | None = None
    target_macs: float | None = None
    margin: float | None = None
    order: str = "progressive"
    blocks: tuple[int, ...] | None = None
    criterion: str = "metric"
    score_on: str = "train"
    score_videos: int | None = None
    metric: str | None = None
    recovery: bool = True
    tuning: str = "lora"
    rank: int | None = None
    head: str = "train"
    align: tuple[str, ...] | None = None
    preset: str = "paper"
    teacher: str | None = None
    temperature: float | None = None
    mlp_width: int | None = None
    relu: bool = False
    part: str | None = None
    timing_rounds: int = 6

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value not in choices and not (value is None and name in ("teacher", "part")):
                raise BlockDropError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
        for name in ("target_ms", "target_macs", "temperature"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise BlockDropError(f"{name} must be a number above 0, got {value!r}.")
        if self.margin is not None and not (_is_number(self.margin) and 0 <= self.margin < 1):
            raise BlockDropError(f"margin is a fraction from 0 to below 1 (0.01: one point), got {self.margin!r}.")
        for name, least in (("drop", 0), ("score_videos", 1), ("rank", 1), ("mlp_width", 1), ("timing_rounds", 0)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and value >= least):
                raise BlockDropError(f"{name} must be a whole number, at least {least}, got {value!r}.")
        self._check_blocks()
        self._check_alignment()
        if self.target_ms is not None and not self.timing_rounds:
            raise BlockDropError("target_ms needs measured times: set timing_rounds above 0.")
        if (self.relu or self.mlp_width) and not self.recovery:
            raise BlockDropError("relu and mlp_width change every block, which needs recovery: leave recovery on.")

    def _check_blocks(self):
        if self.blocks is None:
            return
        blocks = tuple(self.blocks)
        object.__setattr__(self, "blocks", blocks)
        if not blocks or any(isinstance(b, bool) or not isinstance(b, int) or b < 0 for b in blocks):
            raise BlockDropError(f"blocks are indices from 0 on, such as 7,10,6, got {self.blocks!r}.")
        if len(set(blocks)) != len(blocks):
            raise BlockDropError(f"blocks names a block twice: {blocks}.")
        if self.order.startswith("random"):
            raise BlockDropError(
                f"blocks={blocks} says which blocks go, and order={self.order!r} draws them: give one."
            )
        if self.drop is not None and self.drop > len(blocks):
            raise BlockDropError(f"drop={self.drop} is more than the {len(blocks)} blocks that are named.")

    def _check_alignment(self):
        if self.align is None:
            return
        align = tuple(self.align)
        object.__setattr__(self, "align", align)
        unknown = sorted(set(align) - set(ALIGNMENT))
        if unknown:
            raise BlockDropError(f"align: expected some of {', '.join(ALIGNMENT)}, got {', '.join(unknown)}.")

    @classmethod
    def taken_from(
        cls, options: dict, settings: "BlockDropSettings | None" = None
    ) -> "tuple[BlockDropSettings, dict]":
        """Settings, and the options that are none.

        Args:
            options: by name.
            settings: those to use instead.

        Raises:
            BlockDropError: both.
        """
        names = {field.name for field in fields(cls)}
        ours = {name: value for name, value in options.items() if name in names}
        if ours and settings is not None:
            raise BlockDropError(f"{', '.join(sorted(ours))}: give settings, or its fields one by one.")
        return settings or cls(**ours), {name: value for name, value in options.items() if name not in names}

    @property
    def together(self) -> bool:
        """Whether all blocks go in one step."""
        return self.order.endswith("at_once")

    def num_to_drop(self, depth: int) -> int:
        """How many blocks go at most.

        Args:
            depth: blocks of the uncompressed model.

        Raises:
            BlockDropError: none would be left, or a block is named that is not there.
        """
        if self.blocks is not None and max(self.blocks) >= depth:
            raise BlockDropError(f"there is no block {max(self.blocks)}: the model has blocks 0 to {depth - 1}.")
        if self.drop is not None:
            wanted = self.drop
        elif self.blocks is not None:
            wanted = len(self.blocks)
        elif self._stops_elsewhere:
            wanted = depth - 1
        else:
            wanted = max(1, depth // 4)
        if wanted >= depth:
            raise BlockDropError(f"{wanted} of {depth} blocks cannot be dropped: at least one is left.")
        if self.together and self._stops_elsewhere and self.drop is None and self.blocks is None:
            raise BlockDropError(f"order={self.order!r} drops all blocks in one step: say how many with drop.")
        return wanted

    @property
    def _stops_elsewhere(self) -> bool:
        return any(getattr(self, name) is not None for name in ("target_ms", "target_macs", "margin"))

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def difference(self, recorded: dict) -> list[str]:
        """Names of what another run was told otherwise and would have come to other models by.

        Args:
            recorded: `to_dict` of that run.
        """
        ours = self.to_dict()
        names = [field.name for field in fields(self) if field.name not in _MAY_CHANGE]
        if self.together:
            names.append("drop")
        return [name for name in names if ours[name] != recorded.get(name)]


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
