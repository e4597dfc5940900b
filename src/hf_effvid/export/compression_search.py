"""One search over dropped blocks, kept tokens and number types: accuracy on the same videos against milliseconds measured in turns.

```python
report = search_compression(["compressed/step-0/model", "compressed/step-3/model"], rows, keep_ratios=(1, 0.5), number_types=("float32", "int8"))
print(report.best_under_budget(10).reason)
report.plot("pareto.png")
```
"""

import os
import statistics
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm.auto import tqdm

from ..evaluation.benchmark_execution import check_clock, execution_settings, make_timer
from ..evaluation.benchmark_load import describe_load
from ..evaluation.benchmark_timing import paired_ratio, percentile, time_interleaved, warm_up
from ..evaluation.clips import RowLoader, load_videos
from ..evaluation.labels import LabelMap
from ..evaluation.opening import load_classifier, model_name, open_rows
from ..evaluation.protocol import describe_protocol
from ..evaluation.provenance import current_provenance
from .compression_candidates import Candidate, SearchError, check_settings, make_candidates
from .compression_report import SearchReport, SearchRow


_CPU = torch.device("cpu")
MS_PER_VISIT = 30.0
"""How long a candidate is timed in each round: dozens take turns."""


def step_models(folder: str | os.PathLike) -> list[str]:
    """Folders of the models of every step that `effvid compress` wrote, the uncompressed one first; of another folder, that alone."""
    numbered = [path for path in Path(folder).glob("step-*/model") if path.parent.name.removeprefix("step-").isdigit()]
    steps = sorted(numbered, key=lambda path: int(path.parent.name.removeprefix("step-")))
    return [str(path) for path in steps] or [os.fspath(folder)]


def search_compression(
    models,
    dataset,
    *,
    keep_ratios: Sequence[float] = (1.0,),
    number_types: Sequence[str] = ("float32",),
    scorer: str | None = None,
    processor=None,
    batch_size: int = 8,
    max_videos: int | None = None,
    num_workers: int = 0,
    rounds: int = 8,
    threads: int | None = None,
    clock: str = "wall",
    split: str | None = None,
    dataset_name: str | None = None,
    name: str | None = None,
    seed: int | None = None,
    command: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
) -> SearchReport:
    """Tries every combination of blocks, tokens and number types, on the processor.

    Every video is decoded once and shown, as one clip, to all candidates. Then all take turns on one clip: ratios of times hold on a machine that is
    not quiet.

    Args:
        models: folders, Hub ids or models of one classifier with 0, 1, 2, ... blocks dropped; or the one folder that `effvid compress` wrote.
        dataset: rows with videos and labels, as `evaluate_classifier` takes them. Where the best is chosen, not the test split.
        keep_ratios: shares of tokens to try; 1 keeps all.
        number_types: of `"float32"`, `"bfloat16"`, and as ONNX files `"onnx"` (float32), `"int8"`, `"int8-weight-only"`.
        scorer: what decides which tokens stay; None: the model's own trained selector, else `"random"`.
        processor: default: the one saved with the first model.
        batch_size: clips per forward pass of the evaluation.
        max_videos: look at the first so many videos only.
        num_workers: worker processes that decode.
        rounds: interleaved rounds of timing; intervals of ratios reach 95 % from 6 on.
        threads: processor threads; default: torch's choice.
        clock: `"wall"`, or `"processor"`: seconds that this process computed, with `threads=1` alone, where others use the machine too.
        split, dataset_name, name: for the results.
        seed: recorded as the seed of the training.
        command: recorded as the command; default: this process's command line.
        trust_remote_code: run model code that comes with a checkpoint.
        progress: show a progress bar.

    Returns:
        The report.

    Raises:
        SearchError: models or settings that make no search, or no readable video.
        BenchmarkError: a clock that cannot tell the time of so many threads.
        CheckpointNotFound, LabelMismatchError, UnsupportedBlocksError, UnsupportedHostError, ExportError: see there.
    """
    check_settings(keep_ratios, number_types)
    check_clock(clock, _CPU, threads)
    opened, processor = _open(models, processor, trust_remote_code)
    first = opened[0]
    if first.config.problem_type == "multi_label_classification":
        raise SearchError("the search compares one answer per video, this model gives several labels.")
    rows, class_names = open_rows(dataset, "video", "label")
    to_class = LabelMap(first.config.id2label, class_names)
    load = RowLoader(processor, {"multi_view": False}, "video", "label")
    notes: list[str] = describe_load(_CPU)
    videos = load_videos(rows, load, skip=set(), max_videos=max_videos, num_workers=num_workers)
    batches = _Batches(videos, batch_size, to_class)
    with TemporaryDirectory(prefix="effvid-search-") as work, execution_settings(threads, False):
        clip = batches.first_clip()
        with tqdm(desc="making candidates", disable=not progress, leave=False) as bar:
            candidates = make_candidates(
                opened,
                clip,
                keep_ratios,
                number_types,
                Path(work),
                scorer=scorer,
                threads=torch.get_num_threads(),
                advance=lambda _: bar.update(),
            )
        hits = _answers(candidates, batches, progress)
        times = _times(candidates, clip, rounds, make_timer(_CPU, clock), progress)
        num_threads = torch.get_num_threads()
    return SearchReport(
        rows=_rows(candidates, hits, times),
        model_name=name or model_name(first),
        dataset_name=dataset_name or getattr(getattr(dataset, "info", None), "dataset_name", None) or "unnamed",
        split=str(split or getattr(dataset, "split", None) or "all"),
        num_failed=batches.num_failed,
        num_threads=num_threads,
        clock=clock,
        scorer=scorer,
        protocol=describe_protocol(processor, multi_view=False),
        provenance=current_provenance(command, seed=seed, dtype="float32", decode_included=False),
        notes=tuple(notes),
    )


def _open(models, processor, trust_remote_code):
    """The classifiers in float32 in evaluation mode, most blocks first, and the recipe of the first."""
    if isinstance(models, (str, os.PathLike)):
        models = [models]
    sources = []
    for model in models:
        sources += step_models(model) if isinstance(model, (str, os.PathLike)) else [model]
    if not sources:
        raise SearchError("expected at least one model, got none.")
    opened = [load_classifier(source, processor, trust_remote_code) for source in sources]
    return [model.to("cpu", torch.float32).eval() for model, _ in opened], opened[0][1]


class _Batches:
    """Clips of readable videos with their classes, some at a time; the first clip can be looked at before."""

    def __init__(self, videos, batch_size: int, to_class: LabelMap):
        self.videos, self.batch_size, self.to_class = iter(videos), batch_size, to_class
        self.num_failed, self.first_error, self.waiting = 0, None, []

    def _readable(self):
        yield from self.waiting
        self.waiting = []
        for video in self.videos:
            if video.error is None:
                yield video
            else:
                self.num_failed, self.first_error = self.num_failed + 1, self.first_error or video.error

    def first_clip(self) -> torch.Tensor:
        video = next(self._readable(), None)
        if video is None:
            raise SearchError(
                f"not one of {self.num_failed} videos could be read; the first error: {self.first_error}"
            )
        self.waiting = [video]
        return video.pixel_values[:1]

    def __iter__(self):
        readable = self._readable()
        while some := list(islice(readable, self.batch_size)):
            clips = torch.cat([video.pixel_values[:1] for video in some])
            yield clips, torch.tensor([self.to_class(video.label) for video in some])


def _answers(candidates: list[Candidate], batches, progress: bool) -> list[list[bool]]:
    """Per candidate, whether it was right about each video."""
    hits: list[list[bool]] = [[] for _ in candidates]
    for clips, labels in tqdm(batches, desc="evaluating, batches", disable=not progress):
        for own, candidate in zip(hits, candidates, strict=True):
            with torch.inference_mode():
                own += (candidate.model(pixel_values=clips).logits.argmax(-1) == labels).tolist()
    return hits


def _times(candidates: list[Candidate], clip, rounds: int, timer, progress: bool) -> dict[str, list[list[float]]]:
    """Name -> per round, milliseconds of each pass over one clip."""

    def step_of(model):
        def step():
            with torch.inference_mode():
                return model(pixel_values=clip)

        return step

    steps = {candidate.name: step_of(candidate.model) for candidate in candidates}
    calls = {}
    for name, step in steps.items():
        warm_up(step, timer)
        calls[name] = max(1, round(MS_PER_VISIT / max(timer(step), 1e-3)))
    with tqdm(total=rounds, desc="timing, rounds", disable=not progress) as bar:
        return time_interleaved(steps, timer, rounds, calls, on_round=bar.update)


def _rows(candidates, hits, times) -> tuple[SearchRow, ...]:
    baseline = candidates[0].name
    rows = []
    for candidate, own in zip(candidates, hits, strict=True):
        every = [milliseconds for visit in times[candidate.name] for milliseconds in visit]
        rows.append(
            SearchRow(
                name=candidate.name,
                dropped=candidate.dropped,
                keep_ratio=candidate.keep_ratio,
                number_type=candidate.number_type,
                correct=tuple(own),
                gmacs=candidate.gmacs,
                parameters=candidate.parameters,
                latency_ms=statistics.median(every),
                latency_p90_ms=percentile(every, 90),
                num_rounds=len(times[candidate.name]),
                speedup=None if candidate.name == baseline else paired_ratio(times[baseline], times[candidate.name]),
            )
        )
    return tuple(rows)
