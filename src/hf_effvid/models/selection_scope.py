"""Tokens are selected within one clip: what a clip is, and how a long window is cut into clips.

Scores of two clips are not comparable (a selector and its targets are scaled per clip), and a budget over a whole window may leave a
part of it without any token, so that a detector sees nothing there. So a window is folded into clips before the selection:

    clips, num_clips = fold_clips(window, 16)            # (B, T, C, H, W) -> (B * num_clips, 16, C, H, W)
    features = unfold_clips(model(clips).logits, num_clips)  # (B, num_clips, K)
"""


class SelectionScopeError(ValueError):
    """Tokens were to be selected over more than one clip."""


def frames_of_a_clip(config):
    """Frames of one clip of a host, None where its configuration does not say."""
    for name in ("num_frames", "frames_per_clip"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return None


def check_one_clip(config, num_frames):
    """Refuse a selection over more frames than one clip of the host has.

    Args:
        config: the configuration of the host.
        num_frames: frames of what the tokens come from.

    Raises:
        SelectionScopeError: `num_frames` is more than a clip.
    """
    expected = frames_of_a_clip(config)
    if expected is not None and num_frames > expected:
        raise SelectionScopeError(
            f"Tokens are selected within one clip of {expected} frames, got {num_frames} frames at once. Fold the window into clips "
            f"(fold_clips(pixel_values, {expected})), or run it whole with keep_ratio=1."
        )


def fold_clips(pixel_values, frames_per_clip):
    """Cut windows into clips that follow each other.

    Args:
        pixel_values: (B, T, C, H, W).
        frames_per_clip: frames F of a clip.

    Returns:
        (B * T / F, F, C, H, W), the clips of a window in a row, and T / F.

    Raises:
        SelectionScopeError: a window is no whole number of clips.
    """
    num_frames = pixel_values.shape[1]
    if frames_per_clip < 1 or num_frames % frames_per_clip or not num_frames:
        raise SelectionScopeError(
            f"A window of {num_frames} frames is no whole number of clips of {frames_per_clip} frames: read windows of a multiple, "
            "or repeat the last frame."
        )
    num_clips = num_frames // frames_per_clip
    return pixel_values.unflatten(1, (num_clips, frames_per_clip)).flatten(0, 1), num_clips


def unfold_clips(values, num_clips):
    """What was computed per clip, (B * num_clips, ...), per window: (B, num_clips, ...)."""
    return values.unflatten(0, (-1, num_clips))
