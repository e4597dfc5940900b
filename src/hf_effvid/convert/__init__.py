"""Checkpoints of other projects, converted to ours: one pair of pure functions per architecture."""

from . import video_focalnet


# model_type -> (build_config(upstream constructor arguments), convert_state_dict(upstream weights))
CONVERTERS = {
    "video_focalnet": (video_focalnet.build_config, video_focalnet.convert_state_dict),
}
