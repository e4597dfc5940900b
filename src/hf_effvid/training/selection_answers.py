"""What the arms of a study answer: clips are decoded once, batch by batch, and shown to every arm that has not seen them.

Answers are on disk when the next batch begins, one file per arm: a study that was interrupted goes on where it stopped, and one with
further arms computes those alone.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ..evaluation.clips import LoadedVideo, RowLoader, load_videos
from ..evaluation.labels import LabelMap
from ..evaluation.prediction_log import PredictionLog
from ..evaluation.results import Cost
from ..evaluation.selection_report import ORACLE_PREDICTED, ORACLE_WRONG, ArmResult
from ..evaluation.selection_values import TokenValues
from .selection_arms import Arm, ClipBatch


TOP = 5  # best classes kept of every answer


@dataclass(frozen=True)
class ArmRecord:
    """What one arm said about one video.

    Attributes:
        index: position in the data set.
        source: path, or a description.
        label: right class.
        answers: keep_ratio -> per draw the best classes, best first.
        error: why the video could not be read, else None.
    """

    index: int
    source: str
    label: int
    answers: dict[str, list[list[int]]] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class StudyClips:
    """The videos of a study and how they are read.

    Attributes:
        rows: of the data set.
        load: reads one.
        to_class: label of the data set -> class of the model.
        max_videos: the first so many only.
        num_workers: processes that decode.
        batch_size: clips per forward pass.
        device, dtype: where and in what type the model runs.
    """

    rows: object
    load: RowLoader
    to_class: LabelMap
    max_videos: int | None
    num_workers: int
    batch_size: int
    device: torch.device
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.rows) if self.max_videos is None else min(self.max_videos, len(self.rows))

    def batches(self, skip: set[int]) -> Iterator[list[LoadedVideo]]:
        """Read videos, `batch_size` at a time, without those in `skip`."""
        videos = load_videos(self.rows, self.load, skip=skip, max_videos=self.max_videos, num_workers=self.num_workers)
        while some := list(islice(videos, self.batch_size)):
            yield some

    def as_batch(self, videos: list[LoadedVideo]) -> ClipBatch:
        """Readable videos as the arms see them."""
        labels = [self.to_class(video.label) for video in videos]
        wrong = [
            wrong_label(label, video.index, len(self.to_class.names))
            for label, video in zip(labels, videos, strict=True)
        ]
        return ClipBatch(
            pixel_values=torch.cat([video.pixel_values for video in videos]).to(self.device, self.dtype),
            labels=torch.tensor(labels, device=self.device),
            wrong_labels=torch.tensor(wrong, device=self.device),
            videos=[self.rows[video.index][self.load.video_column] for video in videos],
        )


def wrong_label(label: int, index: int, num_classes: int) -> int:
    """Another class than `label`, each as often as the others over the videos of a class."""
    return (label + 1 + index % (num_classes - 1)) % num_classes


class StudyLogs:
    """What the arms answered so far, one file per arm, and the values of the tokens.

    Args:
        folder: of the study.
        arms: its arms.
        keep_ratios: its budgets.
        identity: of model, videos and protocol; an arm's own settings are added.
    """

    def __init__(self, folder: Path, arms: list[Arm], keep_ratios, identity: dict):
        self._stack = contextlib.ExitStack()
        budgets = [f"{ratio:g}" for ratio in keep_ratios]
        self.arms: dict[str, PredictionLog] = {}
        for arm in arms:
            of_arm = {
                **identity,
                "arm": arm.name,
                "settings": arm.settings,
                "draws": arm.draws,
                "keep_ratios": budgets,
            }
            self.arms[arm.name] = self._open(folder / "arms" / f"{file_name(arm.name)}.jsonl", of_arm, ArmRecord)
        values = next((arm.settings for arm in arms if arm.name == ORACLE_PREDICTED), None)
        self.values = self._open(folder / "token_values.jsonl", {**identity, "settings": values}, TokenValues)

    def _open(self, path, identity, record_type) -> PredictionLog:
        return self._stack.enter_context(contextlib.closing(PredictionLog(path, identity, record_type)))

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self._stack.close()

    def complete(self) -> set[int]:
        """Videos that every arm has seen."""
        return set.intersection(*(set(log.done) for log in self.arms.values()))


def file_name(arm: str) -> str:
    """The name of an arm as a file name, told from the others also where capitals do not count."""
    arm = arm.replace("+", "p")
    return "".join(letter if letter.isalnum() else "_" for letter in arm).strip("_").replace("__", "_")


@torch.inference_mode()
def answer(arm: Arm, batch: ClipBatch, keep_ratios) -> list[dict[str, list[list[int]]]]:
    """The best classes of an arm for each clip of a batch, by budget and draw."""
    answers = [{f"{ratio:g}": [] for ratio in (1.0, *keep_ratios) if arm.reaches(ratio)} for _ in batch.videos]
    for draw in range(arm.draws):
        prepared = arm.prepare(batch, draw)
        for ratio in (1.0, *keep_ratios):
            if not arm.reaches(ratio):
                continue
            logits = arm.logits(prepared, ratio).float()
            best = logits.topk(min(TOP, logits.shape[-1])).indices.tolist()
            for of_clip, classes in zip(answers, best, strict=True):
                of_clip[f"{ratio:g}"].append(classes)
    return answers


def run_arms(arms: list[Arm], clips: StudyClips, logs: StudyLogs, keep_ratios, value_of, progress: bool) -> None:
    """Shows every video to every arm that has not seen it; unreadable ones are recorded and left out.

    Args:
        arms: the arms.
        clips: the videos.
        logs: what is known, and where what is found goes.
        keep_ratios: budgets.
        value_of: `batch -> (B, N)` values of tokens whose spread is recorded; None records none.
        progress: show a progress bar.
    """
    done = logs.complete()
    with tqdm(total=len(clips), initial=len(done), desc="study", unit="video", disable=not progress) as bar:
        for videos in clips.batches(skip=done):
            for video in (one for one in videos if one.error is not None):
                record = ArmRecord(video.index, video.source, clips.to_class(video.label), error=str(video.error))
                for log in logs.arms.values():
                    if video.index not in log.done:
                        log.add(record)
            readable = [video for video in videos if video.error is None]
            _run_batch(arms, clips, readable, logs, keep_ratios, value_of)
            bar.update(len(videos))


def _run_batch(arms, clips: StudyClips, videos: list[LoadedVideo], logs: StudyLogs, keep_ratios, value_of) -> None:
    if not videos:
        return
    batch = clips.as_batch(videos)
    for arm in arms:
        log = logs.arms[arm.name]
        missing = [place for place, video in enumerate(videos) if video.index not in log.done]
        if not missing:
            continue
        answers = answer(arm, batch, keep_ratios)
        for place in missing:
            video = videos[place]
            log.add(ArmRecord(video.index, video.source, int(batch.labels[place]), answers[place]))
    unknown = [place for place, video in enumerate(videos) if video.index not in logs.values.done]
    if value_of is not None and unknown:
        with torch.inference_mode():
            values = value_of(batch).cpu().double().numpy()
        for place in unknown:
            logs.values.add(TokenValues.of(videos[place].index, values[place]))


# ---- from answers to a report ----------------------------------------------------------------------------------------------


def arm_results(arm: Arm, log: PredictionLog, indices: list[int], num_classes: int, costs: dict) -> list[ArmResult]:
    """The results of an arm at every budget.

    Args:
        arm: the arm.
        log: its answers.
        indices: the videos that count, in order.
        num_classes: classes of the model.
        costs: (arm, keep_ratio) -> cost.
    """
    records = [log.done[index] for index in indices]
    results = []
    for budget in records[0].answers:
        ratio = float(budget)
        # (draws, n, TOP)
        best = np.array([record.answers[budget] for record in records]).transpose(1, 0, 2)
        labels = np.array([record.label for record in records])
        right = best[..., 0] == labels
        hits = None
        if arm.name == ORACLE_WRONG:
            given = np.array([wrong_label(record.label, record.index, num_classes) for record in records])
            hits = float((best[..., 0] == given).mean())
        results.append(
            ArmResult(
                arm=arm.name,
                kind=arm.kind,
                keep_ratio=ratio,
                top1=right.mean(0),
                top5=(best == labels[None, :, None]).any(-1).mean(0),
                draws=right.mean(1).tolist(),
                num_tokens=arm.num_tokens(ratio),
                cost=costs.get((arm.name, ratio), Cost()),
                label_hits=hits,
            )
        )
    return results
