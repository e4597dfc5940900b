"""`VideoDifficultyGauge`: any video classifier, best a small one, says how sure it is of a clip, and with that how hard the clip is.

LITE++ decides by it how many tokens a large model reads (`token_budget.py`); the paper's gauge is a MoViNet. The confidence is the largest
softmax probability of the logits z at a temperature T, max_k softmax(z / T)_k, with T fitted on held-out videos. Which classes the gauge
knows does not matter to it: they may be others than the large model's.
"""

import copy
import os
from dataclasses import replace

import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, AutoModelForVideoClassification, AutoVideoProcessor

from .budget_gauges import confidence_of
from .pixel_statistics import pixel_statistics


class GaugeNotAvailableError(ValueError):
    """The classifier that a budget policy asks is not at hand, or does not open."""


class VideoDifficultyGauge:
    """A video classifier that looks at another model's (the host's) clips in its own way.

    It is no `nn.Module`, so that it enters neither the checkpoint nor the parameters of the host that it is given to:
    `host.set_budget_policy(policy, gauge=VideoDifficultyGauge.from_pretrained("student"))`. The clips it gets there are the host's,
    brought to its own normalisation, size and number of frames; their field of view is the host's crop.

    Args:
        model: a classifier of `AutoModelForVideoClassification`; it is put into eval mode.
        processor: its video or image processor.
        host_processor: the host's; None: clips are normalised as its own processor does it. To decide over another model's budget, it
            has to be known, from here or from the policy.
        temperature: T.
        name: folder or Hub id that it can be loaded from again, which a policy then says; None: there is none.
    """

    def __init__(self, model, processor, host_processor=None, temperature=1.0, name=None):
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature!r}.")
        self.model, self.processor = model.eval(), processor
        self.temperature = float(temperature)
        self.name = name
        self.own_statistics = pixel_statistics(processor)
        self.host_statistics = pixel_statistics(host_processor) if host_processor is not None else None
        config = model.config
        self.num_frames = (
            getattr(processor, "num_frames", None)
            or getattr(config, "num_frames", None)
            or getattr(config, "frames_per_clip", None)
        )

    @classmethod
    def from_pretrained(cls, name, host_processor=None, temperature=1.0, trust_remote_code=False, **options):
        """The gauge that a folder or Hub id holds.

        Args:
            name: of a checkpoint with a video or image processor.
            host_processor, temperature: see the class.
            trust_remote_code: run code that comes with the checkpoint.
            options: passed to `from_pretrained` of model and processor (`revision`, `token`, ...).

        Raises:
            GaugeNotAvailableError: nothing is there, or it does not open; the message says why.
        """
        options["trust_remote_code"] = trust_remote_code
        try:
            model = AutoModelForVideoClassification.from_pretrained(name, **options)
            try:
                processor = AutoVideoProcessor.from_pretrained(name, **options)
            except (OSError, ValueError, KeyError, ImportError):  # from before there were video processors
                processor = AutoImageProcessor.from_pretrained(name, **options)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise GaugeNotAvailableError(
                f"the gauge {os.fspath(name)!r} does not open as a video classifier with a processor: {reason}"
            ) from error
        return cls(model, processor, host_processor, temperature, os.fspath(name))

    def to(self, device):
        """Moves the classifier; returns the gauge."""
        self.model.to(device)
        return self

    def for_host(self, host_processor):
        """The same gauge for clips that this processor has made."""
        return self._changed(host_statistics=pixel_statistics(host_processor))

    def with_temperature(self, temperature):
        """The same gauge at another temperature."""
        return self._changed(temperature=float(temperature))

    def _changed(self, **values):
        other = copy.copy(self)
        for name, value in values.items():
            setattr(other, name, value)
        return other

    # ---- clips of a host ------------------------------------------------------------------------------------------------

    def pixels(self, pixel_values):
        """The host's clips (B, T, C, H, W) as the gauge's, (B, T', C, H', W')."""
        clips, host = pixel_values.float(), self.host_statistics or self.own_statistics
        total, wanted = clips.shape[1], self.num_frames
        if wanted is not None and wanted != total:
            # centres of equal bins, as uniform sampling takes them; frames repeat where the host has fewer
            clips = clips[:, [(2 * i + 1) * total // (2 * wanted) for i in range(wanted)]]
        mean, std = self._channels(clips, host)
        clips = clips * std + mean
        size = clip_size(self.processor, *clips.shape[-2:])
        if size != tuple(clips.shape[-2:]):
            frames = F.interpolate(clips.flatten(0, 1), size, mode="bilinear", antialias=True)
            clips = frames.unflatten(0, clips.shape[:2])
        mean, std = self._channels(clips, self.own_statistics)
        return (clips - mean) / std

    @staticmethod
    def _channels(clips, statistics):
        return (clips.new_tensor(values).view(1, 1, -1, 1, 1) for values in statistics)

    @torch.no_grad()
    def logits(self, pixel_values):
        """Logits (B, K) float32 of the gauge's own classes, before the temperature, for the host's clips (B, T, C, H, W)."""
        parameter = next(self.model.parameters())
        pixels = self.pixels(pixel_values).to(parameter.device, parameter.dtype)
        name = getattr(self.model, "main_input_name", "pixel_values")
        return self.model(**{name: pixels}).logits.float().flatten(1).to(pixel_values.device)

    def __call__(self, pixel_values):
        """Confidence (B,) float32 of the host's clips (B, T, C, H, W)."""
        return confidence_of(self.logits(pixel_values), self.temperature)

    @torch.no_grad()
    def of_videos(self, videos, **reading):
        """Confidence (B,) of videos themselves, read by the gauge's own processor, for `selection_extras={"confidence": ...}`.

        Args:
            videos: a list of what the processor takes.
            reading: passed to the processor.
        """
        parameter = next(self.model.parameters())
        batch = self.processor(videos, return_tensors="pt", **reading)
        name = getattr(self.model, "main_input_name", "pixel_values")
        pixels = batch[name if name in batch else "pixel_values"].to(parameter.device, parameter.dtype)
        return confidence_of(self.model(**{name: pixels}).logits.float().flatten(1), self.temperature).cpu()

    # ---- what a policy says of it ---------------------------------------------------------------------------------------

    def under(self, policy):
        """The policy with what it takes to build this gauge again, and the gauge as the policy has it.

        What the policy says already (name, temperature, normalisation of the host) counts.

        Args:
            policy: a `BudgetPolicy` whose gauge is `model`.

        Returns:
            (policy, gauge).

        Raises:
            ValueError: neither says how the host's clips are normalised.
        """
        gauge = self
        if policy.gauge_temperature is not None:
            gauge = gauge.with_temperature(policy.gauge_temperature)
        if policy.host_mean is not None:
            gauge = gauge._changed(host_statistics=(list(policy.host_mean), list(policy.host_std)))
        if gauge.host_statistics is None:
            raise ValueError(
                "the gauge has to know how the model's clips are normalised: VideoDifficultyGauge(..., host_processor=...), or host_mean and "
                "host_std of the policy."
            )
        mean, std = gauge.host_statistics
        described = replace(
            policy,
            gauge_model=policy.gauge_model or gauge.name,
            gauge_temperature=gauge.temperature,
            host_mean=mean,
            host_std=std,
        )
        return described, gauge


def clip_size(processor, height, width):
    """(height, width) that a processor gives a square or other picture that is seen as a whole: its crop, or its size."""
    size = getattr(processor, "size", None)
    if getattr(processor, "do_center_crop", False) and getattr(processor, "crop_size", None):
        size = processor.crop_size
    elif not getattr(processor, "do_resize", True) or not size:
        return height, width
    if isinstance(size, int):
        return size, size
    size = dict(size)
    if size.get("height") and size.get("width"):
        return size["height"], size["width"]
    edge = size.get("shortest_edge")
    if not edge:
        return height, width
    scale = edge / min(height, width)
    return round(height * scale), round(width * scale)
