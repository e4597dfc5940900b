"""How a video was looked at, written down for the results file."""

_PROTOCOL_FIELDS = (
    "num_frames",
    "sampling",
    "frame_stride",
    "target_fps",
    "short_clip_policy",
    "clip_draw",
    "clip_seed",
    "size",
    "crop_size",
    "multi_view_size",
    "crop_layout",
)


def describe_protocol(
    processor, multi_view: bool = True, num_clips: int | None = None, num_crops: int | None = None
) -> dict:
    """The recipe that an evaluation really used, JSON-ready; fields that are None are left out."""
    several = multi_view or num_clips is not None or num_crops is not None
    protocol = {name: getattr(processor, name, None) for name in _PROTOCOL_FIELDS}
    protocol["num_clips"] = (num_clips or getattr(processor, "num_clips", None) or 1) if several else 1
    protocol["num_crops"] = (num_crops or getattr(processor, "num_crops", None) or 1) if several else 1
    protocol["aggregation"] = getattr(processor, "aggregation", None) or "softmax_mean"
    if protocol["sampling"] != "dense":
        protocol.pop("frame_stride")
        protocol.pop("target_fps")
    if protocol["clip_draw"] != "random" or protocol["num_clips"] == 1:  # nothing was drawn
        protocol.pop("clip_draw")
        protocol.pop("clip_seed")
    if protocol["num_crops"] == 1:
        protocol.pop("multi_view_size")
    if protocol["num_crops"] == 1 or protocol["crop_layout"] == "long_side":
        protocol.pop("crop_layout")
    return {name: _plain(value) for name, value in protocol.items() if value is not None}


def _plain(value):
    """transformers keeps sizes in a dict-like class; JSON wants a dict without the empty fields."""
    if isinstance(value, (str, int, float, bool)):
        return value
    return {name: number for name, number in dict(value).items() if number is not None}
