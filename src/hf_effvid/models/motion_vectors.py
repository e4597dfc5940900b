# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Motion per token from the compressed file itself: what the encoder found out, for the price of decoding.

    extras = {"motion_vectors": motion_vector_tokens("dog.mp4", processor, tubelet_size=2, patch_size=16)}
    model(**processor("dog.mp4"), scorer="motion_vectors", keep_ratio=0.5, selection_extras=extras)

A codec predicts blocks of a frame from blocks of other frames; how far such a block has moved is stored. The length of that vector,
in pixels of the stored picture, is what every pixel of the block gets (the mean, where a block is predicted from two frames);
blocks that are not predicted get 0. Key frames have no vectors: they take those of the frame after them, else before them.

FFmpeg gives out the vectors of H.264, MPEG-1, MPEG-2, MPEG-4 part 2 and their relatives, and none of HEVC, VP9, AV1 or intra codecs: that
is `MotionVectorsUnavailable`, or `fallback="frame_difference"`. An encoder looks for cheap bits, not for true motion: flat
areas and noise have vectors too, and one that reaches over several frames is longer than one from the frame before.
"""

from dataclasses import dataclass

import numpy as np
import torch
from transformers.utils import logging
from transformers.video_utils import VideoMetadata

from .token_selection import ScorerInputs, TokenGrid, pool_to_tokens, score_tokens
from .video_container import native_errors
from .video_decoding import VideoFile, pick_frames, probe
from .video_errors import VideoLimits, VideoNotReadable
from .video_memory import encoded_behind, is_decoder, is_frames
from .video_pixels import output_size
from .video_processing_effvid import EffVidVideoProcessor, FlatSampler, ReadOptions, list_videos
from .video_selection import check_selection, select_frames
from .video_sources import Deadline, open_source


logger = logging.get_logger(__name__)
FALLBACKS = ("error", "frame_difference")
_WHOLE_VIDEO = ReadOptions()
_CELL = 4  # pixels: no codec predicts smaller blocks


class MotionVectorsUnavailable(VideoNotReadable):
    """The video can be read, but its codec gives no motion vectors."""


@dataclass
class MotionClip:
    """Motion of the selected frames.

    Attributes:
        lengths: (T, 1, H, W) float32, pixels of the stored picture; upright, like the frames that `read_video` gives.
        indices: frame number of each.
        info: the `VideoInfo`.
        donors: the frame whose vectors each one has: its own number, that of a neighbour for a key frame, or None.
    """

    lengths: torch.Tensor
    indices: list
    info: object
    donors: list


class _VideoFileWithVectors(VideoFile):
    """A video whose decoder hands out its motion vectors."""

    def __init__(self, opened, limits, deadline):
        super().__init__(opened, limits, deadline)
        self._ask_for_vectors()

    def reopen(self):
        super().reopen()
        self._ask_for_vectors()

    def _ask_for_vectors(self):
        self.stream.codec_context.options = {"max_pixels": str(self.limits.max_pixels), "flags2": "+export_mvs"}


def read_motion(source, size=None, limits=None, allow_remote=False, **selection):
    """Reads motion vectors of a video as lengths per pixel.

    Args:
        source: path, bytes, file object, `datasets` Video value or, with `allow_remote=True`, an http(s) URL.
        size: None, the shorter side, or (height, width); lengths are averaged, and stay in pixels of the stored picture.
        limits: a `VideoLimits`.
        allow_remote: whether http(s) URLs may be downloaded.
        selection: `num_frames`, `indices`, `start`, `end`, `target_fps`, `sampler`, as in `read_video`.

    Returns:
        A `MotionClip`.

    Raises:
        MotionVectorsUnavailable: frames in memory, or a codec without vectors.
        VideoError: as `read_video`.
    """
    limits = limits or VideoLimits.default()
    check_selection(
        **{name: selection.get(name) for name in ("num_frames", "indices", "start", "end", "target_fps", "sampler")}
    )
    source = encoded_behind(source)
    if is_frames(source) or is_decoder(source):
        _refuse("<decoded frames>", "pixels without their compressed stream", "Give the video file")
    opened = open_source(source, limits, allow_remote)
    try:
        deadline = Deadline(limits.timeout, opened.name)
        video, table, info, orientation = probe(opened, limits, deadline)
        video.close()
        indices, _ = select_frames(info, table.times, **selection)
        with native_errors(opened.name):
            video = _VideoFileWithVectors(opened, limits, deadline)
            try:
                cells = _cells_of(video, table, indices)
            finally:
                video.close()
    finally:
        opened.close()
    if not cells:
        found = f"its codec {info.codec} gives no motion vectors"
        _refuse(
            opened.name, found, 'Use scorer="frame_difference", or encode it as H.264 with frames between key frames'
        )
    donors = [next((near for near in (index, index + 1, index - 1) if near in cells), None) for index in indices]
    maps = {donor: _upright(cells.get(donor), info, orientation, size) for donor in set(donors)}
    return MotionClip(torch.cat([maps[donor] for donor in donors]), indices, info, donors)


def _upright(lengths, info, orientation, size):
    """Lengths per cell, or None for no motion, as a map (1, 1, H, W) of the upright picture."""
    height, width = output_size(info.height, info.width, size)
    if lengths is None:
        return torch.zeros(1, 1, height, width)
    sides = (info.width, info.height) if orientation.swaps_sides else (info.height, info.width)
    pixels = lengths.repeat(_CELL, 0).repeat(_CELL, 1)[: sides[0], : sides[1], None]
    upright = torch.from_numpy(np.ascontiguousarray(orientation.apply(pixels)[..., 0]))[None, None]
    if upright.shape[-2:] == (height, width):
        return upright
    return torch.nn.functional.interpolate(upright, (height, width), mode="bilinear", antialias=True)


def _refuse(name, found, hint):
    raise MotionVectorsUnavailable(name, found, hint)


def _cells_of(video, table, indices):
    """Frame number -> lengths per cell, for the wanted frames and their neighbours that have vectors."""
    last = len(table.pts) - 1
    wanted = {min(index, last) for index in indices}
    wanted |= {index + 1 if index < last else last - 1 for index in wanted}
    cells, size = {}, None
    for index, frame in pick_frames(video, table, sorted(index for index in wanted if index >= 0)):
        vectors = frame.side_data.get("MOTION_VECTORS")
        if vectors is not None:
            if size not in (None, (frame.height, frame.width)):
                hint = "Encode it again at one size"
                raise VideoNotReadable(video.opened.name, "frames change their size between motion vectors", hint)
            size = (frame.height, frame.width)
            cells[index] = lengths_per_cell(vectors.to_ndarray(), frame.height, frame.width)
    return cells


def lengths_per_cell(vectors, height, width):
    """Mean length of the vectors that cover each cell of 4 x 4 pixels.

    Args:
        vectors: structured array with FFmpeg's fields: `dst_x`, `dst_y` (centre of the block), `w`, `h`, `motion_x`, `motion_y` and
            `motion_scale`.
        height: of the frame, in pixels.
        width: of the frame.

    Returns:
        (height / 4, width / 4) float32, rounded up; 0 where no block was predicted.
    """
    rows, columns = -(-height // _CELL), -(-width // _CELL)
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    scale = np.maximum(vectors["motion_scale"].astype(np.float64), 1)
    lengths = np.hypot(vectors["motion_x"] / scale, vectors["motion_y"] / scale)
    block_width, block_height = vectors["w"].astype(np.int64), vectors["h"].astype(np.int64)
    top = (vectors["dst_y"].astype(np.int64) - block_height // 2) // _CELL
    left = (vectors["dst_x"].astype(np.int64) - block_width // 2) // _CELL
    for down in range(int(block_height.max(initial=0)) // _CELL):
        for right in range(int(block_width.max(initial=0)) // _CELL):
            y, x = top + down, left + right
            inside = (block_height > down * _CELL) & (block_width > right * _CELL)
            inside &= (y >= 0) & (y < rows) & (x >= 0) & (x < columns)
            np.add.at(total, (y[inside], x[inside]), lengths[inside])
            np.add.at(count, (y[inside], x[inside]), 1)
    return (total / np.maximum(count, 1)).astype(np.float32)


class MotionVectorProcessor(EffVidVideoProcessor):
    """A recipe applied to motion in place of colour: the same frames, size and crops, `pixel_values` (B, T, 1, H, W)."""

    def fetch_videos(self, video_url_or_urls, sample_indices_fn=None, size=None, reading=_WHOLE_VIDEO, num_clips=1):
        if reading.isolate:
            raise ValueError(
                "motion vectors are read in this process: isolate=True is not possible, pass isolate=False."
            )
        clip = read_motion(
            video_url_or_urls,
            size=size,
            limits=reading.limits,
            allow_remote=reading.allow_remote,
            start=reading.start,
            end=reading.end,
            sampler=None if sample_indices_fn is None else FlatSampler(sample_indices_fn),
        )
        info = clip.info
        metadata = VideoMetadata(
            total_num_frames=info.num_frames,
            fps=info.fps,
            width=info.width,
            height=info.height,
            duration=info.duration,
            video_backend="effvid",
            frames_indices=list(clip.indices),
        )
        return list(clip.lengths.chunk(1 if sample_indices_fn is None else num_clips)), metadata

    def _frames_of(self, video, input_data_format=None, do_convert_rgb=True):
        _refuse("<decoded frames>", "pixels without their compressed stream", "Give the video file")


def motion_vector_tokens(videos, processor, tubelet_size=2, patch_size=16, fallback="error", **kwargs):
    """Motion per token, in the rows and the order of `processor(videos)`.

    Frames, resizing and crops are those of the processor, through its own code; the picture is turned upright first.

    Args:
        videos: one video or a list: files, bytes, file objects, `datasets` values.
        processor: an `EffVidVideoProcessor`.
        tubelet_size: frames per token of the model.
        patch_size: pixels per token, one number or (height, width).
        fallback: what a video without motion vectors gets: `"error"`, or `"frame_difference"`, the score of that name.
        **kwargs: what the processor is called with: `multi_view`, `start`, `end`, `limits`, `num_frames`, ...

    Returns:
        (rows, N) float32, mean length over each token; N in the order (t, y, x).

    Raises:
        MotionVectorsUnavailable: a video has none, under `fallback="error"`.
        TypeError: the processor is another one.
        ValueError: unknown fallback.
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"fallback must be one of {FALLBACKS}, got {fallback!r}.")
    if not all(hasattr(processor, name) for name in ("transform_clip", "frame_indices")):
        raise TypeError(
            f"expected an EffVidVideoProcessor, which says which frames and which part of them a model sees, got {type(processor).__name__}."
        )
    reader = MotionVectorProcessor.from_dict(processor.to_dict())
    patch = tuple(patch_size) if isinstance(patch_size, (list, tuple)) else (patch_size, patch_size)
    rows = []
    for video in list_videos(videos):
        try:
            maps = reader(video, do_rescale=False, do_normalize=False, **kwargs)["pixel_values"]
            rows.append(pool_to_tokens(maps[:, :, 0], _token_inputs(maps, tubelet_size, patch)))
        except MotionVectorsUnavailable as error:
            if fallback == "error":
                raise
            logger.warning_once(f"{error}. Such videos get the mean difference of frames instead.")
            pixels = processor(video, **kwargs)["pixel_values"]
            rows.append(score_tokens("frame_difference", _token_inputs(pixels, tubelet_size, patch)))
    return torch.cat(rows)


def _token_inputs(pixels, tubelet_size, patch):
    grid = TokenGrid(pixels.shape[1] // tubelet_size, pixels.shape[3] // patch[0], pixels.shape[4] // patch[1])
    return ScorerInputs(grid=grid, pixel_values=pixels, tubelet_size=tubelet_size, patch_size=patch)
