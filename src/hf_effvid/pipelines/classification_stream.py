"""Running predictions of a model that remembers: a causal TSM or a MoViNet stream, over a file of any length, a camera or an iterator.

What the model remembers of the frames so far is handed from call to call (`past_states`), so every frame is computed once and memory does
not grow. After n frames a prediction is that of the whole model on these n frames: the logits do not depend on how they were cut into pieces.
"""

import inspect
import math
from dataclasses import dataclass
from numbers import Real

import torch

from ..models.clip_sampling import check_count
from ..models.pipeline_inputs import name_of
from ..models.read_ahead import read_ahead
from ..models.video_errors import VideoTooShort
from .stream_frames import BadFrame, StreamRateError, StreamSource


# fields of a recipe that say which frames per second a stream takes; the others are about clips and views of a whole video
RATE_PARAMS = ("sampling", "frame_sampling_rate", "frame_stride", "target_fps")


def has_stream_states(model):
    """Whether a model hands out what it remembers of the frames so far, and takes it back."""
    return (
        bool(getattr(model.config, "causal", False)) and "past_states" in inspect.signature(model.forward).parameters
    )


def frame_rate(recipe):
    """What a recipe says of frames per second: (rate, every). None for the source's own rate, of which every so manyeth frame counts.

    Raises:
        StreamRateError: it spreads frames over the whole video, whose length a stream does not know.
    """
    if recipe.target_fps is not None:
        return recipe.target_fps / recipe.frame_stride, 1
    if recipe.sampling == "dense":
        return None, recipe.frame_stride
    raise StreamRateError(
        f"the recipe spreads {recipe.num_frames} frames over a whole video (sampling={recipe.sampling!r}), which a stream cannot do: pass "
        "target_fps=... (frames per second, as the model saw them in training), or frame_sampling_rate=1 for every frame."
    )


@dataclass(frozen=True)
class StreamRun:
    """How a stream is run.

    Attributes:
        name: of the source, for errors.
        piece: frames per forward pass; there is one prediction after each.
        reset_every: seconds after which the model forgets; None: never.
        keep_going: what fails becomes a record instead of an exception.
        queue_size: frames that wait at most, decoded ahead by a thread.
        recipe, scoring: what `postprocess` of the pipeline takes.
    """

    name: str
    piece: int
    reset_every: float | None
    keep_going: bool
    queue_size: int
    recipe: object
    scoring: dict


@dataclass
class StreamMemory:
    """What is known of the frames so far.

    Attributes:
        states: `past_states` of the model.
        start: second of the first frame since the last reset.
        num_frames: frames since then.
    """

    states: tuple | None = None
    start: float | None = None
    num_frames: int = 0

    def forget(self):
        """The next frame is the first one."""
        self.states, self.start, self.num_frames = None, None, 0


class ClassificationStream:
    """An iterator over `{"start", "end", "num_frames", "predictions"}`: the prediction of all frames from `start` to `end`, in seconds.

    Use it as a context manager, or call `close()`, to stop early: the thread that decodes ends, and the source is closed.
    """

    def __init__(self, pipe, source, run):
        self._memory = StreamMemory()
        # it does not know this object, so that whoever lets go of this object ends it
        self._predictions = _predict(pipe, source.frames(), run, self._memory)

    def reset(self):
        """Forget everything seen so far, at a cut or when a new video begins on the same camera; frames go on."""
        self._memory.forget()

    def __iter__(self):
        return self

    def __next__(self):
        return next(self._predictions)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def close(self):
        """Stop, wherever it is."""
        self._predictions.close()


def stream_by_state(
    pipe, source, recipe, reading, scoring, *, piece, reset_every, fps, queue_size, live, live_options, keep_going
):
    """The `ClassificationStream` of a source, see `VideoClassificationPipeline.stream`.

    Args:
        pipe: the pipeline, of a model with stream states.
        source: one video.
        recipe: the `ClipRecipe`, of which the frame rate counts.
        reading: the `ReadOptions`.
        scoring: passed to `pipe.postprocess`.
        piece, reset_every, keep_going, queue_size: see `StreamRun`.
        fps, live, live_options: see `StreamSource`.

    Raises:
        ValueError: options that make no sense.
    """
    check_count("piece", piece)
    check_count("queue_size", queue_size)
    if reset_every is not None and not (
        isinstance(reset_every, Real) and math.isfinite(reset_every) and reset_every > 0
    ):
        raise ValueError(f"reset_every must be a positive number of seconds, got {reset_every!r}.")
    if reading.isolate:
        raise ValueError(
            "isolate=True decodes part by part in a worker; a stream reads on: leave it out, or pass window=..."
        )
    rate, every = frame_rate(recipe)
    frames = StreamSource(
        source,
        rate=rate,
        every=every,
        fps=fps,
        size=pipe.inputs.decoding_size(1),
        start=reading.start,
        end=reading.end,
        limits=reading.limits,
        allow_remote=reading.allow_remote,
        live=live,
        live_options=live_options,
        keep_going=keep_going,
    )
    run = StreamRun(name_of(source), piece, reset_every, keep_going, queue_size, recipe, scoring)
    return ClassificationStream(pipe, frames, run)


def _predict(pipe, timed, run, memory):
    """Yield records, and keep the memory."""
    frames, waiting, failed, seen = read_ahead(timed, run.queue_size), [], None, 0
    try:
        while True:
            try:
                one = next(frames, None)
            except Exception as error:  # what was seen until here is worth saying
                failed, one = error, None
            if one is None:
                break
            if isinstance(one, BadFrame):
                yield from _look(pipe, waiting, run, memory)
                yield {**_error(one.error, run), "seconds": one.seconds}
                continue
            if _is_over(run, waiting, memory, one[0]):
                yield from _look(pipe, waiting, run, memory)
                memory.forget()
            waiting.append(one)
            seen += 1
            if len(waiting) == run.piece:
                yield from _look(pipe, waiting, run, memory)
        yield from _look(pipe, waiting, run, memory)
        if failed is None and seen == 0:
            failed = VideoTooShort(run.name, "not one frame", "Check the source, or start and end")
        if failed is not None and not run.keep_going:
            raise failed
        if failed is not None:
            yield _error(failed, run)
    finally:
        frames.close()


def _is_over(run, waiting, memory, seconds):
    """Whether a frame at `seconds` is the first one after a reset."""
    start = memory.start if memory.start is not None else waiting[0][0] if waiting else None
    return run.reset_every is not None and start is not None and seconds >= start + run.reset_every - 1e-6


@torch.inference_mode()
def _look(pipe, waiting, run, memory):
    """The record after the frames that wait, which then wait no more; nothing where none does."""
    if not waiting:
        return []
    if memory.start is None:
        memory.start = waiting[0][0]
    prepared = pipe.inputs.prepare(torch.stack([frame for _, frame in waiting]), num_crops=1)
    pixels = pipe.inputs.rows([prepared], num_crops=1).to(pipe.device, pipe.model.dtype)
    with pipe.device_placement():
        outputs = pipe.model(**{pipe.inputs.input_name: pixels}, past_states=memory.states, use_cache=True)
    memory.states = outputs.past_states
    memory.num_frames += len(waiting)
    end = waiting[-1][0]
    waiting.clear()
    predictions = pipe.postprocess(outputs.logits.float().cpu(), recipe=run.recipe, **run.scoring)
    return [{"start": memory.start, "end": end, "num_frames": memory.num_frames, "predictions": predictions}]


def _error(error, run):
    return {"error": type(error).__name__, "message": str(error), "source": run.name}
