"""From one row of a data set to model input: the reading that map-style and streaming data sets share."""

import logging
from dataclasses import replace

import torch

from ..models.clip_sampling import sample_train_clip
from ..models.video_errors import VideoLimits, VideoNotReadable
from ..models.video_processing_effvid import decoding_size
from ..models.video_reader import read_video
from .clip_cache import CachedVideo, ClipCache
from .label_directions import labels_forbid_flips
from .randomness import derive_seed
from .transforms import AugmentationConfig, TrainTransform


logger = logging.getLogger(__name__)


class ClipReader:
    """Reads the clip of a row.

    For training: a random clip by the recipe's sampling, decoded at little more than the model's size, augmented. For
    testing: exactly what the processor gives for the file.

    Args:
        processor: an `EffVidVideoProcessor`.
        train: which of the two.
        augmentation: an `AugmentationConfig`, the name of a preset, or None for "none".
        class_names: the classes; flips are off when they come in mirrored pairs.
        multi_view: for testing, all views of the recipe.
        limits: what one file may cost; default: `VideoLimits.default()`.
    """

    def __init__(self, processor, train, augmentation=None, class_names=(), multi_view=False, limits=None):
        if train and multi_view:
            raise ValueError("`multi_view` is a way of testing; training clips are single views")
        if isinstance(augmentation, str) or augmentation is None:
            augmentation = AugmentationConfig.from_preset(augmentation or "none")
        self.processor, self.train, self.multi_view = processor, train, multi_view
        self.limits: VideoLimits | None = limits
        self.flips_forbidden_by = why_no_flip(processor, class_names)
        self.transform = TrainTransform(processor, augmentation, allow_flip=not self.flips_forbidden_by)
        if train and augmentation.flip_probability and self.flips_forbidden_by:
            logger.info("no horizontal flips: %s", self.flips_forbidden_by)

    def __call__(self, row: dict, seed: int, cache: ClipCache | None = None, key: int | None = None) -> torch.Tensor:
        """Read one row.

        Args:
            row: with "video", and "start" / "end" in seconds where only a part is meant.
            seed: the seed of a training clip.
            cache: where decoded videos are kept.
            key: the row's name in the cache.

        Returns:
            float (T, C, H, W); with `multi_view` (V, T, C, H, W).

        Raises:
            VideoError: the video cannot be read.
        """
        if self.train:
            frame_seed = derive_seed(seed, "frames")
            frames = read_sampled_frames(
                row,
                lambda info: sample_by_recipe(self.processor, info, frame_seed),
                self._size,
                self.limits,
                cache,
                key,
            )
            return self.transform(frames, derive_seed(seed, "transform"))
        found = cache.get(key) if cache is not None else None
        if found is None:
            part = {"start": row.get("start"), "end": row.get("end"), "limits": self.limits}
            found = self.processor(open_value(row["video"], self.limits), multi_view=self.multi_view, **part)
            found = found["pixel_values"]
            if cache is not None:
                cache.put(key, found)
        return found if self.multi_view else found[0]

    @property
    def _size(self):
        return self.transform.decode_size or decoding_size(self.processor.recipe(), multi_view=False)


def read_sampled_frames(
    row: dict, sample, size, limits: VideoLimits | None = None, cache: ClipCache | None = None, key=None
) -> torch.Tensor:
    """The frames of a row that a sampler chooses, in its order; each is decoded once, however often it is named.

    Args:
        row: see `ClipReader`.
        sample: `VideoInfo` of the part -> frame numbers within the part.
        size: of the frames, see `read_video`.
        limits: what the file may cost.
        cache: where decoded videos are kept.
        key: the row's name in the cache.

    Returns:
        uint8 (N, 3, H, W).

    Raises:
        VideoError: the video cannot be read.
    """
    cached: CachedVideo | None = cache.get(key) if cache is not None else None
    if cached is None:
        whole = []  # the part's description, when all of its frames are read to be kept

        def choose(info):
            num_bytes = _decoded_bytes(info, size)
            if cache is not None and cache.has_room(num_bytes):
                whole.append(info)
                return range(info.num_frames)
            return sample(info)

        decoded = read_video(
            open_value(row["video"], limits),
            start=row.get("start"),
            end=row.get("end"),
            size=size,
            limits=limits,
            sampler=choose,
        )
        if not whole:
            return decoded.frames
        cached = CachedVideo(decoded.frames, replace(whole[0], source=str(key)))
        cache.put(key, cached)
    # A container may claim more frames than it holds; the reader repeats the last one, and so do we.
    last = len(cached.frames) - 1
    return cached.frames[[min(index, last) for index in sample(cached.info)]]


def sample_by_recipe(recipe, info, seed) -> list[int]:
    """The frames of a random clip, by a processor's recipe; `seed` is that of `sample_train_clip`."""
    return sample_train_clip(
        info.num_frames,
        recipe.num_frames,
        sampling=recipe.sampling,
        frame_stride=recipe.frame_stride,
        fps=info.fps,
        target_fps=recipe.target_fps,
        short_clip_policy=recipe.short_clip_policy,
        seed=seed,
    )


def why_no_flip(processor, class_names) -> str:
    """What forbids horizontal flips, for a message; empty where nothing does."""
    if not processor.horizontal_flip_safe:
        return "the recipe says that labels depend on left and right"
    pairs = labels_forbid_flips(class_names)
    return "the labels " + ", ".join(f"{a!r} / {b!r}" for a, b in pairs[:3]) + " mirror each other" if pairs else ""


def open_value(value, limits: VideoLimits | None = None):
    """What the reader can open of a `datasets` video value; files on the Hub are fetched through `fsspec`."""
    path = value.get("path") if isinstance(value, dict) else None
    if path is None or value.get("bytes") is not None or not ("hf://" in path or "::" in path):
        return value
    import fsspec

    limit = (limits or VideoLimits.default()).max_bytes
    try:
        with fsspec.open(path, "rb") as handle:
            content = handle.read(limit + 1)
    except Exception as error:  # every file system has errors of its own
        raise VideoNotReadable(path, f"cannot be fetched ({type(error).__name__}: {error})", "Try again.") from error
    return content  # when it is too long, the reader says so


def _decoded_bytes(info, size) -> int:
    if isinstance(size, tuple):
        pixels = size[0] * size[1]
    elif size is None:
        pixels = info.width * info.height
    else:
        short, long = sorted((info.width, info.height))
        pixels = size * max(size, round(size * long / short))
    return 3 * pixels * info.num_frames
