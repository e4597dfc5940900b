"""A tiny teacher that answers by what it sees, and counts how often it is asked."""

from types import SimpleNamespace

import torch
from torch import nn

from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


class SmallTeacher:
    """A 3-D convolution whose map is the features, its mean the embedding, and a linear layer of that the logits."""

    license = "apache-2.0"

    def __init__(self, num_labels=4, seed=0, crop=16, num_frames=3, name="small", **recipe):
        torch.manual_seed(seed)
        self.name, self.asked = name, 0
        self.model = nn.ModuleDict({"map": nn.Conv3d(3, 5, 3, stride=(1, 4, 4)), "head": nn.Linear(5, num_labels)})
        recipe = {"num_frames": num_frames, "size": {"shortest_edge": crop}, "crop_size": crop, **recipe}
        self.processor = EffVidVideoProcessor(**recipe)

    def __call__(self, pixel_values):
        self.asked += len(pixel_values)
        with torch.no_grad():
            features = self.model["map"](nn.functional.pad(pixel_values, (0, 0, 0, 0, 0, 0, 1, 1)).transpose(1, 2))
            embeddings = features.mean((2, 3, 4))
            return SimpleNamespace(logits=self.model["head"](embeddings), features=features, embeddings=embeddings)
