# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""ActionFormerProcessor: the one place where a detector's seconds, frames, features and windows are converted into each other.

Everything that a user gives or gets is in seconds. What a feature is (its stride and length in frames), how long a window of them is, and how
candidates become detections lies in the checkpoint's `video_preprocessor_config.json`, next to the recipe for pixels.
"""

import torch
import torch.nn.functional as F
from transformers.image_processing_utils import BatchFeature

from .temporal_candidates import select_candidates
from .temporal_decisions import SCORE_FUSIONS, WindowCandidates, decide, fuse_video_scores, merge_windows, within_reach
from .temporal_nms import METHODS, VOTE_WEIGHTS
from .time_grid import FeatureWindow, TimeGrid, window_starts
from .video_processing_effvid import EffVidVideoProcessor, EffVidVideoProcessorKwargs


class ActionFormerProcessorKwargs(EffVidVideoProcessorKwargs, total=False):
    """The recipe of a detector: that of its frames, and these.

    feature_stride: frames from one feature to the next.
    feature_num_frames: frames that a feature is computed from; it stands for their middle.
    feature_fps: frames per second that the two count, for features of videos that were resampled; None: those of each video.
    resize_length: stretch the features of every video to this many steps (ActivityNet); None: take them as they are.
    window_length: steps that the detector sees at once; None: whole videos.
    window_overlap: share of a window that the next one sees again.
    window_reach: seconds that a candidate may begin before its window, or end after it; None: as far as it likes. What says more is
        left to the windows that see it.
    pad_length: fill shorter inputs up to this many steps, for models whose results depend on whether there is padding.
    candidate_threshold, candidate_top_k, candidate_per_level, min_steps: which candidates are looked at, see `select_candidates`.
    nms_method, nms_sigma, nms_iou_threshold, min_score, max_segments, class_agnostic, voting_threshold, voting_weight: how those that say the
        same are suppressed, see `nms_1d`.
    score_fusion, fusion_top_k: how scores of a video classifier are combined with those of segments, see `fuse_video_scores`.
    min_duration: shortest detection in seconds.
    """

    feature_stride: int | float | None
    feature_num_frames: int | float | None
    feature_fps: int | float | None
    resize_length: int | None
    window_length: int | None
    window_overlap: int | float | None
    window_reach: int | float | None
    pad_length: int | None
    candidate_threshold: int | float | None
    candidate_top_k: int | None
    candidate_per_level: bool | None
    min_steps: int | float | None
    nms_method: str | None
    nms_sigma: int | float | None
    nms_iou_threshold: int | float | None
    min_score: int | float | None
    max_segments: int | None
    class_agnostic: bool | None
    voting_threshold: int | float | None
    voting_weight: str | None
    score_fusion: str | None
    fusion_top_k: int | None
    min_duration: int | float | None


class ActionFormerProcessor(EffVidVideoProcessor):
    """Features or frames in, detections in seconds out.

    Args:
        **kwargs: recipe fields, see `ActionFormerProcessorKwargs`; the class attributes are the defaults, those of the released
            THUMOS14 model on I3D features.

    Example:
        >>> processor = ActionFormerProcessor(feature_stride=4, feature_num_frames=16, window_length=2304)
        >>> windows = processor.plan_windows([len(features)], fps=30)
        >>> outputs = model(**processor.encode_features([features], windows))
        >>> processor.post_process_temporal_action_detection(outputs, windows, durations=[seconds])[0]["segments"]
    """

    valid_kwargs = ActionFormerProcessorKwargs
    model_input_names = ["pixel_values", "input_features", "attention_mask"]
    feature_stride = 4
    feature_num_frames = 16
    feature_fps = None
    resize_length = None
    window_length = None
    window_overlap = 0.5
    window_reach = None
    pad_length = None
    candidate_threshold = 0.001
    candidate_top_k = 2000
    candidate_per_level = True
    min_steps = 0.05
    nms_method = "soft"
    nms_sigma = 0.5
    nms_iou_threshold = 0.1
    min_score = 0.001
    max_segments = 200
    class_agnostic = False
    voting_threshold = 0.0
    voting_weight = "score_iou"
    score_fusion = "sqrt"
    fusion_top_k = 2
    min_duration = 0.0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        check_detection_recipe(self.recipe())

    # ---- seconds -> steps -------------------------------------------------------------------------------------------

    def time_grid(self, fps=None, num_steps=None):
        """Where the features of a video lie in time.

        Args:
            fps: frames per second of the video; not needed with `feature_fps`.
            num_steps: how many features it has; needed with `resize_length`.

        Raises:
            ValueError: what is needed was not given.
        """
        fps = self.feature_fps if self.feature_fps is not None else fps
        if fps is None:
            raise ValueError("features count frames: pass the video's `fps`, or set `feature_fps` in the processor.")
        grid = TimeGrid.from_frames(self.feature_stride, self.feature_num_frames, fps)
        if self.resize_length is None:
            return grid
        if num_steps is None:
            raise ValueError("features are stretched to `resize_length`: pass how many there are, `num_steps`.")
        return grid.stretched(num_steps, self.resize_length)

    def plan_windows(self, num_steps, fps=None):
        """Cut videos into the windows that the detector sees.

        Args:
            num_steps: number of features of each video.
            fps: frames per second, one number or one per video; not needed with `feature_fps`.

        Returns:
            A list of `FeatureWindow`, by video, then by time.
        """
        rates = list(fps) if isinstance(fps, (list, tuple)) else [fps] * len(num_steps)
        if len(rates) != len(num_steps):
            raise ValueError(f"expected one frame rate per video, got {len(rates)} for {len(num_steps)} videos.")
        windows = []
        for video, (steps, rate) in enumerate(zip(num_steps, rates, strict=True)):
            if steps < 1:
                raise ValueError(f"video {video} has no features.")
            grid = self.time_grid(rate, steps)
            steps = self.resize_length or steps
            length = steps if self.window_length is None else min(steps, self.window_length)
            for first in window_starts(steps, self.window_length, self.window_overlap):
                windows.append(FeatureWindow(video, first, length, steps, grid.shifted(first)))
        return windows

    def encode_features(self, features, windows=None, return_tensors="pt"):
        """Put windows of features into one batch.

        Args:
            features: per video an array or tensor (T, C).
            windows: the windows to take, such as those of `plan_windows`; None: every video whole.
            return_tensors: "pt" or "np".

        Returns:
            BatchFeature with `input_features` (B, T, C) float32, zero at padding, and `attention_mask` (B, T) bool, one row per window.

        Raises:
            ValueError: shapes that do not fit, or a window beyond its video.
        """
        features = [torch.as_tensor(one).float() for one in features]
        shapes = [tuple(one.shape) for one in features]
        if any(len(shape) != 2 or shape[0] < 1 or shape[1] != shapes[0][1] for shape in shapes):
            raise ValueError(f"expected features (T, C) with one C for all videos, got {shapes}.")
        if self.resize_length is not None:
            features = [_stretch(one, self.resize_length) for one in features]
        if windows is None:
            windows = [FeatureWindow(video, 0, len(one), len(one), None) for video, one in enumerate(features)]
        rows = [features[window.video][window.first : window.first + window.num_steps] for window in windows]
        if any(len(row) != window.num_steps for row, window in zip(rows, windows, strict=True)):
            raise ValueError("a window lies beyond the features of its video: plan windows for these features.")
        longest = max((len(row) for row in rows), default=0)
        longest = max(longest, self.pad_length or 0)
        batch = torch.zeros(len(rows), longest, shapes[0][1] if shapes else 0)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for row, values in enumerate(rows):
            batch[row, : len(values)] = values
            mask[row, : len(values)] = True
        return BatchFeature({"input_features": batch, "attention_mask": mask}, tensor_type=return_tensors)

    def encode_annotations(self, annotations, windows, min_visible=0.5):
        """What the model learns from, for every window.

        Args:
            annotations: per video {"segments": (M, 2) seconds, "labels": (M,) class numbers}.
            windows: of the same videos.
            min_visible: an annotation that a window shows less than this share of is left out there; what remains is cut to the window.

        Returns:
            Per window {"grid_segments": (M', 2) in steps of the window, "class_labels": (M',)}.
        """
        targets = []
        for window in windows:
            video = annotations[window.video]
            seconds = torch.as_tensor(video["segments"], dtype=torch.float64).reshape(-1, 2)
            steps = window.grid.to_steps(seconds)
            # where a window ends with its video, nothing is cut: what lies beyond the last feature is still to be found
            last = window.first + window.num_steps == window.video_steps
            cut = steps.clamp(
                min=0.0 if window.first > 0 else float("-inf"), max=float("inf") if last else float(window.num_steps)
            )
            visible = (cut[:, 1] - cut[:, 0]) / (steps[:, 1] - steps[:, 0]).clamp(min=1e-9)
            keep = (cut[:, 1] > cut[:, 0]) & (visible >= min_visible)
            labels = torch.as_tensor(video["labels"], dtype=torch.int64).reshape(-1)
            targets.append({"grid_segments": cut[keep].float(), "class_labels": labels[keep]})
        return targets

    # ---- steps -> seconds -------------------------------------------------------------------------------------------

    def decode_windows(self, outputs, windows, **overrides):
        """What the model says of each window, in seconds, before suppression.

        Args:
            outputs: of the model, with `logits`, `offsets`, `point_mask` and `points`; one row per window.
            windows: the windows, in the order of the rows.
            **overrides: fields of the recipe to change for this call.

        Returns:
            A list of `WindowCandidates`; those of several batches can simply be put together.
        """
        recipe = self.recipe(**overrides)
        if len(windows) != len(outputs.logits):
            raise ValueError(f"expected one window per row, got {len(windows)} for {len(outputs.logits)} rows.")
        found = []
        for row, window in enumerate(windows):
            candidates = select_candidates(
                outputs.logits[row].float(),
                outputs.offsets[row].float(),
                outputs.point_mask[row],
                outputs.points.float(),
                score_threshold=recipe["candidate_threshold"],
                top_k=recipe["candidate_top_k"],
                per_level=recipe["candidate_per_level"],
                min_steps=recipe["min_steps"],
            )
            # seconds late in a long video need more digits than single precision has
            segments = window.grid.to_seconds(candidates.segments.double())
            scores, labels, num_classes = candidates.scores.double(), candidates.labels, outputs.logits.shape[-1]
            if recipe["window_reach"] is not None:
                near = within_reach(segments, window, recipe["window_reach"])
                segments, scores, labels = segments[near], scores[near], labels[near]
            found.append(WindowCandidates(window.video, window.first, segments, scores, labels, num_classes))
        return found

    def merge_windows(self, candidates, durations=None, num_videos=None, video_scores=None, threshold=None, top_k=None, **overrides):  # fmt: skip
        """Detections of whole videos from the candidates of their windows, whatever batches these came in.

        Args:
            candidates: list of `WindowCandidates`, see `decode_windows`.
            durations: seconds of each video, that detections are cut to; None: they are only cut at 0.
            num_videos: how many videos there are; default: as many as durations, or as the candidates name.
            video_scores: per video the probabilities (C,) of a video classifier, that scores are combined with; None: not combined.
            threshold: lowest score, one number or {class number: score}.
            top_k: detections per video at most.
            **overrides: fields of the recipe to change for this call.

        Returns:
            Per video a dict of "segments" (K, 2) in seconds, "scores" (K,) and "labels" (K,), best first.
        """
        recipe = self.recipe(**overrides)
        if num_videos is None:
            num_videos = (
                len(durations) if durations is not None else 1 + max((c.video for c in candidates), default=-1)
            )
        for name, values in (("durations", durations), ("video_scores", video_scores)):
            if values is not None and len(values) != num_videos:
                raise ValueError(
                    f"expected one entry of `{name}` per video, got {len(values)} for {num_videos} videos."
                )
        merged = merge_windows(
            candidates,
            num_videos,
            method=recipe["nms_method"],
            iou_threshold=recipe["nms_iou_threshold"],
            sigma=recipe["nms_sigma"],
            **{name: recipe[name] for name in (
                "min_score", "max_segments", "class_agnostic", "voting_threshold", "voting_weight"
            )},
        )  # fmt: skip
        results = []
        for video, detections in enumerate(merged):
            if video_scores is not None:
                single = all(candidate.num_classes == 1 for candidate in candidates)
                detections = fuse_video_scores(
                    detections, video_scores[video], recipe["score_fusion"], recipe["fusion_top_k"], single
                )
            duration = None if durations is None else durations[video]
            results.append(decide(detections, duration, threshold, recipe["min_duration"], top_k))
        return results

    def post_process_temporal_action_detection(
        self, outputs, windows, durations=None, video_scores=None, threshold=None, top_k=None, **overrides
    ):
        """Detections from the outputs of one batch that holds all windows; see `decode_windows` and `merge_windows`."""
        candidates = self.decode_windows(outputs, windows, **overrides)
        num_videos = 1 + max((window.video for window in windows), default=-1)
        num_videos = len(durations) if durations is not None else num_videos
        return self.merge_windows(candidates, durations, num_videos, video_scores, threshold, top_k, **overrides)


def check_detection_recipe(recipe):
    """Refuses a recipe that would fail, or do something else than it says, at the first video.

    Raises:
        ValueError: naming the field and what it may be.
    """
    for name, allowed in (("nms_method", METHODS), ("voting_weight", VOTE_WEIGHTS), ("score_fusion", SCORE_FUSIONS)):
        if recipe[name] not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {recipe[name]!r}.")
    for name in ("feature_stride", "feature_num_frames", "nms_sigma", "candidate_top_k"):
        if not recipe[name] > 0:
            raise ValueError(f"{name} must be greater than 0, got {recipe[name]!r}.")
    for name in ("feature_fps", "resize_length", "window_length", "pad_length", "max_segments"):
        if recipe[name] is not None and not recipe[name] > 0:
            raise ValueError(f"{name} must be None or greater than 0, got {recipe[name]!r}.")
    if not 0 <= recipe["window_overlap"] < 1:
        raise ValueError(f"window_overlap must be 0 or more and below 1, got {recipe['window_overlap']!r}.")
    if recipe["window_reach"] is not None and not recipe["window_reach"] >= 0:
        raise ValueError(f"window_reach must be None or seconds, 0 or more, got {recipe['window_reach']!r}.")


def _stretch(features, length):
    """Linear resampling in time, (T, C) to (length, C)."""
    return F.interpolate(features.T[None], size=length, mode="linear", align_corners=False)[0].T


__all__ = ["ActionFormerProcessor"]
