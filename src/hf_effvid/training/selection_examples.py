"""Masks of a study, drawn on a few of its videos: what each token is worth, and which tokens are kept."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..evaluation.selection_masks import ExampleClip, frames_of_pixels, plot_clips
from ..evaluation.selection_report import LITE, ORACLE_PREDICTED, RANDOM
from ..models.token_selection import num_kept_tokens, top_k_indices
from .selection_answers import StudyClips
from .selection_arms import Arm, ScoreArm


SHOWN_RATIO = 0.3
KEPT_BY = (LITE, ORACLE_PREDICTED, "embedding_norm", RANDOM)
"""Arms whose kept tokens are drawn, as far as they take part."""


@torch.inference_mode()
def draw_examples(
    folder: Path, arms: list[Arm], clips: StudyClips, processor, grid, settings, value_of: Callable | None
):
    """Draws `values_on_frames.png` (figure 4 of LITE) and `kept_on_frames.png` (figure 7).

    Args:
        folder: of the study.
        arms: its arms.
        clips: its videos; some are read once more, spread over the split.
        processor: says how pixels were normalised.
        grid: of the tokens.
        settings: `StudySettings`; `examples` videos are drawn.
        value_of: `batch -> (B, N)` values of tokens; None draws none.

    Returns:
        The files.
    """
    shown = _evenly_spread(len(clips), settings.examples)
    by_name = {arm.name: arm for arm in arms if isinstance(arm, ScoreArm)}
    kept_by = [by_name[name] for name in KEPT_BY if name in by_name]
    examples = []
    for videos in clips.batches(skip=set(range(len(clips))) - shown):
        for video in (one for one in videos if one.error is None):
            batch = clips.as_batch([video])
            keep = num_kept_tokens(grid.num_tokens, SHOWN_RATIO)
            examples.append(
                ExampleClip(
                    title=clips.to_class.names[int(batch.labels[0])],
                    frames=frames_of_pixels(batch.pixel_values[0], *_normalisation(processor)),
                    grid=tuple(grid),
                    values={"value": value_of(batch)[0]} if value_of is not None else {},
                    kept={arm.name: top_k_indices(arm.prepare(batch, 0)[1], keep)[0] for arm in kept_by},
                )
            )
    if not examples:
        return []
    without_kept = [ExampleClip(one.title, one.frames, one.grid, one.values, {}) for one in examples]
    without_values = [ExampleClip(one.title, one.frames, one.grid, {}, one.kept) for one in examples]
    return [
        plot_clips(without_kept, folder / "values_on_frames.png", "Value of each token, for the predicted label"),
        plot_clips(without_values, folder / "kept_on_frames.png", f"Tokens kept at P = {SHOWN_RATIO:g}"),
    ]


def _evenly_spread(total: int, count: int) -> set[int]:
    count = min(total, count)
    return {(2 * place + 1) * total // (2 * count) for place in range(count)} if count else set()


def _normalisation(processor) -> tuple[list[float], list[float]]:
    """Mean and deviation on the scale 0 to 1; those that change nothing where a processor does not normalise."""
    if not getattr(processor, "do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    return list(processor.image_mean), list(processor.image_std)
