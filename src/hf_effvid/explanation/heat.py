"""Maps laid over frames: frames become grey, so that the only colours are those of the scale."""

import numpy as np
import torch


# "magma" of matplotlib (CC0) at 17 equal steps: dark to light, in print and for every kind of colour vision
_SCALE = "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf"
HEAT_COLOURS = np.array([list(bytes.fromhex(colour)) for colour in _SCALE.split()], dtype=np.float32)
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
# how much of the colour is seen: little where the map is low, so that the frame stays readable
_COVER = (0.15, 0.75)


def scale_of(maps):
    """One colour scale for several maps of numbers from 0 up: `(low, high)`, which leave out 1 % of all sites at either end.

    Args:
        maps: tensors of any shape.
    """
    values = torch.cat([one.flatten() for one in maps])
    low, high = torch.quantile(values, torch.tensor([0.01, 0.99])).tolist()
    # maps that are the same everywhere are drawn as such, not as noise
    return (low, high) if high - low > 1e-3 * high else (0.0, max(high, 1e-12))


def enlarged(maps, size):
    """(T, h, w) -> (T, H, W), bilinear."""
    maps = torch.nn.functional.interpolate(
        maps[:, None].float(), size=tuple(size), mode="bilinear", align_corners=False
    )
    return maps[:, 0]


def lay_over(frames, maps, scale):
    """Frames with maps over them.

    Args:
        frames: (T, 3, H, W) uint8.
        maps: (T', h, w); with tubelets (T' < T) each map lies over the frames of its tubelet.
        scale: `(low, high)`, what the two ends of the colours stand for.

    Returns:
        (T, H, W, 3) uint8 array.
    """
    pixels = frames.permute(0, 2, 3, 1).numpy().astype(np.float32)
    low, high = scale
    values = ((enlarged(maps, frames.shape[-2:]) - low) / (high - low)).clamp(0, 1).numpy()
    values = values[step_of_frame(len(frames), len(maps))]
    grey = (pixels @ _LUMINANCE)[..., None]
    place = values * (len(HEAT_COLOURS) - 1)
    below = np.minimum(place.astype(int), len(HEAT_COLOURS) - 2)
    share = (place - below)[..., None]
    colours = HEAT_COLOURS[below] * (1 - share) + HEAT_COLOURS[below + 1] * share
    cover = (_COVER[0] + (_COVER[1] - _COVER[0]) * values)[..., None]
    return np.rint(grey * (1 - cover) + colours * cover).astype(np.uint8)


def step_of_frame(num_frames, num_steps):
    """The step in time that each frame belongs to; frames that no whole tubelet takes belong to the last one."""
    tubelet = max(num_frames // num_steps, 1)
    return [min(frame // tubelet, num_steps - 1) for frame in range(num_frames)]
