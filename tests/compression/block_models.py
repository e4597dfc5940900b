"""One small model per architecture whose blocks can be dropped, none of its parameters at zero, and inputs for it."""

from dataclasses import dataclass

import torch
from transformers import (
    MambaConfig,
    MambaModel,
    TimesformerConfig,
    TimesformerForVideoClassification,
    VideoMAEConfig,
    VideoMAEForVideoClassification,
    VideoMAEModel,
    VivitConfig,
    VivitForVideoClassification,
    VJEPA2Config,
    VJEPA2ForVideoClassification,
)

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    LiteTimesformerConfig,
    LiteTimesformerForVideoClassification,
    LiteVideoMAEConfig,
    LiteVideoMAEForVideoClassification,
    LiteVivitConfig,
    LiteVivitForVideoClassification,
    LiteVJEPA2Config,
    LiteVJEPA2ForVideoClassification,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
)

from ..pipelines.hosts import randomise


SIZE, FRAMES, DEPTH, LABELS = 16, 4, 5, 3
CLASSES = {"num_labels": LABELS}
SIZES = {"hidden_size": 16, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "intermediate_size": 24, **CLASSES}
SELECTION = {"keep_ratio": 0.5, "scorer": "embedding_norm"}

VIDEOMAE = {"image_size": SIZE, "patch_size": 8, "num_frames": FRAMES, "tubelet_size": 2, **SIZES}
VIVIT = {"image_size": SIZE, "num_frames": FRAMES, "tubelet_size": [2, 8, 8], **SIZES}
TIMESFORMER = {"image_size": SIZE, "patch_size": 8, "num_frames": FRAMES, **SIZES}
VJEPA2 = {
    "crop_size": SIZE,
    "patch_size": 8,
    "frames_per_clip": FRAMES,
    "tubelet_size": 2,
    "hidden_size": 24,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "num_pooler_layers": 1,
    "pred_hidden_size": 24,
    "pred_num_attention_heads": 2,
    "pred_num_hidden_layers": 1,
    "mlp_ratio": 1.5,
    **CLASSES,
}
FOCALNET = {
    "embed_dim": 8,
    "depths": [2, 1, 2],
    "focal_levels": [2, 1, 1],
    "focal_windows": [3, 3, 3],
    "num_frames": FRAMES,
    "image_size": SIZE,
    "use_layerscale": True,
    "drop_path_rate": 0.4,
    **CLASSES,
}
DETECTOR = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "attention_window": 5,
    "num_stem_layers": 2,
    "num_branch_layers": 3,
    "head_kernel_size": 3,
    "max_sequence_length": 64,
    **CLASSES,
}


def clips(batch=2, frames=FRAMES, size=SIZE):
    return torch.randn(batch, frames, 3, size, size, generator=torch.Generator().manual_seed(1))


def _pixels(model):
    return {model.main_input_name: clips()}


def _videos(model):
    """Two videos of unequal length, of three clips and of two."""
    mask = torch.ones(2, 3 * FRAMES)
    mask[1, 2 * FRAMES - 1 :] = 0
    return {"pixel_values": clips(frames=3 * FRAMES), "pixel_mask": mask}


def _features(model):
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(2, 21)
    mask[1, 13:] = 0
    return {"input_features": torch.randn(2, 21, 6, generator=generator), "attention_mask": mask}


def _tokens(model):
    return {"input_ids": torch.arange(14).reshape(2, 7) % 11}


def _detector(backbone_config=None, **options):
    options = {**DETECTOR, **options}
    if backbone_config is None:
        options["input_size"] = 6
    else:
        options.update(backbone_config=backbone_config, frames_per_step=2)
    return randomise(ActionFormerForTemporalActionDetection(ActionFormerConfig(**options)))


@dataclass(frozen=True)
class BlockModel:
    """A kind of model.

    Attributes:
        build: makes one; all of them have `DEPTH` blocks in the part.
        inputs: model -> keyword arguments of a call.
        part: of a detector.
        stock: the class of transformers that opens it, when it is a plain checkpoint.
    """

    build: object
    inputs: object = _pixels
    part: str | None = None
    stock: type | None = None

    def answer(self, model):
        """One tensor that depends on all that the model computes."""
        with torch.no_grad():
            output = model(**self.inputs(model))
        if hasattr(output, "offsets"):
            return torch.cat((output.logits, output.offsets), dim=-1)
        return output.logits if hasattr(output, "logits") else output.last_hidden_state

    def config(self, model):
        """The configuration that says how deep the part is."""
        config = model.config
        return config.backbone_config if self.part == "backbone" else config


MODELS = {
    "videomae": BlockModel(
        lambda: randomise(VideoMAEForVideoClassification(VideoMAEConfig(**VIDEOMAE))),
        stock=VideoMAEForVideoClassification,
    ),
    "videomae_first_token": BlockModel(
        lambda: randomise(VideoMAEForVideoClassification(VideoMAEConfig(**VIDEOMAE, use_mean_pooling=False))),
        stock=VideoMAEForVideoClassification,
    ),
    "videomae_base": BlockModel(lambda: randomise(VideoMAEModel(VideoMAEConfig(**VIDEOMAE))), stock=VideoMAEModel),
    "lite_videomae": BlockModel(
        lambda: randomise(LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**VIDEOMAE, **SELECTION)))
    ),
    "vivit": BlockModel(
        lambda: randomise(VivitForVideoClassification(VivitConfig(**VIVIT))), stock=VivitForVideoClassification
    ),
    "lite_vivit": BlockModel(
        lambda: randomise(LiteVivitForVideoClassification(LiteVivitConfig(**VIVIT, **SELECTION)))
    ),
    "timesformer": BlockModel(
        lambda: randomise(TimesformerForVideoClassification(TimesformerConfig(**TIMESFORMER))),
        stock=TimesformerForVideoClassification,
    ),
    "lite_timesformer": BlockModel(
        lambda: randomise(LiteTimesformerForVideoClassification(LiteTimesformerConfig(**TIMESFORMER, **SELECTION)))
    ),
    "vjepa2": BlockModel(
        lambda: randomise(VJEPA2ForVideoClassification(VJEPA2Config(**VJEPA2))), stock=VJEPA2ForVideoClassification
    ),
    "lite_vjepa2": BlockModel(
        lambda: randomise(LiteVJEPA2ForVideoClassification(LiteVJEPA2Config(**VJEPA2, **SELECTION)))
    ),
    "video_focalnet": BlockModel(
        lambda: randomise(VideoFocalNetForVideoClassification(VideoFocalNetConfig(**FOCALNET)))
    ),
    "detector_trunk": BlockModel(lambda: _detector(VideoMAEConfig(**VIDEOMAE)), _videos, "backbone"),
    "detector_trunk_in_passes": BlockModel(
        lambda: _detector(VideoMAEConfig(**VIDEOMAE), clips_per_pass=2), _videos, "backbone"
    ),
    "detector_with_adapters": BlockModel(
        lambda: _detector(VideoMAEConfig(**VIDEOMAE), temporal_adapters=True, clips_per_pass=2), _videos, "backbone"
    ),
    "detector_focalnet_trunk": BlockModel(lambda: _detector(VideoFocalNetConfig(**FOCALNET)), _videos, "backbone"),
    "detector_own": BlockModel(lambda: _detector(), _features, "detector"),
    "detector_own_as_released": BlockModel(
        lambda: _detector(mask_after_norm="nowhere", use_absolute_positions=True, neck_type="fpn"),
        _features,
        "detector",
    ),
    "mamba": BlockModel(
        lambda: randomise(
            MambaModel(
                MambaConfig(vocab_size=11, hidden_size=16, state_size=4, num_hidden_layers=DEPTH, use_cache=False)
            )
        ),
        _tokens,
        stock=MambaModel,
    ),
}

# of this one only the stem can go
CONVOLUTIONS = BlockModel(lambda: _detector(block_type="convolution"), _features, "detector")
