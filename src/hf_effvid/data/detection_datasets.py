"""Windows of annotated videos as torch data sets for a temporal action detector: from features, or from pixels.

For training an item is a random window of a video, a function of (seed, epoch, index) alone. For testing the items are the windows that
the processor plans, those of one video after those of another, so that their detections can be put together again.
"""

import logging
import math

import torch
from torch.utils.data import Dataset

from ..models.time_grid import FeatureWindow, TimeGrid, window_starts
from ..models.video_errors import VideoError
from ..models.video_processing_effvid import decoding_size
from ..models.video_reader import probe_video, read_video
from .clips import SkippedClip
from .detection_annotations import AnnotatedVideo, DetectionAnnotations
from .label_directions import labels_forbid_flips
from .randomness import derive_rng, derive_seed
from .transforms import AugmentationConfig, TrainTransform
from .window_sampling import WindowSampling, cut_segments, draw_window


logger = logging.getLogger(__name__)

# what reading one video may fail with; a store's error is a ValueError of the video, a missing one a KeyError
_READ_ERRORS = (VideoError, OSError, ValueError, KeyError)


class DetectionWindows(Dataset):
    """What windows of features and windows of pixels share.

    Works with any number of forked or spawned loader workers, which may be persistent.

    Args:
        annotations: the videos and their actions.
        processor: an `ActionFormerProcessor`, which knows where steps lie in time.
        train: random windows for training; otherwise the windows that a test looks at.
        windows: a `WindowSampling`, or its fields as a dictionary.
        max_steps: steps of the longest window where neither the sampling nor the processor says.
        seed: the seed of everything random.
        on_error: "raise", or "skip": a video that cannot be read is replaced by the next one that can, and reported by `skipped`.
    """

    def __init__(
        self, annotations: DetectionAnnotations, processor, *, train, windows=None, max_steps=None, seed=0, on_error="skip"
    ):  # fmt: skip
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` must be 'raise' or 'skip', got {on_error!r}")
        self.annotations, self.processor, self.train = annotations, processor, train
        self.videos: list[AnnotatedVideo] = annotations.videos
        self.sampling = WindowSampling.from_fields(windows)
        self.longest = self.sampling.max_steps or processor.window_length or max_steps
        if self.longest is None:
            raise ValueError("training windows need a length: set `max_steps`, or the processor's `window_length`.")
        self.seed, self.on_error = seed, on_error
        numbers = {name: number for number, name in enumerate(annotations.class_names)}
        self._segments = [
            torch.tensor([(one.start, one.end) for one in video.usable()], dtype=torch.float64).reshape(-1, 2)
            for video in self.videos
        ]
        self._labels = [
            torch.tensor([numbers[one.label] for one in video.usable()], dtype=torch.int64) for video in self.videos
        ]
        # in shared memory: workers that live on see the new epoch, and the main process sees what workers skipped
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()
        self._bad = torch.zeros(len(self.videos), dtype=torch.uint8).share_memory_()
        self._errors: dict[int, str] = {}
        self.windows: list[FeatureWindow] = []
        self.windows_per_video = self.sampling.windows_per_video
        if not train or self.windows_per_video is None:
            planned = [self._planned(number) for number in range(len(self.videos))]
            self.windows = [] if train else [window for windows in planned for window in windows]
            self.windows_per_video = self.windows_per_video or self._windows_that_fit(planned)

    def __len__(self) -> int:
        return len(self.videos) * self.windows_per_video if self.train else len(self.windows)

    @property
    def epoch(self) -> int:
        """The epoch that random choices are made for."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is; call it before each one."""
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict:
        """One window.

        Returns:
            `input_features` (T, C) or `pixel_values` (T, C, H, W), floats; `grid_segments` (M, 2) in steps of the window and
            `class_labels` (M,); "index", the one that was read; "epoch".

        Raises:
            VideoError, OSError, ValueError, KeyError: the video cannot be read, with `on_error="raise"`; or none can, with "skip".
        """
        index = range(len(self))[index]  # negative ones too, and IndexError beyond the end
        error = None
        for step in range(len(self) if self.on_error == "skip" else 1):
            row = (index + step) % len(self)
            number = self.windows[row].video if not self.train else row % len(self.videos)
            if self._bad[number]:
                continue
            try:
                seed = derive_seed(self.seed, self.epoch, row)
                item = self._random_window(number, seed) if self.train else self._test_window(self.windows[row])
                return item | {"index": row, "epoch": self.epoch}
            except _READ_ERRORS as found:
                error = self._failed(number, found)
        raise error or ValueError(
            f"{self.annotations.name}: none of {len(self.videos)} videos can be read. Run `effvid check --task detection`."
        )

    @property
    def skipped(self) -> list[SkippedClip]:
        """The videos left out so far, by whichever process."""
        numbers = torch.nonzero(self._bad).flatten().tolist()
        return [
            SkippedClip(number, self.videos[number].path, self._errors.get(number, "unreadable")) for number in numbers
        ]

    def durations(self) -> list[float | None]:
        """Seconds of every video, that its detections are cut to; None where nobody knows."""
        return [video.duration for video in self.videos]

    def _planned(self, number: int) -> list[FeatureWindow]:
        try:
            return self._plan(number)
        except _READ_ERRORS as found:
            self._failed(number, found)
            return []

    def _failed(self, number: int, error: Exception) -> Exception:
        if self.on_error == "raise":
            raise error
        self._bad[number] = 1
        self._errors[number] = type(error).__name__
        logger.warning("skipped a video: %s", error)
        return error

    def _windows_that_fit(self, planned: list[list[FeatureWindow]]) -> int:
        steps = [windows[0].video_steps for windows in planned if windows]
        return max(1, round(sum(steps) / max(len(steps), 1) / self.longest))

    def _targets(self, number: int, window: FeatureWindow) -> dict:
        annotations = [{"segments": self._segments[number], "labels": self._labels[number]}]
        return self.processor.encode_annotations(annotations, [window._replace(video=0)])[0]

    def _plan(self, number: int) -> list[FeatureWindow]:
        """The windows that a test looks at."""
        raise NotImplementedError

    def _random_window(self, number: int, seed: int) -> dict:
        """Inputs and annotations of a window to train on."""
        raise NotImplementedError

    def _test_window(self, window: FeatureWindow) -> dict:
        """Inputs and annotations of a planned window."""
        raise NotImplementedError


class FeatureWindows(DetectionWindows):
    """Windows of stored features.

    Args:
        annotations, processor: see `DetectionWindows`, likewise the keyword arguments.
        store: video name -> features, their stride, length and rate: a `FeatureStore`.
    """

    def __init__(self, annotations, processor, store, **options):
        self.store = store
        super().__init__(annotations, processor, **options)

    def durations(self) -> list[float | None]:
        return [video.duration or self.store.info(video.name).duration for video in self.videos]

    def _grid(self, number: int, stored) -> tuple[TimeGrid, int]:
        """Where the steps of a video lie, and how many there are."""
        video, recipe = self.videos[number], self.processor
        for name in ("stride", "num_frames"):
            if getattr(stored, name) != getattr(recipe, f"feature_{name}"):
                raise ValueError(
                    f"{video.name}: features with {name}={getattr(stored, name):g} frames, but the processor says "
                    f"feature_{name}={getattr(recipe, f'feature_{name}'):g}."
                )
        steps = stored.num_steps if hasattr(stored, "num_steps") else len(stored.features)
        return recipe.time_grid(stored.fps or video.fps, steps), recipe.resize_length or steps

    def _plan(self, number: int) -> list[FeatureWindow]:
        info = self.store.info(self.videos[number].name)
        windows = self.processor.plan_windows([info.num_steps], fps=info.fps or self.videos[number].fps)
        self._grid(number, info)
        return [window._replace(video=number) for window in windows]

    def _random_window(self, number: int, seed: int) -> dict:
        stored = self.store[self.videos[number].name]
        grid, steps = self._grid(number, stored)
        segments = grid.to_steps(self._segments[number])
        margin = grid.start / grid.step  # half of what a feature sees
        first, length = draw_window(
            derive_rng(seed, "window"), steps, self.longest, segments, self.sampling, margin=margin
        )
        targets = {"grid_segments": segments.float(), "class_labels": self._labels[number]}
        if length < steps:
            cut, kept = cut_segments(segments, first, length, self.sampling.min_visible, margin)
            targets = {"grid_segments": cut.float(), "class_labels": self._labels[number][kept]}
        return {"input_features": self._encoded(stored, FeatureWindow(0, first, length, steps, None)), **targets}

    def _test_window(self, window: FeatureWindow) -> dict:
        stored = self.store[self.videos[window.video].name]
        features = self._encoded(stored, window._replace(video=0))
        return {"input_features": features, **self._targets(window.video, window)}

    def _encoded(self, stored, window: FeatureWindow) -> torch.Tensor:
        """(T, C), without the padding that only a batch needs."""
        return self.processor.encode_features([stored.features], [window])["input_features"][0, : window.num_steps]


class PixelWindows(DetectionWindows):
    """Windows of frames, decoded at the recipe's rate and size, only where they are needed.

    A random window is augmented as a whole: one crop, one flip, one change of colour for all of its frames.

    Args:
        annotations, processor: see `DetectionWindows`, likewise the keyword arguments.
        augmentation: an `AugmentationConfig`, the name of a preset, or None for "none".
        limits: what one file may cost, a `VideoLimits`.
    """

    def __init__(self, annotations, processor, augmentation=None, limits=None, **options):
        if isinstance(augmentation, str) or augmentation is None:
            augmentation = AugmentationConfig.from_preset(augmentation or "none")
        flips_allowed = processor.horizontal_flip_safe and not labels_forbid_flips(annotations.class_names)
        self.limits = limits
        self.transform = TrainTransform(processor, augmentation, allow_flip=flips_allowed)
        self.test_transform = TrainTransform(processor, AugmentationConfig.from_preset("none"), allow_flip=False)
        self.frames_per_step = int(processor.feature_stride)
        if processor.feature_stride != processor.feature_num_frames or self.frames_per_step < 1:
            raise ValueError(
                "the steps of a detector on pixels lie side by side: feature_stride and feature_num_frames must be the same whole "
                f"number, got {processor.feature_stride} and {processor.feature_num_frames}."
            )
        # seconds and rate of each file, as read; nan until somebody looked
        self._clocks = torch.full((len(annotations.videos), 2), float("nan"), dtype=torch.float64).share_memory_()
        super().__init__(annotations, processor, **options)

    def durations(self) -> list[float | None]:
        found = self._clocks[:, 0].tolist()
        return [None if math.isnan(seconds) else seconds for seconds in found]

    def _clock(self, number: int) -> tuple[float, int, TimeGrid]:
        """Frames per second that are looked at, how many there are, and where the steps lie."""
        if torch.isnan(self._clocks[number, 0]):
            info = probe_video(self.videos[number].path, self.limits)
            seconds = info.duration or info.num_frames / (info.fps or 25.0)
            self._clocks[number] = torch.tensor([seconds, info.fps or 25.0], dtype=torch.float64)
        seconds, native = self._clocks[number].tolist()
        per_step, length = self.frames_per_step, self.processor.resize_length
        if length is not None:  # the whole video, however long, in so many steps
            return length * per_step / seconds, length * per_step, TimeGrid(0.5 * seconds / length, seconds / length)
        fps = self.processor.feature_fps or native
        return fps, max(1, math.ceil(seconds * fps - 1e-6)), TimeGrid.from_frames(per_step, per_step, fps)

    def _plan(self, number: int) -> list[FeatureWindow]:
        _, frames, grid = self._clock(number)
        steps, longest = -(-frames // self.frames_per_step), self.processor.window_length or self.longest
        starts = window_starts(steps, longest, self.processor.window_overlap)
        return [FeatureWindow(number, first, min(longest, steps), steps, grid.shifted(first)) for first in starts]

    def _random_window(self, number: int, seed: int) -> dict:
        fps, frames, grid = self._clock(number)
        per_step = self.frames_per_step
        # in frames, so that a window need not begin where a step does
        in_frames = (self._segments[number] - grid.start) / grid.step * per_step
        window = draw_window(
            derive_rng(seed, "window"),
            frames,
            self.longest * per_step,
            in_frames,
            self.sampling,
            margin=0.5 * per_step,
        )
        first, length = window
        if length < frames:
            in_frames, kept = cut_segments(in_frames, first, length, self.sampling.min_visible, 0.5 * per_step)
        else:
            kept = torch.arange(len(in_frames))
        pixels = self._read(number, first, length, fps, self.transform, derive_seed(seed, "transform"))
        segments = (in_frames / per_step).float()
        return {"pixel_values": pixels, "grid_segments": segments, "class_labels": self._labels[number][kept]}

    def _test_window(self, window: FeatureWindow) -> dict:
        fps, frames, _ = self._clock(window.video)
        first = window.first * self.frames_per_step
        length = min(window.num_steps * self.frames_per_step, frames - first)
        pixels = self._read(window.video, first, length, fps, self.test_transform, 0)
        return {"pixel_values": pixels, **self._targets(window.video, window)}

    def _read(self, number: int, first: int, length: int, fps: float, transform: TrainTransform, seed: int):
        size = transform.decode_size or decoding_size(self.processor.recipe(), multi_view=False)
        # from one tick earlier: a part begins with the first frame in it, but at its first tick the frame before may still be shown
        before = min(first, 1)
        decoded = read_video(
            self.videos[number].path,
            start=(first - before) / fps,
            target_fps=fps,
            num_frames=before + length,
            size=size,
            limits=self.limits,
        )
        return transform(decoded.frames[before:], seed)
