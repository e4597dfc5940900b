"""One line of JSON per classified video, so that an evaluation that was killed goes on where it stopped."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


class PredictionLogError(ValueError):
    """The predictions file belongs to another evaluation, or is damaged before its last line."""


@dataclass(frozen=True)
class VideoPrediction:
    """What came out for one video.

    Attributes:
        index: position in the data set.
        source: path, or a description where the video has none.
        label: right class number, a list of them for multi-label models.
        scores: one score per class (probabilities), None when the video failed.
        error: message when the video failed, else None.
        error_type: class name of the error.
        num_views: views the scores were averaged over.
    """

    index: int
    source: str
    label: int | list[int]
    scores: list[float] | None = None
    error: str | None = None
    error_type: str | None = None
    num_views: int = 0


class PredictionLog:
    """Append-only file of `VideoPrediction`s, or of other records.

    The first line names the evaluation (`identity`); a file of another evaluation is refused, not mixed in. A last line
    that was cut off by a crash is dropped and measured again.

    Args:
        path: the JSON-lines file; created when missing. None keeps everything in memory only.
        identity: JSON-able description of model, protocol and data set.
        record_type: dataclass of plain values with an `index`; what is kept of a video.

    Raises:
        PredictionLogError: the file describes another evaluation.
    """

    def __init__(self, path: str | os.PathLike | None, identity: dict, record_type: type = VideoPrediction):
        self.record_type = record_type
        self.done: dict[int, VideoPrediction] = {}
        self._file = None
        if path is None:
            return
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = json.loads(json.dumps({"evaluation": identity}))
        complete = self._load(path, header) if path.exists() else 0
        self._file = path.open("ab")
        self._file.truncate(complete)
        if not complete:
            self._write(header)

    def _load(self, path: Path, header: dict) -> int:
        """Reads the complete lines; returns how many bytes they take."""
        content = path.read_bytes()
        end = content.rfind(b"\n") + 1
        try:
            records = [json.loads(line) for line in content[:end].split(b"\n")[:-1]]
        except ValueError as error:
            raise PredictionLogError(f"{path} holds a line that is not JSON ({error}). Delete the file.") from error
        if not records:
            return 0
        if records[0] != header:
            ours, theirs = header["evaluation"], records[0].get("evaluation", {})
            different = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
            raise PredictionLogError(
                f"{path} holds the predictions of another evaluation (different: {', '.join(different)}). "
                "Choose another file, or delete it to start again."
            )
        for record in records[1:]:
            prediction = self.record_type(**record)
            self.done[prediction.index] = prediction
        return end

    def add(self, prediction: VideoPrediction) -> None:
        """Records one video; it is on disk when this returns."""
        self.done[prediction.index] = prediction
        if self._file is not None:
            self._write(asdict(prediction))

    def _write(self, record: dict) -> None:
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()

    def __iter__(self) -> Iterator[VideoPrediction]:
        return iter(sorted(self.done.values(), key=lambda prediction: prediction.index))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
