"""One decoded clip for several models: each reads its own frames of it, in its own size and normalisation.

The models see the same moment in the same way: one random phase decides where every recipe's clip lies, and one draw decides on crop,
flip, colour and erased box, relative to the picture. What a model is given depends on its own recipe, the settings and the video alone,
not on which other models are read for, so that a teacher's answers can be computed once and served later. (By default, one of the
settings follows the models: the size at which frames are decoded. Another size gives the same views, resampled otherwise.)
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..models.video_errors import VideoLimits
from ..models.video_processing_effvid import EffVidVideoProcessor, decoding_size
from .clip_cache import ClipCache
from .clip_reader import read_sampled_frames, sample_by_recipe, why_no_flip
from .randomness import derive_seed
from .transforms import AugmentationConfig, ClipOrigin, TrainTransform


_MIXING = ("mixup_alpha", "cutmix_alpha", "mix_probability", "cutmix_box")


@dataclass(frozen=True)
class ViewSettings:
    """What the random views of a clip depend on, apart from the video and the model's own recipe.

    Attributes:
        augmentation: what is done to clips.
        horizontal_flips: False keeps left and right apart whatever the augmentation says.
        decode_size: shorter side, in pixels, at which frames are decoded before they are cropped; None: what the recipes say, without
            random crops.
        views: only so many views of each clip exist, taken in turn by the epochs; None: a new one in every epoch.
        seed: of these views; that of the run has no influence on them.
    """

    augmentation: AugmentationConfig
    horizontal_flips: bool
    decode_size: int | None
    views: int | None = None
    seed: int = 0

    def __post_init__(self):
        if self.views is not None and (isinstance(self.views, bool) or self.views < 1):
            raise ValueError(f"`views` must be at least 1, or None for new ones in every epoch, got {self.views!r}")

    @classmethod
    def make(
        cls, processors, augmentation=None, class_names=(), views=None, seed=0, decode_size=None, horizontal_flips=None
    ) -> "ViewSettings":
        """Settings that fit some models.

        Args:
            processors: their recipes.
            augmentation: an `AugmentationConfig`, the name of a preset, or None for "none".
            class_names: flips are off when they come in mirrored pairs.
            views, seed: see the class.
            decode_size: default: what suits the largest of the models.
            horizontal_flips: False forbids flips, True allows them whatever names and recipes say; None: these decide.
        """
        if isinstance(augmentation, str) or augmentation is None:
            augmentation = AugmentationConfig.from_preset(augmentation or "none")
        if horizontal_flips is None:
            horizontal_flips = not any(why_no_flip(processor, class_names) for processor in processors)
        if augmentation.scale is None:
            decode_size = None
        elif decode_size is None:
            decode_size = max(TrainTransform(processor, augmentation).decode_size for processor in processors)
        return cls(augmentation, bool(horizontal_flips), decode_size, views, seed)

    def identity(self) -> dict:
        """What two runs must share to see the same views, in terms of JSON. The number of views is not part of it: view 0 of two
        is view 0 of four."""
        done = {name: value for name, value in self.augmentation.to_dict().items() if name not in _MIXING}
        return {
            "augmentation": {name: list(value) if isinstance(value, tuple) else value for name, value in done.items()},
            "horizontal_flips": self.horizontal_flips,
            "decode_size": self.decode_size,
            "view_seed": self.seed,
        }

    def view_of_epoch(self, epoch: int) -> int:
        """The number of the view that an epoch sees."""
        return epoch % self.views if self.views else epoch

    def seed_of_view(self, clip: str, view: int) -> int:
        """The seed of one view of a clip, given by its `row_key`: the same in every run, whatever its own seed and the order of its rows."""
        return derive_seed("view", self.seed, view, clip)


class SharedViewReader:
    """Reads a random view of a clip for several models at once; the video is decoded once.

    Args:
        processors: name of the model -> its `EffVidVideoProcessor`.
        settings: of the views.
        limits: what one file may cost; default: `VideoLimits.default()`.

    Raises:
        TypeError: a processor of another kind.
    """

    def __init__(self, processors: Mapping, settings: ViewSettings, limits: VideoLimits | None = None):
        for name, processor in processors.items():
            if not hasattr(processor, "transform_clip"):
                raise TypeError(
                    f"the processor of {name!r} must be an EffVidVideoProcessor, which says how its clips are sampled, got "
                    f"{type(processor).__name__}: build one with the model's frames, size, mean and deviation."
                )
        self.processors: dict[str, EffVidVideoProcessor] = dict(processors)
        self.settings, self.limits = settings, limits
        self.transforms = {
            name: TrainTransform(processor, settings.augmentation, allow_flip=settings.horizontal_flips)
            for name, processor in self.processors.items()
        }

    def __call__(
        self, row: dict, seed: int, cache: ClipCache | None = None, key: int | None = None
    ) -> dict[str, torch.Tensor]:
        """Read one row.

        Args:
            row: with "video", and "start" / "end" in seconds where only a part is meant.
            seed: the seed of the view.
            cache: where decoded videos are kept.
            key: the row's name in the cache.

        Returns:
            Name of the model -> float (T, C, H, W), each as its recipe has it.

        Raises:
            VideoError: the video cannot be read.
        """
        clips: dict[str, list[int]] = {}
        size = []

        def choose(info):
            size[:] = info.height, info.width
            for name, processor in self.processors.items():
                clips[name] = sample_by_recipe(processor, info, SharedPhase(derive_seed(seed, "frames")))
            return sorted({index for clip in clips.values() for index in clip})

        frames = read_sampled_frames(row, choose, self._decode_size, self.limits, cache, key)
        place = {index: i for i, index in enumerate(sorted({index for clip in clips.values() for index in clip}))}
        transform_seed = derive_seed(seed, "transform")
        return {
            name: self.transforms[name](
                frames[[place[index] for index in clip]], transform_seed, ClipOrigin(clip, tuple(size))
            )
            for name, clip in clips.items()
        }

    @property
    def _decode_size(self):
        if self.settings.augmentation.scale is not None:
            return self.settings.decode_size
        # Every recipe resizes for itself, and the same whether here or while decoding: the latter where all agree.
        sizes = {decoding_size(processor.recipe(), multi_view=False) for processor in self.processors.values()}
        return sizes.pop() if len(sizes) == 1 else None


class SharedPhase(random.Random):
    """Draws that are proportional to their range: the same seed puts clips of different lengths at the same relative place.

    A shorter clip of neighbouring frames then lies inside the longer one of the same draw.
    """

    def randrange(self, start, stop=None, step=1):
        low, high = (0, start) if stop is None else (start, stop)
        return low + int(self.random() * (high - low))
