"""What a compression run hands back and keeps: one record per step, on disk after each, for people (`summary`) and programs (`to_dict`)."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ..evaluation.block_drop_chart import StepRow, markdown_table
from .block_drop_errors import BlockDropError
from .block_drop_measuring import Measured


OUTCOME_NAME, TABLE_NAME = "compression.json", "compression.md"
START, DROP, PRUNE, RELU = "start", "drop", "prune", "relu"
_VERSION = 1


@dataclass(frozen=True)
class CompressionStep:
    """One step.

    Attributes:
        step: 0 is the uncompressed model.
        kind: `start`, `drop`, `prune` (narrower MLPs), or `relu` (the activation replaced).
        dropped: original indices of the blocks that this step took.
        kept: original indices of those that are left.
        scores: original index -> what the model was worth on the scoring part without that block (of criterion `discrepancy`: the
            negative difference of its input and output); empty where nothing was scored.
        full_score: the same with all blocks, None where it was not measured.
        before: on the held-out part, before recovery; None for step 0.
        after: after it, the model that this step saved.
        parameters: of the model.
        gmacs: multiply-accumulates of one input in units of 1e9; None where they cannot be counted.
        milliseconds: median time of one input on this machine: that of the uncompressed model, for all others over `speedup`; None
            where nothing was timed.
        speedup: median over rounds of the uncompressed model's time divided by this one's, in turns.
        speedup_interval: around it.
        trainable: parameters that recovery trained.
        train_steps: optimiser steps of the recovery.
        seconds: `score`, `recover`, `evaluate`, `measure`: wall time of each.
        activation_sparsity: share of zeros behind the activation, of a `relu` step: `{"before": ..., "after": ...}`.
        previous: the step that it started from; None for step 0.
        model: folder of the model, relative to that of the run.
    """

    step: int
    kind: str
    dropped: tuple[int, ...]
    kept: tuple[int, ...]
    after: Measured
    before: Measured | None = None
    scores: dict = field(default_factory=dict)
    full_score: float | None = None
    parameters: int | None = None
    gmacs: float | None = None
    milliseconds: float | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None
    trainable: int = 0
    train_steps: int = 0
    seconds: dict = field(default_factory=dict)
    activation_sparsity: dict | None = None
    previous: int | None = None
    model: str = ""

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        document = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        document["scores"] = {str(block): value for block, value in self.scores.items()}
        for name in ("before", "after"):
            measured = getattr(self, name)
            document[name] = None if measured is None else measured.to_dict()
        return document

    @classmethod
    def from_dict(cls, document: dict) -> "CompressionStep":
        """The inverse of `to_dict`."""
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
        values["scores"] = {int(block): value for block, value in document["scores"].items()}
        for name in ("before", "after"):
            values[name] = None if document[name] is None else Measured.from_dict(document[name])
        return cls(**values)


@dataclass(frozen=True)
class CompressionOutcome:
    """Result of `progressive_block_drop`.

    Attributes:
        folder: of the run.
        model_type: of the model.
        source: what it was opened from.
        weights: SHA-256 of the uncompressed weights.
        depth: blocks that the uncompressed model has in the part that was compressed.
        settings: what the run was told.
        training: arguments of a recovery, those that differ from their defaults.
        data: name and sizes of the parts, and where the held-out one comes from.
        metric: what steps are judged by.
        steps: one record per step, the uncompressed model first.
        final: the step whose model is the result.
        stopped: why no further step was taken.
        errors: of detectors, what went wrong before and after (`DetectionErrors.to_dict`); None otherwise.
        provenance: command, commit, seed, hardware, versions.
    """

    folder: str
    model_type: str
    source: str
    weights: str
    depth: int
    settings: dict
    training: dict
    data: dict
    metric: str
    steps: tuple[CompressionStep, ...]
    final: int
    stopped: str
    errors: dict | None = None
    provenance: dict = field(default_factory=dict)

    @property
    def model_dir(self) -> str:
        """The compressed model, a Hub folder."""
        return str(Path(self.folder) / "model")

    @property
    def final_step(self) -> CompressionStep:
        """The record of the model that is the result."""
        return self.steps[self.final]

    def within(self, margin: float) -> list[int]:
        """Steps whose model is at most `margin` (a fraction) below the uncompressed one."""
        return [step.step for step in self.steps[1:] if step.after.difference >= -margin]

    def rows(self) -> list[StepRow]:
        """The steps as the table and the picture take them."""
        return [_row(step, len(self.steps[0].kept)) for step in self.steps]

    def table(self) -> str:
        """One line per step, as Markdown."""
        return markdown_table(self.rows(), self.metric)

    def summary(self) -> str:
        """A few lines for the terminal."""
        first, last = self.steps[0], self.final_step
        left, n = len(last.kept), last.after.n
        gone = [block for step in self.steps[1 : self.final + 1] for block in step.dropped]
        names = ", ".join(map(str, gone)) or "none"
        lines = [self.table(), "", f"{left} of {self.depth} blocks are left, dropped: {names}; {self.stopped}"]
        if self.final:
            low, high = last.after.difference_interval
            lines.append(
                f"{self.metric} {first.after.value:.4f} -> {last.after.value:.4f} on {n} held-out videos ({last.after.difference:+.4f} "
                f"[{low:+.4f}, {high:+.4f}])"
            )
        lines.append(f"model: {self.model_dir}")
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        document = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("folder", "steps")}
        return {"version": _VERSION, **document, "steps": [step.to_dict() for step in self.steps]}

    def save(self, folder=None) -> Path:
        """Writes `compression.json` and `compression.md`."""
        folder = Path(folder or self.folder)
        write_json(folder / OUTCOME_NAME, self.to_dict())
        (folder / TABLE_NAME).write_text(f"{self.table()}\n", encoding="utf-8")
        return folder / OUTCOME_NAME

    @classmethod
    def load(cls, folder) -> "CompressionOutcome":
        """The record of a run, from its folder or that of its model.

        Raises:
            BlockDropError: there is none, or it is none of this version.
        """
        path = Path(folder) / OUTCOME_NAME
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BlockDropError(f"{path}: no record of a compression ({error}).") from error
        if document.pop("version", None) != _VERSION:
            raise BlockDropError(f"{path}: not the record of a compression, or of another version.")
        steps = tuple(CompressionStep.from_dict(step) for step in document.pop("steps"))
        return cls(folder=str(folder), steps=steps, **document)


def write_json(path, document: dict) -> None:
    """A JSON file that is there whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as handle:
        handle.write(json.dumps(document, indent=1, default=str) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(partial, path)


def _row(step: CompressionStep, num_blocks: int) -> StepRow:
    return StepRow(
        num_dropped=num_blocks - len(step.kept),
        name={START: "none", PRUNE: "narrower MLPs", RELU: "ReLU for GELU"}.get(step.kind)
        or ", ".join(map(str, step.dropped))
        or "none, recovered",
        value=step.after.value,
        interval=step.after.interval,
        before=None if step.before is None else step.before.value,
        difference=step.after.difference,
        difference_interval=step.after.difference_interval,
        n=step.after.n,
        parameters=step.parameters,
        gmacs=step.gmacs,
        milliseconds=step.milliseconds,
        speedup=step.speedup,
        speedup_interval=step.speedup_interval,
    )
