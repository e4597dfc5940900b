"""EffVidVideoProcessor: the test recipe of a checkpoint, saved with it and applied to any video.

A recipe says which frames are looked at (`sampling`, `num_frames`, `frame_stride`, `target_fps`, `short_clip_policy`), how each frame
becomes model input (`size`, `crop_size`, mean and standard deviation) and how several views of one video are averaged (`num_clips`,
`num_crops`, `aggregation`). It lives in `video_preprocessor_config.json`, so nobody has to remember it.

Decoding is the reader's job (`video_reader`), index arithmetic the sampler's (`clip_sampling`); this file turns uint8 frames into
`pixel_values` in one place, `transform_clip`. Frames are already resized while they are decoded, with the same function, so the memory
that a video needs is that of the clip at model size.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms.v2.functional as tvF
from huggingface_hub.dataclasses import validate_typed_dict
from transformers.image_processing_utils import BatchFeature, get_size_dict
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
    infer_channel_dimension_format,
    is_valid_image,
)
from transformers.processing_utils import VideosKwargs
from transformers.utils import IMAGE_PROCESSOR_NAME
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, is_valid_video

from .clip_sampling import (
    CLIP_DRAWS,
    SAMPLINGS,
    SHORT_CLIP_POLICIES,
    check_choice,
    check_count,
    check_rate,
    draw_seed,
    sample_clips,
)
from .video_pixels import output_size
from .video_pixels import resize as resize_pixels
from .video_reader import VideoLimits, read_video


AGGREGATIONS = ("softmax_mean", "logit_mean")
VIEW_ORDERS = ("clip_first", "crop_first")
CROP_LAYOUTS = ("long_side", "diagonal")

# Where a crop lies along the long side, from 0 (left, or top of a portrait video) to 1 (right, or bottom); on the diagonal, from the
# top left corner to the bottom right one.
CROP_POSITIONS = {"left": 0.0, "top": 0.0, "center": 0.5, "middle": 0.5, "right": 1.0, "bottom": 1.0}


class EffVidVideoProcessorKwargs(VideosKwargs, total=False):
    """The recipe fields that a checkpoint saves, next to the ones every transformers video processor has.

    sampling: "uniform" (over the whole video), "dense" (consecutive frames, `frame_stride` apart) or "segment" (TSN).
    frame_stride: distance of two frames in a dense clip, in frames of the video.
    target_fps: when set, a dense clip has this many frames per second, whatever the rate of the file.
    short_clip_policy: what a video with too few frames does: "repeat_last", "loop" or "error".
    num_clips, num_crops: temporal and spatial views of one video in a multi-view test.
    clip_draw, clip_seed: where several clips lie, "even" (always the same) or "random" (drawn as in training, under this seed).
    crop_order: the crops of one clip, names of CROP_POSITIONS or numbers; default: along the long side from left to right.
        Another number of crops than the recipe's, asked for in a call, goes back to that.
    crop_layout: "long_side" (crops side by side, centred along the short side) or "diagonal" (top left, centre, bottom right). The two
        are the same where the short side is resized to the size of the crop.
    view_order: rows of a video, "clip_first" (clip 0 in all crops, clip 1, ...) or "crop_first". No average depends on the two.
    multi_view_size: the size to resize to when there are several crops, when it differs from `size` (short side 224 instead of 256).
    aggregation: how views become one score, "softmax_mean" or "logit_mean".
    horizontal_flip_safe: False when a label depends on left and right, so that nobody flips the training clips.
    """

    sampling: str | None
    frame_stride: int | None
    target_fps: int | float | None
    short_clip_policy: str | None
    num_clips: int | None
    num_crops: int | None
    clip_draw: str | None
    clip_seed: int | None
    crop_order: list[str | float | int] | None
    crop_layout: str | None
    view_order: str | None
    multi_view_size: int | dict[str, int] | None
    aggregation: str | None
    horizontal_flip_safe: bool | None


SAMPLING_FIELDS = (
    "num_frames",
    "sampling",
    "frame_stride",
    "target_fps",
    "short_clip_policy",
    "clip_draw",
    "clip_seed",
)
IMAGE_PROCESSOR_FIELDS = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


@dataclass(frozen=True)
class ReadOptions:
    """How one call reads its videos: never part of a recipe, so that no downloaded file can switch a safeguard off."""

    start: float | None = None
    end: float | None = None
    limits: VideoLimits | None = None
    isolate: bool = False
    allow_remote: bool = False


@dataclass(frozen=True)
class FlatSampler:
    """All clips after each other: what `read_video` takes as a sampler, picklable for its worker process."""

    clips_of: object

    def __call__(self, info):
        return [index for clip in self.clips_of(info) for index in clip]


class EffVidVideoProcessor(BaseVideoProcessor):
    """Applies a checkpoint's recipe: `processor(videos) -> {"pixel_values": (B, T, C, H, W)}`, float32.

    Args:
        **kwargs: recipe fields, see `EffVidVideoProcessorKwargs`; the class attributes are the defaults.

    Example:
        >>> processor = EffVidVideoProcessor(num_frames=8, size={"shortest_edge": 256}, crop_size=224)
        >>> processor("dog.mp4")["pixel_values"].shape
        torch.Size([1, 8, 3, 224, 224])
        >>> processor(["dog.mp4", "cat.webm"], multi_view=True, num_clips=4, num_crops=3)["pixel_values"].shape
        torch.Size([24, 8, 3, 224, 224])
    """

    valid_kwargs = EffVidVideoProcessorKwargs
    model_input_names = ["pixel_values"]
    default_to_square = False
    do_sample_frames = True
    do_convert_rgb = True
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    resample = PILImageResampling.BILINEAR
    size = {"shortest_edge": 256}
    crop_size = {"height": 224, "width": 224}
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    num_frames = 8
    sampling = "uniform"
    frame_stride = 1
    target_fps = None
    short_clip_policy = "repeat_last"
    num_clips = 1
    num_crops = 1
    clip_draw = "even"
    clip_seed = 0
    crop_order = None
    crop_layout = "long_side"
    view_order = "clip_first"
    multi_view_size = None
    aggregation = "softmax_mean"
    horizontal_flip_safe = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        check_recipe(self.recipe())
        if self.crop_order and len(self.crop_order) != self.num_crops:
            raise ValueError(f"crop_order must name num_crops={self.num_crops} places, got {self.crop_order!r}.")

    # ---- frames -> pixel values -------------------------------------------------------------------------------------

    def transform_clip(self, frames, crop="center", multi_view=False, **overrides):
        """Resize, crop, rescale and normalise the frames of one clip: the only definition of the spatial recipe.

        Args:
            frames: (T, C, H, W), uint8 (0..255), or float.
            crop: "center", or where the crop lies along the long side: "left" | "right" (the same as "top" | "bottom"), or a number
                from 0 to 1. Along the short side a crop is centred; with `crop_layout="diagonal"` it moves along both sides.
            multi_view: resize to `multi_view_size` when the recipe has one.
            **overrides: fields of the recipe to change for this call.

        Returns:
            (T, C, crop height, crop width) float32.
        """
        recipe = self.recipe(**overrides)
        if recipe["do_resize"]:
            frames = self.resize(frames, target_size(recipe, multi_view), resample=recipe["resample"])
        if recipe["do_center_crop"]:
            crop_size = as_size(recipe["crop_size"], default_to_square=True)
            frames = crop_frames(frames, crop_size, crop, recipe["crop_layout"])
        if recipe["device"] is not None:
            frames = frames.to(recipe["device"])
        frames = self.rescale_and_normalize(
            frames,
            recipe["do_rescale"],
            recipe["rescale_factor"],
            recipe["do_normalize"],
            as_channels(recipe["image_mean"]),
            as_channels(recipe["image_std"]),
        )
        return frames.float()

    def resize(self, image, size, resample=None, **kwargs):
        """Resize (T, C, H, W); uint8 colour frames bilinearly with the reader's own function, so that decode-time resizing is equal."""
        plain = not size.longest_edge and not size.max_height
        bilinear = resample is None or resample == PILImageResampling.BILINEAR
        if image.dtype != torch.uint8 or image.shape[-3] != 3 or not plain or not bilinear:
            return super().resize(image, size=size, resample=resample, **kwargs)
        wanted = (size.height, size.width) if size.height and size.width else size.shortest_edge
        height, width = output_size(*image.shape[-2:], wanted)
        if image.shape[-2:] == (height, width):
            return image
        pixels = image.permute(0, 2, 3, 1).cpu().numpy()
        resized = np.stack([resize_pixels(frame, height, width) for frame in pixels])
        return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous().to(image.device)

    def recipe(self, **overrides):
        """The fields of the recipe as a dict, changed by `overrides` (None means: as saved)."""
        fields = {name: getattr(self, name, None) for name in self.valid_kwargs.__annotations__}
        unknown = sorted(overrides.keys() - fields.keys())
        if unknown:
            raise TypeError(f"Unknown arguments {unknown}: expected some of {sorted(fields)}.")
        return fields | {name: value for name, value in overrides.items() if value is not None}

    def _preprocess(self, videos, num_crops=1, return_tensors="pt", num_clips=1, **recipe):
        """Clips (T, C, H, W) to rows: `num_crops` per clip, `num_clips` clips per video in a row."""
        if num_crops > 1 and not recipe["do_center_crop"]:
            raise ValueError(f"num_crops={num_crops} needs do_center_crop=True, got {recipe['do_center_crop']}.")
        positions = crop_positions(num_crops, recipe["crop_order"])
        rows = []
        for first in range(0, len(videos), num_clips):
            clips = videos[first : first + num_clips]
            views = [(clip, crop) for clip in clips for crop in positions]
            if recipe["view_order"] == "crop_first":
                views = [(clip, crop) for crop in positions for clip in clips]
            rows += [self.transform_clip(clip, crop, multi_view=num_crops > 1, **recipe) for clip, crop in views]
        shapes = sorted({tuple(row.shape) for row in rows})
        if return_tensors is not None and len(shapes) > 1:
            raise ValueError(
                f"Clips of different shapes {shapes} do not fit one batch: keep do_center_crop=True and one num_frames, "
                "or pass return_tensors=None for a list."
            )
        return BatchFeature(data={"pixel_values": rows}, tensor_type=return_tensors)

    # ---- time -------------------------------------------------------------------------------------------------------

    def frame_indices(self, info, num_clips=1, fps=None, **overrides):
        """Which frames the recipe looks at.

        Args:
            info: what is known of the video: anything with `num_frames` (or `total_num_frames`) and `fps`.
            num_clips: number of clips, spread over the video.
            fps: sample that many frames per second uniformly instead of a fixed `num_frames`.
            **overrides: fields of the recipe to change for this call.

        Returns:
            `num_clips` lists of frame indices (they may repeat when the video is short).
        """
        recipe = self.recipe(**overrides)
        total = info.num_frames if hasattr(info, "num_frames") else info.total_num_frames
        num_frames = recipe["num_frames"]
        if fps is not None:
            if not info.fps:
                raise ValueError(
                    f"fps={fps} was asked for, but the video's frame rate is unknown: pass num_frames instead."
                )
            num_frames = max(1, int(total / info.fps * fps))
        return sample_clips(
            total,
            total if num_frames is None else num_frames,
            sampling=recipe["sampling"] if fps is None and num_frames is not None else "uniform",
            frame_stride=recipe["frame_stride"],
            fps=info.fps,
            target_fps=recipe["target_fps"],
            num_clips=num_clips,
            short_clip_policy=recipe["short_clip_policy"],
            clip_draw=recipe["clip_draw"],
            seed=draw_seed(recipe["clip_seed"], getattr(info, "source", "")),
        )

    def sample_frames(self, metadata, num_frames=None, fps=None, **kwargs):
        """The hook of the base class: indices (T,) of one clip. `fps` counts only when `num_frames` is not given.

        Short videos repeat frames (see `short_clip_policy`), where the base class raises.
        """
        overrides = {name: value for name, value in kwargs.items() if name in self.valid_kwargs.__annotations__}
        overrides.pop("num_clips", None)
        fps = fps if num_frames is None else None
        return np.asarray(self.frame_indices(metadata, fps=fps, num_frames=num_frames, **overrides)[0])

    # ---- videos -> frames -------------------------------------------------------------------------------------------

    def preprocess(
        self,
        videos,
        multi_view=False,
        start=None,
        end=None,
        limits=None,
        isolate=False,
        allow_remote=False,
        return_tensors="pt",
        **kwargs,
    ):
        """Videos to model input.

        Args:
            videos: one video or a list: path, bytes, file object, `datasets` Video value, torchcodec decoder, frames (a list of PIL
                images or arrays, or one array of shape (T, C, H, W) or (T, H, W, C)); http(s) only with `allow_remote=True`.
            multi_view: take the recipe's `num_clips` x `num_crops` views; passing one of the two asks for it, too.
            start, end: the part of the video to look at, in seconds.
            limits: a `VideoLimits` other than the default.
            isolate: decode in a worker process, which a hostile file may crash without harm.
            allow_remote: let strings be http(s) addresses.
            return_tensors: "pt", "np", or None for a list of tensors.
            **kwargs: fields of the recipe to change for this call; `do_sample_frames=False` takes every frame of the video.

        Returns:
            BatchFeature with `pixel_values` (B * views, T, C, H, W), rows grouped per video, clips before crops (clip 0 left, centre,
            right, clip 1 left, ...) unless the recipe orders them otherwise.

        Raises:
            VideoError: a video cannot be read; it names the source, what was found and what to do.
        """
        validate_typed_dict(self.valid_kwargs, kwargs)
        reading = ReadOptions(start=start, end=end, limits=limits, isolate=isolate, allow_remote=allow_remote)
        multi_view = multi_view or kwargs.get("num_clips") is not None or kwargs.get("num_crops") is not None
        recipe = self.recipe(**kwargs)
        check_recipe(recipe)
        num_clips, num_crops = (recipe["num_clips"], recipe["num_crops"]) if multi_view else (1, 1)
        sampler = None
        if recipe["do_sample_frames"]:
            sampling = {name: recipe[name] for name in SAMPLING_FIELDS}
            fps = kwargs.get("fps") if kwargs.get("num_frames") is None else None
            sampler = partial(self.frame_indices, num_clips=num_clips, fps=fps, **sampling)
        clips, metadata = self._decode_and_sample_videos(
            videos,
            video_metadata=recipe["video_metadata"],
            sample_indices_fn=sampler,
            size=decoding_size(recipe, multi_view=num_crops > 1),
            reading=reading,
            input_data_format=recipe["input_data_format"],
            do_convert_rgb=recipe["do_convert_rgb"],
            num_clips=num_clips,
        )
        recipe.pop("return_tensors")
        recipe |= {"num_clips": num_clips, "num_crops": num_crops}
        batch = self._preprocess(clips, return_tensors=return_tensors, **recipe)
        if recipe["return_metadata"]:
            batch["video_metadata"] = metadata
        return batch

    def _decode_and_sample_videos(
        self,
        videos,
        video_metadata=None,
        do_sample_frames=None,
        sample_indices_fn=None,
        size=None,
        reading=ReadOptions(),
        input_data_format=None,
        do_convert_rgb=True,
        num_clips=1,
    ):
        """Every clip of every video, as a flat list of (T, C, H, W), and one VideoMetadata per video."""
        videos = list_videos(videos)
        given = list_metadata(video_metadata, len(videos))
        clips, metadata = [], []
        for video, known in zip(videos, given, strict=True):
            if is_valid_video(video):
                frames = self._frames_of(video, input_data_format, do_convert_rgb)
                video_clips, found = sample_in_memory(frames, known, sample_indices_fn, reading)
            else:
                video_clips, found = self.fetch_videos(video, sample_indices_fn, size, reading, num_clips)
            clips += video_clips
            metadata.append(found)
        return clips, metadata

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None, size=None, reading=ReadOptions(), num_clips=1):
        """Decode one source: its clips, each (T, C, H, W) uint8, and its VideoMetadata. A list of sources gives two lists."""
        source = video_url_or_urls
        if isinstance(source, list):
            fetched = [self.fetch_videos(one, sample_indices_fn, size, reading, num_clips) for one in source]
            return [clips for clips, _ in fetched], [metadata for _, metadata in fetched]
        sampler = None if sample_indices_fn is None else FlatSampler(sample_indices_fn)
        decoded = read_video(
            source,
            start=reading.start,
            end=reading.end,
            size=size,
            limits=reading.limits,
            isolate=reading.isolate,
            allow_remote=reading.allow_remote,
            sampler=sampler,
        )
        info = decoded.info
        metadata = VideoMetadata(
            total_num_frames=info.num_frames,
            fps=info.fps,
            width=info.width,
            height=info.height,
            duration=info.duration,
            video_backend="effvid",
            frames_indices=list(decoded.indices),
        )
        return list(decoded.frames.chunk(1 if sampler is None else num_clips)), metadata

    def _frames_of(self, video, input_data_format=None, do_convert_rgb=True):
        """Frames that are already in memory as one tensor (T, C, H, W), of the dtype they came in."""
        if isinstance(video, (list, tuple)):
            video = [frame if torch.is_tensor(frame) else np.asarray(to_rgb(frame, do_convert_rgb)) for frame in video]
            video = torch.stack(list(video)) if torch.is_tensor(video[0]) else np.stack(video)
        frames = video if torch.is_tensor(video) else torch.from_numpy(np.ascontiguousarray(video))
        layout = input_data_format or infer_channel_dimension_format(frames, num_channels=(1, 3, 4))
        if layout == ChannelDimension.LAST:
            frames = frames.permute(0, 3, 1, 2).contiguous()
        return self.convert_to_rgb(frames) if do_convert_rgb else frames

    # ---- saving -----------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory, push_to_hub=False, **kwargs):
        """Save the recipe; `preprocessor_config.json` beside it makes the stock pipeline accept `batch_size > 1`.

        (The stock pipeline batches only when it finds an image processor or a feature extractor. The one named here does the same
        spatial steps on lists of frames.)
        """
        directory = Path(save_directory)
        directory.mkdir(parents=True, exist_ok=True)
        saved = self.to_dict()
        image_processor = {name: saved[name] for name in IMAGE_PROCESSOR_FIELDS}
        image_processor["image_processor_type"] = "VideoMAEImageProcessor"
        path = directory / IMAGE_PROCESSOR_NAME
        path.write_text(json.dumps(image_processor, indent=2, sort_keys=True, default=dict) + "\n", encoding="utf-8")
        return [*super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs), str(path)]


# ---- small pieces ---------------------------------------------------------------------------------------------------


def check_recipe(recipe):
    """Refuse a recipe, a dict of its fields, that could only fail later, in the middle of a data set."""
    check_choice("sampling", recipe["sampling"], SAMPLINGS)
    check_choice("short_clip_policy", recipe["short_clip_policy"], SHORT_CLIP_POLICIES)
    check_choice("aggregation", recipe["aggregation"], AGGREGATIONS)
    check_choice("clip_draw", recipe.get("clip_draw", "even"), CLIP_DRAWS)
    check_choice("crop_layout", recipe.get("crop_layout", "long_side"), CROP_LAYOUTS)
    check_choice("view_order", recipe.get("view_order", "clip_first"), VIEW_ORDERS)
    check_rate("target_fps", recipe["target_fps"])
    for name in ("frame_stride", "num_clips", "num_crops"):
        check_count(name, recipe[name])
    if recipe["num_frames"] is not None:  # every frame of the video
        check_count("num_frames", recipe["num_frames"])


def as_size(size, default_to_square=False):
    return size if isinstance(size, SizeDict) else SizeDict(**get_size_dict(size, default_to_square=default_to_square))


def as_channels(value):
    return tuple(value) if isinstance(value, list) else value


def target_size(recipe, multi_view):
    return as_size(recipe["multi_view_size"] if multi_view and recipe["multi_view_size"] else recipe["size"])


def decoding_size(recipe, multi_view):
    """The `size` for the reader, which resizes bilinearly with antialiasing; None when only `transform_clip` can resize."""
    if not recipe["do_resize"] or recipe["resample"] != PILImageResampling.BILINEAR:
        return None
    size = target_size(recipe, multi_view)
    if size.height and size.width:
        return (size.height, size.width)
    return size.shortest_edge if size.shortest_edge and not size.longest_edge else None


def crop_places(num_crops):
    """Where the crops of a multi-view test lie along the long side, from 0 to 1; a single one is centred."""
    return [0.5] if num_crops == 1 else [i / (num_crops - 1) for i in range(num_crops)]


def crop_frames(frames, size, position="center", layout="long_side"):
    """Crop (..., H, W) to `size`; smaller frames are padded with zeros first, as transformers' centre crop does.

    Args:
        frames: (T, C, H, W).
        size: with `height` and `width`.
        position: a name of CROP_POSITIONS or a number from 0 to 1.
        layout: "long_side", the position counts along the long side alone, or "diagonal", along both sides.
    """
    check_choice("crop_layout", layout, CROP_LAYOUTS)
    place = CROP_POSITIONS.get(position, position) if isinstance(position, str) else position
    if isinstance(place, str) or not 0 <= place <= 1:
        raise ValueError(f"crop must be one of {sorted(CROP_POSITIONS)} or a number from 0 to 1, got {position!r}.")
    height, width = frames.shape[-2:]
    pad_y, pad_x = max(size.height - height, 0), max(size.width - width, 0)
    if pad_y or pad_x:
        frames = tvF.pad(frames, [pad_x // 2, pad_y // 2, (pad_x + 1) // 2, (pad_y + 1) // 2])
    spare_y, spare_x = frames.shape[-2] - size.height, frames.shape[-1] - size.width
    along_x = width >= height
    diagonal = layout == "diagonal"
    top = int(spare_y * (place if diagonal or not along_x else 0.5))
    left = int(spare_x * (place if diagonal or along_x else 0.5))
    return frames[..., top : top + size.height, left : left + size.width]


def crop_positions(num_crops, crop_order=None):
    """Where the crops of a clip lie along the long side; an order of another number of crops does not count."""
    if num_crops == 1:
        return [0.5]
    return (
        crop_order if crop_order and len(crop_order) == num_crops else [i / (num_crops - 1) for i in range(num_crops)]
    )


def list_videos(videos):
    """One video or a nested list of videos, as a flat list of videos. A list of frames is one video."""
    if isinstance(videos, (list, tuple)):
        if len(videos) == 0:
            raise ValueError("An empty list of videos was given: pass at least one video.")
        if is_valid_video(videos):
            return [list(videos)]
        return [video for item in videos for video in list_videos(item)]
    dimensions = getattr(videos, "ndim", None)
    if dimensions == 5:
        return list(videos)
    if dimensions == 3:
        return [videos[None]]
    if dimensions is None and is_valid_image(videos):
        return [[videos]]
    return [videos]


def list_metadata(metadata, num_videos):
    """One VideoMetadata, or None, per video."""
    if metadata is None:
        return [None] * num_videos
    entries = metadata if isinstance(metadata, list) else [metadata]
    entries = [entry for item in entries for entry in (item if isinstance(item, list) else [item])]
    if len(entries) != num_videos:
        raise ValueError(f"Expected one video_metadata entry per video, got {len(entries)} for {num_videos} videos.")
    return [entry if isinstance(entry, VideoMetadata) else VideoMetadata(**entry) for entry in entries]


def sample_in_memory(frames, metadata, sample_indices_fn, reading):
    """The clips of frames (T, C, H, W) that are already decoded; seconds need a frame rate in `metadata`."""
    fps = metadata.fps if metadata is not None else None
    first, last = 0, len(frames)
    if reading.start is not None or reading.end is not None:
        if not fps:
            raise ValueError(
                "start / end of decoded frames need their rate: pass video_metadata={'total_num_frames': ..., 'fps': ...}."
            )
        first = min(round((reading.start or 0.0) * fps), len(frames) - 1)
        last = len(frames) if reading.end is None else max(first + 1, min(round(reading.end * fps), len(frames)))
    part = VideoMetadata(total_num_frames=last - first, fps=fps)
    clips = sample_indices_fn(part) if sample_indices_fn is not None else [list(range(last - first))]
    clips = [[first + index for index in clip] for clip in clips]
    found = VideoMetadata(
        total_num_frames=len(frames),
        fps=fps,
        height=frames.shape[-2],
        width=frames.shape[-1],
        duration=len(frames) / fps if fps else None,
        frames_indices=[index for clip in clips for index in clip],
    )
    return [frames[torch.as_tensor(clip)] for clip in clips], found


def to_rgb(frame, do_convert_rgb):
    """PIL knows its own colour model; arrays are converted later."""
    return frame.convert("RGB") if do_convert_rgb and hasattr(frame, "convert") else frame


def aggregate_views(logits, aggregation="softmax_mean", function_to_apply="softmax"):
    """The scores of one video from the logits of its views.

    Args:
        logits: (V, K).
        aggregation: "softmax_mean" averages the scores of the views, "logit_mean" scores the average of the logits.
        function_to_apply: "softmax", "sigmoid" or "none".

    Returns:
        (K,) float32.
    """
    functions = {"softmax": lambda x: x.softmax(-1), "sigmoid": torch.sigmoid, "none": lambda x: x}
    if aggregation not in AGGREGATIONS or function_to_apply not in functions:
        raise ValueError(
            f"aggregation must be one of {AGGREGATIONS}, got {aggregation!r}; "
            f"function_to_apply one of {sorted(functions)}, got {function_to_apply!r}."
        )
    score, logits = functions[function_to_apply], logits.float()
    return score(logits.mean(0)) if aggregation == "logit_mean" else score(logits).mean(0)
