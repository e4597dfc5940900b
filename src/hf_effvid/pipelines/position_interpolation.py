"""Other frame counts and image sizes than a model was trained with: its position table is interpolated, once, after loading.

Tables are resized as (time, height, width) grids, trilinearly with half-pixel centres; an axis that does not change keeps its values
exactly, and at the native size nothing is touched (bit-equal). What each host does:

| `model_type`              | positions                     | here                                                               |
| ------------------------- | ----------------------------- | ------------------------------------------------------------------ |
| `videomae`                | fixed sinusoid table          | the trained table is interpolated (it is not part of a checkpoint) |
| `vivit`                   | learned, (t, h, w) + class    | interpolated                                                       |
| `timesformer`             | learned, (h, w) + class and t | both interpolated (left alone, the model takes the nearest)        |
| `videoprism_vision_model` | learned, (h, w) and t         | both interpolated                                                  |
| `vjepa2`                  | rotary                        | the grid is enlarged: positions extrapolate                        |
| `video_focalnet`          | none                          | nothing to do                                                      |
"""

import torch
from torch import nn
from transformers.models.videomae.modeling_videomae import get_sinusoid_encoding_table

from ..host_processing import frame_size, frames_per_clip


class PositionInterpolationError(ValueError):
    """A model cannot take this number of frames or this image size."""


def interpolate_positions(model, num_frames=None, image_size=None):
    """Make a video classifier take `num_frames` frames of `image_size` pixels, by interpolating its positions in place.

    The configuration is updated too. A VideoMAE that was saved after this carries `positions_trained_at` in its configuration, because
    its table is rebuilt, for the new size, by whoever loads it: call `interpolate_positions(model)` after loading, as the
    `VideoClassificationPipeline` does.

    Args:
        model: A video classifier, or its base model, of one of the types in the table above.
        num_frames: Frames per clip; None keeps the present number.
        image_size: Pixels, an int or (height, width); None keeps the present size.

    Returns:
        The same model.

    Raises:
        PositionInterpolationError: the model type is unknown, or the size does not fit its patches.
    """
    config = model.config
    host = HOSTS.get(host_type(config))
    if host is None:
        if num_frames in (None, frames_per_clip(config)) and image_size in (None, frame_size(config)):
            return model
        raise PositionInterpolationError(
            f"Positions of model_type {config.model_type!r} cannot be interpolated: only those of {sorted(HOSTS)} can. "
            f"Keep num_frames={frames_per_clip(config)} and image_size={frame_size(config)}."
        )
    size = as_pair(image_size if image_size is not None else frame_size(config))
    host(model, num_frames or frames_per_clip(config), size)
    return model


def host_type(config):
    """`model_type` of the host: models that select tokens keep its positions."""
    return config.model_type.removeprefix("lite_")


def takes_num_frames(config, num_frames):
    """Whether a model, as it is, accepts clips of `num_frames` frames."""
    return host_type(config) not in FIXED_LENGTH or num_frames == frames_per_clip(config)


def as_pair(size):
    return (size, size) if isinstance(size, int) else tuple(size)


def as_config_size(size):
    return size[0] if size[0] == size[1] else list(size)


def resize_grid(table, old, new):
    """Resize positions (1, t*h*w, C) from the grid `old` to the grid `new`, both (t, h, w); the same tensor when they are equal."""
    if tuple(old) == tuple(new):
        return table
    grid = table.float().reshape(1, *old, -1).permute(0, 4, 1, 2, 3)
    grid = nn.functional.interpolate(grid, size=tuple(new), mode="trilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(table.dtype)


def grid_of(num_frames, size, tubelet):
    """The (t, h, w) grid of patches; refuses a remainder, which a convolution would silently drop."""
    lengths = (num_frames, *size)
    if any(length < patch or length % patch for length, patch in zip(lengths, tubelet, strict=True)):
        raise PositionInterpolationError(
            f"num_frames={num_frames} and image_size={size} must be multiples of the model's patch (frames, height, width) = "
            f"{tuple(tubelet)}: choose multiples of it."
        )
    return tuple(length // patch for length, patch in zip(lengths, tubelet, strict=True))


def module_with(model, attribute):
    """The first module that owns `attribute`, or an error: another version of the model keeps it elsewhere."""
    for module in model.modules():
        if attribute in vars(module) or attribute in module._parameters or attribute in module._modules:
            return module
    raise PositionInterpolationError(
        f"{type(model).__name__} has no {attribute}: its positions cannot be interpolated."
    )


def replace_parameter(module, name, value):
    old = getattr(module, name)
    if value is not old:
        setattr(module, name, nn.Parameter(value.detach().clone(), requires_grad=old.requires_grad))


def resize_videomae(model, num_frames, size):
    config = model.config
    trained = getattr(config, "positions_trained_at", None) or [config.num_frames, *as_pair(config.image_size)]
    patch = (config.tubelet_size, *as_pair(config.patch_size))
    old, new = grid_of(trained[0], trained[1:], patch), grid_of(num_frames, size, patch)
    embeddings = module_with(model, "position_embeddings")
    if old == new and [config.num_frames, *as_pair(config.image_size)] == list(trained):
        return
    table = get_sinusoid_encoding_table(old[0] * old[1] * old[2], config.hidden_size)
    embeddings.position_embeddings = resize_grid(table, old, new)
    embeddings.num_patches = embeddings.patch_embeddings.num_patches = new[0] * new[1] * new[2]
    embeddings.patch_embeddings.image_size = tuple(size)
    config.num_frames, config.image_size = num_frames, as_config_size(size)
    config.positions_trained_at = list(trained)


def resize_vivit(model, num_frames, size):
    config = model.config
    old = grid_of(config.num_frames, as_pair(config.image_size), config.tubelet_size)
    new = grid_of(num_frames, size, config.tubelet_size)
    embeddings = module_with(model, "position_embeddings")
    if new != old:
        class_position, table = embeddings.position_embeddings[:, :1], embeddings.position_embeddings[:, 1:]
        replace_parameter(
            embeddings, "position_embeddings", torch.cat((class_position, resize_grid(table, old, new)), dim=1)
        )
    embeddings.patch_embeddings.num_patches = new[0] * new[1] * new[2]
    embeddings.patch_embeddings.image_size = embeddings.image_size = tuple(size)
    config.num_frames, config.image_size = num_frames, as_config_size(size)


def resize_timesformer(model, num_frames, size):
    config = model.config
    patch = (1, *as_pair(config.patch_size))
    old, new = grid_of(config.num_frames, as_pair(config.image_size), patch), grid_of(num_frames, size, patch)
    embeddings = module_with(model, "position_embeddings")
    if new[1:] != old[1:]:
        class_position, table = embeddings.position_embeddings[:, :1], embeddings.position_embeddings[:, 1:]
        table = resize_grid(table, (1, *old[1:]), (1, *new[1:]))
        replace_parameter(embeddings, "position_embeddings", torch.cat((class_position, table), dim=1))
    if config.attention_type != "space_only":
        times = resize_grid(embeddings.time_embeddings, (old[0], 1, 1), (new[0], 1, 1))
        replace_parameter(embeddings, "time_embeddings", times)
    embeddings.num_patches = embeddings.patch_embeddings.num_patches = new[1] * new[2]
    embeddings.patch_embeddings.image_size = tuple(size)
    config.num_frames, config.image_size = num_frames, as_config_size(size)


def resize_videoprism(model, num_frames, size):
    config = model.config
    old = grid_of(config.num_frames, as_pair(config.image_size), config.tubelet_size)
    new = grid_of(num_frames, size, config.tubelet_size)
    space = module_with(model, "spatial_embeddings").spatial_embeddings
    replace_parameter(
        space, "position_embeddings", resize_grid(space.position_embeddings, (1, *old[1:]), (1, *new[1:]))
    )
    time = module_with(model, "temporal_embeddings").temporal_embeddings
    replace_parameter(
        time, "position_embeddings", resize_grid(time.position_embeddings, (old[0], 1, 1), (new[0], 1, 1))
    )
    patches = space.patch_embeddings
    patches.num_patches, patches.pos_emb_shape, patches.image_size = new[1] * new[2], list(new[1:]), tuple(size)
    config.num_frames, config.image_size = num_frames, as_config_size(size)


def resize_vjepa2(model, num_frames, size):
    config = model.config
    if size[0] != size[1]:
        raise PositionInterpolationError(f"V-JEPA 2 takes square frames: give image_size as one number, got {size}.")
    depth, side, _ = grid_of(num_frames, size, (config.tubelet_size, *as_pair(config.patch_size)))
    for module in model.modules():
        if hasattr(module, "grid_depth"):
            module.grid_size, module.grid_depth = side, depth
    config.frames_per_clip, config.crop_size = num_frames, size[0]


def resize_nothing(model, num_frames, size):
    model.config.num_frames, model.config.image_size = num_frames, as_config_size(size)


HOSTS = {
    "videomae": resize_videomae,
    "vivit": resize_vivit,
    "timesformer": resize_timesformer,
    "videoprism_vision_model": resize_videoprism,
    "vjepa2": resize_vjepa2,
    "video_focalnet": resize_nothing,
}
# The others take any number of frames as they are.
FIXED_LENGTH = {"videomae", "vivit", "videoprism_vision_model"}
