"""The one JSON format of every number this project states: accuracy, cost and where it came from.

`evaluate` and the benchmark write it, model cards and the README read it; no number has a second home.

```json
{"schema_version": 1,
 "results": [{"task": "video-classification", "model": "...", "dataset": "...", "split": "test",
              "metrics": [{"name": "top1", "value": 0.91, "n": 400, "interval": [0.878, 0.934],
                           "interval_method": "wilson 95%"}],
              "cost": {"gmacs": 1.2, "parameters": 1034000}, "protocol": {"num_frames": 8, "num_clips": 3},
              "provenance": {"command": "effvid evaluate ...", "commit": "..."}, "quoted": false}]}
```
"""

import json
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from .intervals import paired_bootstrap_difference, wilson_interval
from .provenance import Provenance, current_provenance


__all__ = [
    "Cost",
    "Metric",
    "Provenance",
    "ResultEntry",
    "ResultsError",
    "ResultsFile",
    "current_provenance",
    "paired_bootstrap_difference",
    "wilson_interval",
]

SCHEMA_VERSION = 1


class ResultsError(ValueError):
    """A result is incomplete, contradictory or not in the format; the message says where and what to do."""


@dataclass(frozen=True)
class Metric:
    """One number.

    Attributes:
        name: `"top1"`, `"top5"`, `"mAP"`, `"micro_f1"`, ...; accuracies are fractions in [0, 1], never per cent.
        value: the number.
        n: number of videos it was measured on; None only for quoted numbers.
        interval: `(low, high)` around the value; None where none exists.
        interval_method: how the interval was made, for example `"wilson 95%"`.
    """

    name: str
    value: float
    n: int | None = None
    interval: tuple[float, float] | None = None
    interval_method: str | None = None

    def __post_init__(self):
        where = f"metric {self.name!r}"
        if not isinstance(self.name, str) or not self.name:
            raise ResultsError(f"a metric needs a name, got {self.name!r}.")
        _expect_number(self.value, f"{where}: value")
        if self.n is not None and (isinstance(self.n, bool) or not isinstance(self.n, int) or self.n <= 0):
            raise ResultsError(f"{where}: n must be a positive number of videos, got {self.n!r}.")
        if self.interval is None:
            return
        object.__setattr__(self, "interval", _checked_interval(self.interval, f"{where}: interval"))
        if not self.interval_method:
            raise ResultsError(f"{where}: an interval needs interval_method, for example 'wilson 95%'.")

    @classmethod
    def proportion(cls, name: str, successes: int, n: int, confidence: float = 0.95) -> "Metric":
        """A share of videos with its Wilson interval."""
        method = f"wilson {confidence:.0%}"
        return cls(name, successes / n, n, wilson_interval(successes, n, confidence), method)


_POSITIVE_COSTS = (
    "gmacs",
    "parameters",
    "latency_ms",
    "latency_p90_ms",
    "throughput_clips_per_s",
    "peak_memory_mb",
    "batch_size",
    "decode_ms",
    "preprocess_ms",
    "num_threads",
    "num_rounds",
    "speedup",
)


@dataclass(frozen=True)
class Cost:
    """What one clip costs; every field is optional, a missing one was not measured.

    Attributes:
        gmacs: multiply-accumulates of one view, in units of 1e9 (what papers usually call GFLOPs).
        parameters: number of parameters.
        latency_ms: median time of one forward pass over a batch, in milliseconds.
        throughput_clips_per_s: clips per second.
        peak_memory_mb: peak memory of the accelerator or process, in MB (1e6 bytes).
        batch_size: clips per batch in the timed runs.
        hardware: what the times were measured on; obligatory with a time.
        dtype: floating-point type of the timed runs; obligatory with a time.
        decode_included: whether the time includes reading the video; obligatory with a time.
        latency_p90_ms: nine of ten passes took at most this long.
        decode_ms: median time to read and decode the frames of one clip.
        preprocess_ms: median time to turn decoded frames into model input.
        num_threads: processor threads of the timed runs.
        execution: how the model was run: `"eager"`, `"compile:<mode>"`, `"cuda graph"`.
        num_rounds: rounds of the interleaved measurement.
        baseline: name of the model that `speedup` compares with.
        speedup: median over rounds of the baseline's time divided by this model's; above 1 is faster than the baseline.
        speedup_interval: `(low, high)` around `speedup`.
        speedup_interval_method: how the interval was made.
    """

    gmacs: float | None = None
    parameters: int | None = None
    latency_ms: float | None = None
    throughput_clips_per_s: float | None = None
    peak_memory_mb: float | None = None
    batch_size: int | None = None
    hardware: str | None = None
    dtype: str | None = None
    decode_included: bool | None = None
    latency_p90_ms: float | None = None
    decode_ms: float | None = None
    preprocess_ms: float | None = None
    num_threads: int | None = None
    execution: str | None = None
    num_rounds: int | None = None
    baseline: str | None = None
    speedup: float | None = None
    speedup_interval: tuple[float, float] | None = None
    speedup_interval_method: str | None = None

    def __post_init__(self):
        for name in _POSITIVE_COSTS:
            value = getattr(self, name)
            if value is not None:
                _expect_number(value, f"cost {name}")
                if value <= 0:
                    raise ResultsError(f"cost {name} must be positive, got {value!r}.")
        timed = self.latency_ms is not None or self.throughput_clips_per_s is not None
        missing = [n for n in ("hardware", "dtype", "batch_size", "decode_included") if getattr(self, n) is None]
        if timed and missing:
            raise ResultsError(f"a measured time says nothing without {', '.join(missing)}: add them to the cost.")
        if self.speedup is not None and not self.baseline:
            raise ResultsError(f"cost speedup {self.speedup} needs the name of the baseline it compares with.")
        if self.speedup_interval is not None:
            low, high = _checked_interval(self.speedup_interval, "cost speedup_interval")
            object.__setattr__(self, "speedup_interval", (low, high))
            if not self.speedup_interval_method:
                raise ResultsError("cost speedup_interval needs speedup_interval_method.")


@dataclass(frozen=True)
class ResultEntry:
    """The numbers of one model on one split of one data set.

    Attributes:
        task: `"video-classification"`, `"temporal-action-detection"`, ...
        model: repository name of the checkpoint.
        dataset: name of the data set.
        split: name of the split.
        metrics: the numbers.
        cost: what it costs to get them.
        provenance: how they were measured; for a quoted number, where it was printed (`command` holds the citation).
        quoted: True for numbers taken from a paper or another repository, False for our own measurements.
        protocol: how the videos were seen (`num_frames`, `frame_stride`, `num_clips`, `num_crops`, `aggregation`, ...).
        dataset_id: Hub id of the data set, where it has one.
        variant: what distinguishes this run from the plain one (`"frames shuffled"`); empty for the plain one.
        num_failed: videos that could not be read or classified, not part of any `n`.
        notes: remarks printed under the table.
    """

    task: str
    model: str
    dataset: str
    split: str
    metrics: tuple[Metric, ...]
    provenance: Provenance
    cost: Cost = field(default_factory=Cost)
    quoted: bool = False
    protocol: dict = field(default_factory=dict)
    dataset_id: str | None = None
    variant: str = ""
    num_failed: int = 0
    notes: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "metrics", tuple(self.metrics))
        object.__setattr__(self, "notes", tuple(self.notes))
        where = f"result of {self.model!r} on {self.dataset!r}"
        for name in ("task", "model", "dataset", "split"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ResultsError(f"{where}: {name} must be a non-empty string, got {getattr(self, name)!r}.")
        if not self.metrics and self.cost == Cost():
            raise ResultsError(f"{where}: has neither a metric nor a cost.")
        names = [metric.name for metric in self.metrics]
        if len(set(names)) != len(names):
            raise ResultsError(f"{where}: a metric appears twice in {names}.")
        if not self.provenance.command:
            expected = "the citation of the source" if self.quoted else "the command that measured it"
            raise ResultsError(f"{where}: provenance.command must hold {expected}.")
        if self.quoted:
            return
        for metric in self.metrics:
            if metric.n is None:
                raise ResultsError(
                    f"{where}: metric {metric.name!r} has no n. A measured number states the number of videos; "
                    "mark numbers from papers with quoted=true."
                )
        if self.provenance.date is None:
            raise ResultsError(f"{where}: provenance.date is missing; use current_provenance() when measuring.")

    @property
    def key(self) -> tuple:
        """What makes two entries the same measurement: a newer one replaces an older one with the same key."""
        return (self.task, self.model, self.dataset, self.split, self.variant, self.quoted, self.provenance.seed)

    def metric(self, name: str) -> Metric | None:
        """The metric of that name, None when it was not measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    def to_dict(self) -> dict:
        """JSON-ready dict; fields that hold nothing are left out."""
        document = asdict(self)
        for key in ("cost", "provenance"):
            document[key] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in document[key].items()
                if value not in (None, {})
            }
        document["metrics"] = [
            {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in metric.items()
                if value is not None
            }
            for metric in document["metrics"]
        ]
        document["notes"] = list(self.notes)
        optional = ("cost", "protocol", "dataset_id", "variant", "num_failed", "notes")
        return {
            name: value
            for name, value in document.items()
            if name not in optional or value not in (None, {}, [], "", 0)
        }

    @classmethod
    def from_dict(cls, document: dict) -> "ResultEntry":
        """The inverse of `to_dict`.

        Raises:
            ResultsError: something is missing, unknown or of the wrong type.
        """
        values = _known_fields(cls, document, "result")
        values["metrics"] = tuple(
            Metric(**_known_fields(Metric, metric, "metric"))
            for metric in _expect_list(values.get("metrics", []), "metrics")
        )
        values["provenance"] = Provenance(**_known_fields(Provenance, values.get("provenance", {}), "provenance"))
        values["cost"] = Cost(**_known_fields(Cost, values.get("cost", {}), "cost"))
        values["notes"] = tuple(_expect_list(values.get("notes", []), "notes"))
        return cls(**values)


@dataclass
class ResultsFile:
    """A list of results on disk.

    Attributes:
        results: the entries, in the order in which they were added.
    """

    results: list[ResultEntry] = field(default_factory=list)

    def merge(self, entries: "ResultsFile | Iterable[ResultEntry]") -> "ResultsFile":
        """A new file with `entries` added; an entry with the key of an older one replaces it in place."""
        merged = {entry.key: entry for entry in self.results}
        merged.update({entry.key: entry for entry in getattr(entries, "results", entries)})
        return ResultsFile(list(merged.values()))

    def select(self, **conditions) -> list[ResultEntry]:
        """The entries whose attributes equal every condition, for example `select(dataset="tennis", quoted=False)`."""
        return [e for e in self.results if all(getattr(e, name) == value for name, value in conditions.items())]

    def to_dict(self) -> dict:
        """JSON-ready dict of the whole file."""
        return {"schema_version": SCHEMA_VERSION, "results": [entry.to_dict() for entry in self.results]}

    @classmethod
    def from_dict(cls, document: dict) -> "ResultsFile":
        """The inverse of `to_dict`.

        Raises:
            ResultsError: another schema version, or a broken entry (the message counts from 0).
        """
        if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
            found = document.get("schema_version") if isinstance(document, dict) else type(document).__name__
            raise ResultsError(f"expected a results document with schema_version {SCHEMA_VERSION}, found {found!r}.")
        unknown = sorted(set(document) - {"schema_version", "results"})
        if unknown:
            raise ResultsError(f"unknown keys {unknown}; a results document holds 'schema_version' and 'results'.")
        results = []
        for index, entry in enumerate(_expect_list(document.get("results"), "results")):
            try:
                results.append(ResultEntry.from_dict(entry))
            except ResultsError as error:
                raise ResultsError(f"results[{index}]: {error}") from error
        return cls(results)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ResultsFile":
        """Reads and checks a file.

        Raises:
            ResultsError: the file is no JSON or not in the format; the message begins with the path.
            FileNotFoundError: there is no such file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ResultsError(f"{path}: not a JSON file ({error}).") from error
        except ResultsError as error:
            raise ResultsError(f"{path}: {error}") from error

    def save(self, path: str | os.PathLike) -> Path:
        """Writes the file; a crash half-way leaves the old one."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            file.write(text)
        os.chmod(file.name, 0o644)
        os.replace(file.name, path)
        return path


def add_results(path: str | os.PathLike, entries: Iterable[ResultEntry]) -> ResultsFile:
    """Merges entries into the file at `path`, which need not exist yet, and returns the whole."""
    existing = ResultsFile.load(path) if Path(path).exists() else ResultsFile()
    merged = existing.merge(entries)
    merged.save(path)
    return merged


def _expect_number(value, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ResultsError(f"{where} must be a finite number, got {value!r}.")


def _checked_interval(interval, where: str) -> tuple[float, float]:
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        raise ResultsError(f"{where} must be (low, high), got {interval!r}.")
    for bound in interval:
        _expect_number(bound, f"{where} bound")
    low, high = float(interval[0]), float(interval[1])
    if not low <= high:
        raise ResultsError(f"{where} {(low, high)} has its ends swapped.")
    return low, high


def _expect_list(value, where: str) -> list:
    if not isinstance(value, (list, tuple)):
        raise ResultsError(f"{where} must be a list, got {type(value).__name__}.")
    return list(value)


def _known_fields(cls, document, where: str) -> dict:
    if not isinstance(document, dict):
        raise ResultsError(f"{where} must be an object, got {type(document).__name__}.")
    known = {f.name for f in fields(cls)}
    unknown = sorted(map(str, set(document) - known))
    if unknown:
        raise ResultsError(f"{where} has unknown keys {unknown}; known are {sorted(known)}.")
    required = {f.name for f in fields(cls) if _has_no_default(f)} - set(document)
    if required:
        raise ResultsError(f"{where} lacks {sorted(required)}.")
    return dict(document)


def _has_no_default(dataclass_field) -> bool:
    return dataclass_field.default is MISSING and dataclass_field.default_factory is MISSING
