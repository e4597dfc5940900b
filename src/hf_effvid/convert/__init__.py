"""Checkpoints of other projects, converted to ours: one pair of pure functions per architecture."""

from .checkpoints import CheckpointError, UnsafeCheckpointError
from .conversion import FAMILIES, convert_checkpoint
from .image_initialization import convert_image_focalnet, video_from_image_focalnet
from .tsm_image_start import ImageStart, tsm_from_image_network


# model_type -> (build_config(upstream constructor arguments), convert_state_dict(upstream weights))
CONVERTERS = {model_type: (family.build_config, family.convert_state_dict) for model_type, family in FAMILIES.items()}

__all__ = [
    "CONVERTERS",
    "CheckpointError",
    "ImageStart",
    "UnsafeCheckpointError",
    "convert_checkpoint",
    "convert_image_focalnet",
    "tsm_from_image_network",
    "video_from_image_focalnet",
]
