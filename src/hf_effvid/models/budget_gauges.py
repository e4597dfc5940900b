"""How sure something cheap is of a clip: the gauges that `token_budget` decides by.

A confidence is the largest softmax probability. Labels that exclude each other are meant; several labels per video have none.
"""

import torch
import torch.nn.functional as F
from torch import nn


POOLINGS = ("mean", "mean_std")


def confidence_of(logits):
    """The largest softmax probability of (B, K) logits, (B,) float32."""
    return logits.float().softmax(-1).amax(-1)


def pool_embeddings(patch_embeddings, pooling="mean_std"):
    """Patch embeddings of a clip as one vector, in float32.

    Args:
        patch_embeddings: (B, N, D).
        pooling: "mean" over the tokens, or "mean_std", the standard deviation behind it.

    Returns:
        (B, D) or (B, 2 D).
    """
    embeddings = patch_embeddings.float()
    mean = embeddings.mean(1)
    return mean if pooling == "mean" else torch.cat([mean, embeddings.std(1, correction=0)], dim=-1)


class BudgetProbe(nn.Linear):
    """The gauge `probe`: class logits from pooled patch embeddings. Saved as `budget_probe.weight` and `budget_probe.bias`.

    Args:
        hidden_size: D of the embeddings.
        num_labels: K.
        pooling: see `pool_embeddings`.
    """

    def __init__(self, hidden_size, num_labels, pooling="mean_std"):
        super().__init__(hidden_size * (2 if pooling == "mean_std" else 1), num_labels)
        self.pooling = pooling

    def forward(self, patch_embeddings):
        """(B, N, D) -> (B, K) float32."""
        pooled = pool_embeddings(patch_embeddings, self.pooling)
        return F.linear(pooled, self.weight.float(), self.bias.float())


class ModelGauge:
    """The gauge `model`: a classifier that looks at the host's pixels in its own way.

    It is no `nn.Module`, so that it enters neither the checkpoint nor the parameters of the host it is given to
    (`set_budget_policy(policy, gauge=...)`). The pixels it gets are the host's, shifted to its own normalisation, size and number of
    frames. Whoever wants to show it the file itself computes the confidence outside and passes `selection_extras={"confidence": ...}`.

    Args:
        model: a video classifier; it is put into eval mode.
        host_mean, host_std: normalisation of the host's pixels, three numbers each.
        image_mean, image_std: normalisation of the gauge's.
        size: (height, width) of the gauge's clips; None: the host's.
        num_frames: frames of the gauge's clips, taken evenly from the host's; None: all of them.
    """

    def __init__(self, model, host_mean, host_std, image_mean, image_std, size=None, num_frames=None):
        self.model = model.eval()
        self.host_mean, self.host_std = host_mean, host_std
        self.image_mean, self.image_std = image_mean, image_std
        self.size, self.num_frames = size, num_frames

    @classmethod
    def between(cls, model, processor, host_processor):
        """The gauge of a classifier, with what its processor and the host's say about pixels.

        Args:
            model: the gauge's classifier.
            processor: its video or image processor.
            host_processor: the host's.
        """
        size = getattr(processor, "crop_size", None) or processor.size
        height, width = size.get("height"), size.get("width")
        config = model.config
        return cls(
            model,
            host_mean=list(host_processor.image_mean),
            host_std=list(host_processor.image_std),
            image_mean=list(processor.image_mean),
            image_std=list(processor.image_std),
            size=(height, width) if height and width else None,
            num_frames=getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None),
        )

    def pixels(self, pixel_values):
        """The host's clips (B, T, C, H, W) as the gauge's, (B, T', C, H', W')."""
        clips = pixel_values.float()
        if self.num_frames is not None and self.num_frames != clips.shape[1]:
            # centres of equal bins, as uniform sampling takes them; frames repeat where the host has fewer
            total, wanted = clips.shape[1], self.num_frames
            clips = clips[:, [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]]
        mean, std = (clips.new_tensor(values).view(1, 1, -1, 1, 1) for values in (self.host_mean, self.host_std))
        clips = clips * std + mean
        if self.size is not None and tuple(self.size) != tuple(clips.shape[-2:]):
            frames = F.interpolate(clips.flatten(0, 1), tuple(self.size), mode="bilinear", antialias=True)
            clips = frames.unflatten(0, clips.shape[:2])
        mean, std = (clips.new_tensor(values).view(1, 1, -1, 1, 1) for values in (self.image_mean, self.image_std))
        return (clips - mean) / std

    @torch.no_grad()
    def __call__(self, pixel_values):
        """Confidence (B,) float32 of the host's clips (B, T, C, H, W)."""
        parameter = next(self.model.parameters())
        pixels = self.pixels(pixel_values).to(parameter.device, parameter.dtype)
        name = getattr(self.model, "main_input_name", "pixel_values")
        return confidence_of(self.model(**{name: pixels}).logits).to(pixel_values.device)
