"""From a video to the frames that a classifier looks at: one set of clips for the whole video, or one for every sliding window.

Both choose frames with the same recipe and the same definition of a part (frames with start <= time < end), so the window from 4 s to
8 s gives what `start=4, end=8` gives. Windows are cut out of one pass over the file, which never holds more than the frames of the
windows that overlap the present one: memory does not depend on the length of the video.
"""

import itertools
import math
from collections import deque
from dataclasses import dataclass, field, replace
from numbers import Real

import torch

from ..host_processing import frames_per_clip, holds_recipe
from ..models.clip_sampling import draw_seed, sample_clips, sliding_windows
from ..models.video_processing_effvid import check_recipe
from ..models.video_reader import VideoTooLarge, iterate_video, probe_video, read_video


# Only places the frames of a window when a file does not tell its rate; time stamps decide which frames these are.
NOMINAL_FPS = 25.0
FRAMES_AT_A_TIME = 8
SHORTEST_TIMING = 0.001  # seconds; the windows of a video are counted before they are cut
_EPSILON = 1e-6  # seconds


class RecipeError(ValueError):
    """Neither the processor, nor the model's configuration, nor the call says how to sample a clip."""


@dataclass(frozen=True)
class ClipRecipe:
    """Which frames a classifier looks at, and how many views of a video it averages."""

    num_frames: int
    sampling: str = "uniform"
    frame_stride: int = 1
    target_fps: float | None = None
    short_clip_policy: str = "repeat_last"
    num_clips: int = 1
    num_crops: int = 1
    aggregation: str = "softmax_mean"
    clip_draw: str = "even"
    clip_seed: int = 0

    def __post_init__(self):
        check_recipe(vars(self))

    @classmethod
    def of(cls, processor, config, multi_view=False, frame_sampling_rate=None, **overrides):
        """The recipe for one call. `frame_sampling_rate=4` means a dense clip of every fourth frame.

        Each field comes from, in this order: the call, the processor when it holds a recipe (an `EffVidVideoProcessor`), the
        configuration (`num_frames` or `frames_per_clip`), the defaults of this class (uniform sampling, one view).

        Raises:
            RecipeError: nobody says how many frames a clip has.
            ValueError: a field that makes no sense, before the first video is read.
        """
        fields = {name: getattr(processor, name, None) for name in cls.__dataclass_fields__ if holds_recipe(processor)}
        fields.setdefault("num_frames", frames_per_clip(config))
        if not multi_view:
            fields.update(num_clips=1, num_crops=1)
        fields.update({name: value for name, value in overrides.items() if value is not None})
        if frame_sampling_rate is not None:
            fields.update(sampling="dense", frame_stride=frame_sampling_rate, target_fps=None)
        fields = {name: value for name, value in fields.items() if value is not None}
        if "num_frames" not in fields:
            raise RecipeError(
                f"The number of frames per clip is unknown: the configuration ({config.model_type}) has neither num_frames nor "
                "frames_per_clip. Pass num_frames=..."
            )
        return cls(**fields)

    def clips(self, num_available, fps, source=""):
        """`num_clips` lists of `num_frames` indices into `num_available` frames of the file `source`."""
        return sample_clips(
            num_available,
            self.num_frames,
            sampling=self.sampling,
            frame_stride=self.frame_stride,
            fps=fps,
            target_fps=self.target_fps,
            num_clips=self.num_clips,
            short_clip_policy=self.short_clip_policy,
            clip_draw=self.clip_draw,
            seed=draw_seed(self.clip_seed, source),
        )

    def indices(self, info):
        """All clips of a part of a video after each other: what `read_video` takes as a sampler, picklable for its worker."""
        return list(itertools.chain.from_iterable(self.clips(info.num_frames, info.fps, info.source)))


@dataclass
class ClipSet:
    """The clips that give one prediction.

    Attributes:
        frames: `num_clips` tensors of T prepared frames each: uint8 (T, 3, H, W) if nothing prepared them.
        start, end: Seconds; None where the call did not bound the video.
        times: Seconds at which the frames of each clip are shown; nan for frames without a file.
        notes: What the reader found odd: repeated frames, damage.
    """

    frames: list[torch.Tensor]
    start: float | None = None
    end: float | None = None
    times: list[list[float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def as_decoded(frames):
    """The default of `prepare`: keep frames as they are."""
    return frames


def read_clips(source, recipe, reading, size=None, prepare=as_decoded):
    """The clips of a whole video, or of its part from `reading.start` to `reading.end`.

    Args:
        source: Any source of `read_video`.
        recipe: The `ClipRecipe`.
        reading: The `ReadOptions`.
        size: Size to decode to; None where only `prepare` can resize. Then a clip that is too large to be held at its full size
            (64 frames of a 4K video) is read and prepared a few frames at a time.
        prepare: (T, 3, H, W) to what is kept of it, frame by frame.
    """
    options = {"size": size, **vars(reading)}
    total = recipe.num_clips * recipe.num_frames
    try:
        parts = [read_video(source, sampler=recipe.indices, **options)]
        frames = prepare(parts[0].frames)
    except VideoTooLarge:
        if size is not None or total <= FRAMES_AT_A_TIME:
            raise
        parts, prepared = [], []
        for first in range(0, total, FRAMES_AT_A_TIME):
            part = read_video(source, sampler=PartOfRecipe(recipe, first), **options)
            prepared.append(prepare(part.frames))
            part.frames = None
            parts.append(part)
        frames = torch.cat(prepared)
    notes = list(dict.fromkeys(note for part in parts for note in part.notes))
    times = torch.cat([part.timestamps for part in parts]).split(recipe.num_frames)
    clips = list(frames.split(recipe.num_frames))
    return ClipSet(clips, reading.start, reading.end, [clip.tolist() for clip in times], notes)


@dataclass(frozen=True)
class PartOfRecipe:
    """A sampler for the next few frames of a recipe."""

    recipe: ClipRecipe
    first: int

    def __call__(self, info):
        return self.recipe.indices(info)[self.first : self.first + FRAMES_AT_A_TIME]


def read_windows(source, recipe, reading, window, stride=None, size=None, prepare=as_decoded):
    """The clips of every sliding window, in order, in one pass.

    Args:
        source: Any source of `read_video`.
        recipe: The `ClipRecipe`, applied inside each window.
        reading: The `ReadOptions`; windows start at `reading.start` and none passes `reading.end`.
        window, stride: Seconds; `stride` defaults to `window`.
        size, prepare: As in `read_clips`.

    Yields:
        `ClipSet` with `start` and `end` set.
    """
    check_timing(window, stride)
    stride = window if stride is None else stride
    info = probe_video(source, limits=reading.limits, allow_remote=reading.allow_remote)
    plan = plan_windows(info.duration, window, stride, reading.start or 0.0, reading.end)
    if reading.isolate:
        for start, end in plan:
            yield read_clips(source, recipe, replace(reading, start=start, end=end), size, prepare)
        return
    frames = iterate_video(
        source,
        start=reading.start,
        end=reading.end,
        size=size,
        limits=reading.limits,
        allow_remote=reading.allow_remote,
    )
    yield from cut_windows(frames, plan, recipe, info.fps, prepare)


def check_timing(window, stride=None):
    """Raise ValueError for what is no length of time; None asks for nothing."""
    for name, value in (("window", window), ("stride", stride)):
        if value is not None and not (isinstance(value, Real) and math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number of seconds, got {value!r}.")
        if value is not None and value < SHORTEST_TIMING:
            raise ValueError(f"{name} must be at least {SHORTEST_TIMING} s, less than any frame lasts, got {value!r}.")


def plan_windows(duration, window, stride, first=0.0, last=None):
    """Starts and ends in seconds; endless when neither the file nor the call says where the video ends."""
    end = min((value for value in (duration, last) if value is not None), default=None)
    if end is None:
        return ((first + k * stride, first + k * stride + window) for k in itertools.count())
    return ((first + a, first + b) for a, b in sliding_windows(max(end - first, _EPSILON), window, stride))


class OpenWindow:
    """A window whose frames are still arriving: a slot of every clip waits for the frame on display at its time."""

    def __init__(self, start, end, recipe, fps):
        rate = fps or NOMINAL_FPS
        first = math.ceil((start - _EPSILON) * rate)
        stop = max(math.ceil((end - _EPSILON) * rate), first + 1)
        self.start, self.end = start, end
        self.clips = recipe.clips(stop - first, fps)
        # Half a frame after its nominal time a frame is on display for certain.
        self.times = {index: (first + index + 0.5) / rate for clip in self.clips for index in clip}
        self.waiting = deque(sorted(self.times, key=self.times.get))
        self.frames, self.shown_at = {}, {}

    def take(self, shown, until):
        """`shown` was on display up to `until`."""
        while self.waiting and self.times[self.waiting[0]] < until:
            index = self.waiting.popleft()
            self.frames[index], self.shown_at[index] = shown.kept(), shown.seconds

    def finish(self, ended_at=None):
        stacked = [torch.stack([self.frames[index] for index in clip]) for clip in self.clips]
        times = [[self.shown_at[index] for index in clip] for clip in self.clips]
        if ended_at is None or ended_at >= self.end - _EPSILON:
            return ClipSet(stacked, self.start, self.end, times)
        return ClipSet(stacked, self.start, ended_at, times, [f"the video ended at {ended_at:.3f} s"])


class Shown:
    """The frame on display; it is prepared once, when the first window takes it."""

    def __init__(self, seconds, frame, prepare):
        self.seconds, self.frame, self.prepare, self.prepared = seconds, frame, prepare, None

    def kept(self):
        if self.prepared is None:
            self.prepared = self.prepare(self.frame[None])[0]
        return self.prepared


def cut_windows(frames, plan, recipe, fps, prepare=as_decoded):
    """Cut windows out of a stream of frames.

    Args:
        frames: Iterable of (seconds, frame), in order.
        plan: Iterable of (start, end), both increasing.
        recipe: The `ClipRecipe`.
        fps: Frame rate, or None.
        prepare: As in `read_clips`.

    Yields:
        `ClipSet` for each planned window, up to the first that reaches the last frame.
    """
    plan, opened, shown = iter(plan), deque(), None
    upcoming = next(plan, None)
    seconds, interval = 0.0, 1.0 / (fps or NOMINAL_FPS)
    for seconds, frame in frames:
        while upcoming is not None and upcoming[0] <= seconds + _EPSILON:
            opened.append(OpenWindow(*upcoming, recipe, fps))
            upcoming = next(plan, None)
        arrived = Shown(seconds, frame, prepare)
        for window in opened:
            window.take(arrived if shown is None else shown, until=seconds)
        shown = arrived
        while opened and not opened[0].waiting:
            yield opened.popleft().finish()
        if not opened and upcoming is None:
            return
    ended_at = seconds + interval
    for window in opened:
        window.take(shown, until=math.inf)
        yield window.finish(ended_at)
        if window.end >= ended_at - _EPSILON:  # the one that reaches the end is the last
            return
