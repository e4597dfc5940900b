"""What detectors cost on this machine, stage by stage: decoding, preprocessing, backbone, head, post-processing.

```python
report = benchmark_detectors(["run/model"], threads=1, clock="processor")
```

Everything is measured on one window of the detector, with random pixels behind the decoder: times do not depend on what is to be seen,
but for post-processing, which has most to do where a detector knows nothing and every point of every class is a candidate. Stages and
detectors take turns (round by round), so that shares of one round hold where the milliseconds do not.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from ..models.detection_frames import TickedFrames
from ..models.time_grid import FeatureWindow
from ..models.video_processing_effvid import decoding_size
from ..models.video_reader import probe_video
from .benchmark_detector_report import DetectorBenchmarkReport, DetectorCounts, DetectorMeasurement
from .benchmark_execution import (
    BenchmarkError,
    NumberType,
    check_clock,
    execution_settings,
    make_step,
    make_timer,
    resolve_device,
)
from .benchmark_load import describe_load
from .benchmark_measuring import SEED
from .benchmark_progress import benchmark_progress
from .benchmark_stages import benchmark_video
from .benchmark_timing import WallTimer, time_interleaved, warm_up
from .benchmark_variants import BenchmarkVariant, as_variants, built, processor_of, with_defaults
from .macs import count_macs, count_parameters
from .paper_macs import count_paper_macs, has_published_count
from .results import current_provenance


@dataclass(frozen=True)
class _Subject:
    """A detector that takes part, the window that it is given, and its stages as functions without arguments."""

    variant: BenchmarkVariant
    counts: DetectorCounts
    frames: int
    steps_per_window: int
    seconds: float
    pixels: tuple[int, ...] | None
    stages: dict
    # times of stages that were run on a part of the window are multiplied by these
    scales: dict[str, float]


def benchmark_detectors(
    models,
    *,
    rounds: int = 10,
    threads: int | None = None,
    dtype: str = "float32",
    device=None,
    video=None,
    fps: float | None = None,
    clock: str = "wall",
    command: str | None = None,
    progress: bool | None = None,
) -> DetectorBenchmarkReport:
    """Measures temporal action detectors on one window each.

    Args:
        models: as in `benchmark`: Hub ids, folders, models, `(name, model)` pairs, `BenchmarkVariant` with a processor.
        rounds: how often every stage of every detector has its turn.
        threads: processor threads, default: torch's choice.
        dtype: of backbone and head: `"float32"`, `"bfloat16"`, `"bfloat16-autocast"`, ...
        device: torch device; default: CUDA where there is one, else the processor.
        video: what decoding is timed on; default: a generated one. One that is shorter than the window counts proportionally.
        fps: frames per second that features count, of detectors on features whose recipe leaves it to the video.
        clock: `"wall"`, or `"processor"`: seconds that this process computed, with `threads=1` alone.
        command: recorded as what was run; default: this process's command line.
        progress: show a progress bar on stderr; default: when it is a terminal.

    Raises:
        BenchmarkError: an argument does not make sense, or a model is no detector or has no processor.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise BenchmarkError(f"rounds must be a positive number, got {rounds!r}.")
    variants = tuple(with_defaults(variant, dtype, None) for variant in as_variants(models))
    device = resolve_device(device)
    check_clock(clock, device, threads)
    notes = describe_load(device)
    # one clock for all stages: those before and after the network run on the processor
    timer = make_timer(device, clock) if device.type != "cuda" else WallTimer(synchronize=torch.cuda.synchronize)
    with contextlib.ExitStack() as opened:
        advance = opened.enter_context(benchmark_progress(len(variants) + rounds, progress))
        opened.enter_context(execution_settings(threads, False, device))
        source, description = opened.enter_context(benchmark_video(video))
        num_threads, subjects = torch.get_num_threads(), []
        for variant in variants:
            advance(f"loading {variant.name}")
            subjects.append(_prepare(variant, device, source, fps, opened))
        if any("decode" in subject.stages for subject in subjects):
            notes.append(f"decoding and preprocessing: {description}")
        steps = {(s.variant.name, stage): step for s in subjects for stage, step in s.stages.items()}
        calls = {key: warm_up(step, timer, calls=1) for key, step in steps.items()}
        times = time_interleaved(steps, timer, rounds, calls, lambda: advance("timing stages in turns"))
    return DetectorBenchmarkReport(
        measurements=tuple(_measurement(subject, times) for subject in subjects),
        provenance=current_provenance(command, seed=SEED, dtype=dtype, device=device, decode_included=True),
        num_threads=num_threads,
        clock=clock,
        notes=tuple(notes),
    )


def _measurement(subject: _Subject, times) -> DetectorMeasurement:
    name = subject.variant.name
    return DetectorMeasurement(
        name=name,
        dtype=NumberType.parse(subject.variant.dtype).name,
        seconds=subject.seconds,
        num_frames=subject.frames,
        num_steps=subject.steps_per_window,
        frame_shape=subject.pixels,
        counts=subject.counts,
        times_ms={
            stage: tuple(tuple(ms * subject.scales[stage] for ms in visit) for visit in times[name, stage])
            for stage in subject.stages
        },
    )


def _prepare(variant: BenchmarkVariant, device, video, fps: float | None, opened: contextlib.ExitStack) -> _Subject:
    """Loads a detector and makes the window that it will be given."""
    number_type, processor = NumberType.parse(variant.dtype), processor_of(variant)
    if not hasattr(processor, "decode_windows"):
        raise BenchmarkError(f"{variant.name}: no processor of a detector, which knows where its steps lie in time.")
    model = opened.enter_context(built(variant, number_type, device))
    if not hasattr(getattr(model, "actionformer", None), "backbone"):
        raise BenchmarkError(f"{variant.name} is no temporal action detector, but a {type(model).__name__}.")
    config, backbone = model.config, model.actionformer.backbone
    steps = processor.resize_length or processor.window_length or config.max_sequence_length
    frames = steps * (config.frames_per_step if backbone is not None else 1)
    rate = _rate(processor, fps, frames, video, backbone is not None)
    seconds = (frames if backbone is not None else steps * processor.feature_stride) / rate
    generator = torch.Generator().manual_seed(SEED)
    place = {"device": device, "dtype": number_type.weights}
    features = {"input_features": torch.randn(1, steps, sum(config.feature_sizes), generator=generator).to(**place)}
    stages, scales, pixels = {}, {}, None
    if backbone is not None:
        decode = partial(_decode, video, rate, decoding_size(processor.recipe(), False), seconds)
        decoded = decode()
        preprocess = partial(processor.transform_clip, decoded)
        pixels = (frames, *preprocess().shape[1:])
        stages |= {"decode": decode, "preprocess": preprocess}
        scales |= dict.fromkeys(stages, frames / len(decoded))
        clip = torch.randn(1, *pixels, generator=generator).to(**place)
        stages["backbone"] = make_step(backbone, {"pixel_values": clip}, number_type, "eager")[0]
    stages["head"] = make_step(model, features, number_type, "eager")[0]
    grid = processor.time_grid(rate, steps)
    window = FeatureWindow(0, 0, steps, steps, grid)
    stages["post-processing"] = partial(_post_process, processor, stages["head"](), window, seconds)
    scales |= {stage: 1.0 for stage in stages if stage not in scales}
    counts = count_detector(model, None if pixels is None else (1, *pixels), steps)
    return _Subject(variant, counts, frames, steps, seconds, pixels and pixels[1:], stages, scales)


def _rate(processor, fps: float | None, frames: int, video, from_pixels: bool) -> float:
    """Frames per second that the window's frames are apart."""
    info = probe_video(video)
    if processor.resize_length is not None and from_pixels:  # a whole video, however long
        return frames / info.duration
    return processor.feature_fps or fps or info.fps


def _decode(video, rate: float, size, seconds: float) -> torch.Tensor:
    return torch.stack(list(TickedFrames(video, rate, size, end=seconds)))


def _post_process(processor, outputs, window: FeatureWindow, seconds: float):
    """All that follows the network, up to labels with seconds."""
    return processor.merge_windows(processor.decode_windows(outputs, [window]), durations=[seconds])


def count_detector(model, pixels: Sequence[int] | None = None, steps: int | None = None) -> DetectorCounts:
    """Multiply-accumulates of one window, both ways; shapes are enough, and nothing is computed.

    Args:
        model: a detector, on any device, the meta device included.
        pixels: shape of its input, (1, frames, C, H, W); None for detectors on features.
        steps: features behind the backbone; default: what the frames make.
    """
    config = model.config
    steps = steps or -(-pixels[1] // config.frames_per_step)
    features = {"input_features": torch.empty(1, steps, sum(config.feature_sizes), device="meta", dtype=model.dtype)}
    head = count_macs(model, features)
    whole, paper_head, paper_whole = head, None, None
    if pixels is not None:
        frames = {"pixel_values": torch.empty(tuple(pixels), device="meta", dtype=model.dtype)}
        whole = count_macs(model, frames)
    if pixels is not None and has_published_count(model):
        with torch.device("meta"):
            shell = type(model)(config).eval()
        paper_head, paper_whole = (
            count_paper_macs(shell, {name: one.float() for name, one in given.items()}) / 1e9
            for given in (features, frames)
        )
    uncounted = bool(head.uncounted or whole.uncounted)
    return DetectorCounts(
        parameters=count_parameters(model),
        gmacs=None if uncounted else whole.gmacs,
        head_gmacs=None if uncounted else head.gmacs,
        paper_gmacs=paper_whole,
        paper_head_gmacs=paper_head,
    )
