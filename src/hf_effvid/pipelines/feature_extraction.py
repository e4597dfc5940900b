"""Videos of any length to features in time, through the trunk of a classifier or of a detector: what `effvid cache --features` runs.

```python
extractor = FeatureExtractor("MCG-NJU/videomae-base-finetuned-kinetics", clip_stride=8, fps=16)
extractor("match.mp4").features                                            # (T, C)
with FeatureStoreWriter("features/", extractor.recipe()) as store:          # resumable
    extract_features(extractor, {"match": "match.mp4"}, store)
```

Two grids, both counted in frames at `fps`:

- *clips*: feature i is the mean over all tokens of frames [i s, i s + F), s = `clip_stride`, F the trunk's frames per clip; that is
  stride = s and num_frames = F.
- *steps*: feature i stands for frames [i f, (i + 1) f), f = `frames_per_step`, out of clips side by side, averaged over space alone and
  interpolated where the trunk has another pace; stride = num_frames = f. It is what a detector with this trunk computes end to end.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from ..models.clip_trunks import run_trunk
from ..models.detection_frames import TickedFrames
from ..models.temporal_resize import resized_places, sample_between
from .feature_trunk import FeatureModelError, open_trunk


__all__ = ["ExtractedFeatures", "FeatureExtractor", "FeatureModelError", "extract_features"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# frames that are resized and normalised at a time; nothing larger than a clip waits at the size of the file
_FRAMES_AT_A_TIME = 8


class ExtractedFeatures(NamedTuple):
    """Features of one video.

    Attributes:
        features: (T, C) float32, on the CPU.
        stride: frames from one feature to the next.
        num_frames: frames that a feature stands for.
        fps: frames per second that the two count.
        duration: seconds of the video.
    """

    features: torch.Tensor
    stride: int
    num_frames: int
    fps: float
    duration: float


class FeatureExtractor:
    """Features of videos, one video at a time; memory depends on `batch_size`, not on the length of the video.

    Args:
        model: a video classifier or a detector with a backbone, or its folder or Hub id; types of trunks: see `clip_trunks.py`.
        processor: its processor; None: the one saved with the model.
        frames_per_step: give steps, of so many frames. None: those of a detector; clips for a classifier.
        clip_stride: give clips, so many frames apart. None: clips side by side, where `frames_per_step` does not ask for steps.
        fps: frames per second that are looked at. None: what the recipe samples at, or else every frame.
        batch_size: clips per forward pass.
        dtype: of the weights and of the computation: "float32", "bfloat16", "float16".
        device: torch device; None: CUDA where there is one.
        limits: a `VideoLimits`.
        allow_remote: whether http(s) addresses may be downloaded.
        trust_remote_code: run model code that comes with the checkpoint.

    Raises:
        FeatureModelError: the model gives no features of clips.
        ValueError: arguments that make no sense.
    """

    def __init__(
        self,
        model,
        processor=None,
        *,
        frames_per_step: int | None = None,
        clip_stride: int | None = None,
        fps: float | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        device=None,
        limits=None,
        allow_remote: bool = False,
        trust_remote_code: bool = False,
    ):
        if frames_per_step is not None and clip_stride is not None:
            raise ValueError("give `frames_per_step` for steps, or `clip_stride` for clips, not both.")
        for name, value in (
            ("frames_per_step", frames_per_step),
            ("clip_stride", clip_stride),
            ("batch_size", batch_size),
        ):
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")
        if fps is not None and not fps > 0:
            raise ValueError(f"`fps` must be greater than 0, got {fps!r}.")
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}.")
        self.trunk = open_trunk(model, processor, trust_remote_code)
        self.clip_frames = self.trunk.clip_frames
        if clip_stride is None:
            frames_per_step = frames_per_step or self.trunk.frames_per_step
        self.frames_per_step = frames_per_step
        self.clip_stride = self.clip_frames if clip_stride is None else clip_stride
        self.fps = fps if fps is not None else self.trunk.fps
        self.batch_size, self.dtype = batch_size, dtype
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.reading = {"limits": limits, "allow_remote": allow_remote}
        self._fingerprint = self.trunk.fingerprint()
        self.trunk.module.to(self.device, DTYPES[dtype])
        self._inputs = self.trunk.inputs()

    def recipe(self) -> dict[str, Any]:
        """What the features depend on, in terms of JSON: what a store is resumed by."""
        steps = {"frames_per_step": self.frames_per_step}
        return {
            "model": os.path.basename(os.path.abspath(self.trunk.name))
            if os.path.isdir(self.trunk.name)
            else self.trunk.name,
            "weights": self._fingerprint,
            "clip_frames": self.clip_frames,
            **(steps if self.frames_per_step else {"clip_stride": self.clip_stride}),
            "fps": self.fps,
            "dtype": self.dtype,
            "pixels": self.trunk.spatial_recipe(),
        }

    @torch.no_grad()
    def __call__(self, source) -> ExtractedFeatures:
        """Features of one video, any source that `read_video` takes.

        Raises:
            VideoError: it cannot be read.
        """
        ticks = TickedFrames(source, self.fps, self._inputs.decoding_size(1), **self.reading)
        per_clip = torch.cat([self._encode(batch) for batch in self._batches(self._pixels(ticks))])
        if self.frames_per_step:
            per_clip = self._steps(per_clip, ticks.num_ticks)
            stride = num_frames = self.frames_per_step
        else:
            stride, num_frames = self.clip_stride, self.clip_frames
        return ExtractedFeatures(per_clip, stride, num_frames, ticks.fps, ticks.seconds)

    def _pixels(self, ticks) -> Iterator[torch.Tensor]:
        """Frames (3, h, w) as the trunk takes them."""
        chunk = []
        for frame in ticks:
            chunk.append(frame)
            if len(chunk) == _FRAMES_AT_A_TIME:
                yield from self._prepare(chunk)
                chunk = []
        if chunk:
            yield from self._prepare(chunk)

    def _prepare(self, chunk: list[torch.Tensor]) -> torch.Tensor:
        return self._inputs.rows([self._inputs.prepare(torch.stack(chunk), 1)], 1)[0]

    def _batches(self, frames: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Clips (N, F, 3, h, w), N = `batch_size` but for the last."""
        batch = []
        for clip in cut_clips(
            frames, self.clip_frames, self.clip_frames if self.frames_per_step else self.clip_stride
        ):
            batch.append(clip)
            if len(batch) == self.batch_size:
                yield torch.stack(batch)
                batch = []
        if batch:
            yield torch.stack(batch)

    def _encode(self, clips: torch.Tensor) -> torch.Tensor:
        """(N, C) per clip, or (N t, C) where steps are wanted; in single precision from here on, as in the detector."""
        tokens = run_trunk(self.trunk.module, clips.to(self.device, DTYPES[self.dtype]))
        per_step = tokens.per_step().float().cpu()
        return per_step.flatten(0, 1) if self.frames_per_step else per_step.mean(dim=1)

    def _steps(self, per_clip: torch.Tensor, num_frames: int) -> torch.Tensor:
        """(N t, C), t per clip, to one feature per step of the grid."""
        num_steps, num_clips = -(-num_frames // self.frames_per_step), -(-num_frames // self.clip_frames)
        scale = len(per_clip) // num_clips * self.frames_per_step / self.clip_frames
        places = resized_places(num_steps, scale, torch.tensor([[len(per_clip)]]))
        return sample_between(per_clip[None], places)[0]


def cut_clips(frames: Iterable[torch.Tensor], length: int, stride: int) -> Iterator[torch.Tensor]:
    """Clips (length, ...) that begin every `stride` frames, as soon as they are complete.

    A video's last frame fills up the last clip, which is there if it shows a frame that no clip before it shows.
    """
    kept: list[torch.Tensor] = []
    number = next_start = 0
    for frame in frames:
        if number >= next_start:
            kept.append(frame)
        number += 1
        if len(kept) == length:
            yield torch.stack(kept)
            kept = kept[stride:]
            next_start += stride
    if not number:
        return
    unseen = number - max(next_start - stride + length, 0) if next_start else number
    if kept and unseen > 0:
        yield torch.stack(kept + [kept[-1]] * (length - len(kept)))


def extract_features(extractor: FeatureExtractor, videos, store, progress: bool = False) -> dict[str, int]:
    """Extract the features of many videos into a store; what it holds already is passed over.

    A video that cannot be read, or whose features are not finite, is recorded in the store with the reason; the others go on.

    Args:
        extractor: the `FeatureExtractor`.
        videos: name -> source, or an iterable of (name, source).
        store: a `FeatureStoreWriter`, or what has its `in`, `add` and `add_error`.
        progress: show a bar.

    Returns:
        How many videos were `added`, `kept` from an earlier run and `failed`.
    """
    counts = {"added": 0, "kept": 0, "failed": 0}
    total = len(videos) if hasattr(videos, "__len__") else None
    items = videos.items() if isinstance(videos, Mapping) else videos
    for name, source in tqdm(items, total=total, unit="video", disable=not progress):
        if name in store:
            counts["kept"] += 1
            continue
        try:
            store.add(name, extractor(source))
            counts["added"] += 1
        except (ValueError, OSError) as error:  # VideoError is one of the first
            store.add_error(name, error)
            counts["failed"] += 1
    return counts
