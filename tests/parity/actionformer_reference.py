"""ActionFormer as the authors' implementation ran it: a recorded run, and our model with the same weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_effvid.convert import CONVERTERS
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection


FIXTURES = Path(__file__).parent / "fixtures" / "actionformer"
CASES = ("thumos_tiny_local", "anet_tiny_global")
EVALUATIONS = [("thumos_tiny_local", 0), ("thumos_tiny_local", 1)] + [
    ("anet_tiny_global", index) for index in range(3)
]


class ReferenceCase:
    """A recorded run of the reference implementation, and our model with the same weights."""

    def __init__(self, name, **overrides):
        self.record = json.loads((FIXTURES / f"actionformer_{name}.json").read_text())
        self.recorded = load_file(FIXTURES / f"actionformer_{name}.safetensors")
        build_config, convert_state_dict = CONVERTERS["actionformer"]
        self.config = build_config(self.record["model_kwargs"])
        for field, value in overrides.items():
            setattr(self.config, field, value)
        self.official_weights = {
            key.removeprefix("param."): value for key, value in self.recorded.items() if key.startswith("param.")
        }
        self.model = ActionFormerForTemporalActionDetection(self.config).eval()
        weights = convert_state_dict(self.official_weights)
        self.missing = self.model.load_state_dict(weights, strict=False)

    @property
    def tests(self):
        """What the reference was told about its output."""
        return self.record["model_kwargs"]["test_cfg"]

    def levels(self, prefix):
        """A quantity of all levels, one after the other."""
        names = [f"{prefix}.{level}" for level in range(self.config.num_levels)]
        return torch.cat([self.recorded[name] for name in names], dim=1)

    def evaluation_inputs(self, index):
        """Features (1, T, C) and mask (1, T), padded as the reference padded them."""
        features = self.recorded[f"eval{index}.feats"].T
        return pad([features], self.record["eval"][index]["padded"])

    def training_inputs(self):
        """Features (2, T, C), mask (2, T) and labels of the training batch."""
        features = [self.recorded[f"train.feats.{video}"].T for video in range(2)]
        labels = [
            {
                "grid_segments": self.recorded[f"train.segments.{video}"],
                "class_labels": self.recorded[f"train.labels.{video}"],
            }
            for video in range(2)
        ]
        return *pad(features, self.config.max_sequence_length), labels


def pad(videos, steps):
    """Features of videos side by side, with zeros up to `steps`, and the mask of what is no padding."""
    features = torch.stack([torch.nn.functional.pad(video, (0, 0, 0, steps - len(video))) for video in videos])
    mask = torch.stack([torch.arange(steps) < len(video) for video in videos])
    return features, mask
