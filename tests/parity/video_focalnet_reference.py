"""Video-FocalNet against the recorded reference: every compared quantity of a case as a `Comparison`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_effvid.convert import CONVERTERS
from hf_effvid.convert.video_focalnet import convert_key
from hf_effvid.models.modeling_video_focalnet import VideoFocalNetForVideoClassification

from .seeded_params import make_input, make_state_dict


FIXTURES = Path(__file__).parent / "fixtures" / "video_focalnet"
TINY_CASES = ("tiny_default", "tiny_postln_ls_norm", "tiny_tubelet2_rect")
FULL_SIZE_CASE = "T_k400_recipe"

FLOAT64_TOLERANCE = 1e-9
# what float32 rounding amounts to in the logits; the recorded weights drive activations to 100 and more
FLOAT32_TOLERANCE = {**dict.fromkeys(TINY_CASES, 5e-5), FULL_SIZE_CASE: 5e-4}


@dataclass(frozen=True)
class Comparison:
    """One quantity: the largest absolute difference from the reference, and what is allowed."""

    quantity: str
    dtype: str
    max_abs_error: float
    allowed: float

    @property
    def passes(self):
        return self.max_abs_error <= self.allowed


@dataclass(frozen=True)
class FeatureComparison:
    """One intermediate value, of which the reference kept float32 only.

    How far two correct float32 runs may lie apart grows with depth, so it is measured: the reference may differ from
    our float64 run by no more than twice what our own float32 run differs from it (root mean squares).
    """

    quantity: str
    max_abs_error: float
    reference_rms: float
    our_rounding_rms: float
    dtype: str = "float32"

    @property
    def allowed(self):
        return 2 * self.our_rounding_rms + 1e-7

    @property
    def passes(self):
        return self.reference_rms <= self.allowed


class ReferenceCase:
    """A recorded run of the reference implementation, and our model with the same weights."""

    def __init__(self, name):
        self.name = name
        self.record = json.loads((FIXTURES / f"{name}.json").read_text())
        self.recorded = load_file(FIXTURES / f"{name}.io.safetensors")
        build_config, convert_state_dict = CONVERTERS["video_focalnet"]
        self.upstream_state_dict = self._weights()
        self.model = VideoFocalNetForVideoClassification(build_config(self.record["kwargs"])).eval()
        self.model.load_state_dict(convert_state_dict(self.upstream_state_dict), strict=True)
        self.clips = self._input()

    def _weights(self):
        path = FIXTURES / f"{self.name}.weights.safetensors"
        if path.exists():
            return load_file(path)
        return make_state_dict(self.record["state_dict_shapes"], self.record["seed"])

    def _input(self):
        clips = self.recorded.get("input")
        if clips is None:
            clips = make_input(self.name, self.record["input_shape"], self.record["seed"])
        digest = hashlib.sha256(clips.numpy().tobytes()).hexdigest()
        if digest != self.record["input_sha256"]:
            raise RuntimeError(f"The input of {self.name} is not the recorded one: sha256 {digest}.")
        return clips

    def compare_float64(self):
        """Logits in double precision, where nothing but a real difference is left."""
        with torch.no_grad():
            logits = self.model.double()(self.clips.double()).logits
        self.model.float()
        return [self._compare("logits", "float64", logits, self.recorded["logits_fp64"], FLOAT64_TOLERANCE)]

    def compare_float32(self):
        """Logits, features of every stage, modulators and gates in single precision."""
        single = self._features(self.clips)
        self.model.double()
        double = self._features(self.clips.double())
        self.model.float()
        tolerance = FLOAT32_TOLERANCE[self.name]
        comparisons = [self._compare("logits", "float32", single["logits"], self.recorded["logits"], tolerance)]
        for name, statistics in self.record["features"].items():
            if tuple(single[name].shape) != tuple(statistics["shape"]):
                raise RuntimeError(f"{name} has shape {tuple(single[name].shape)}, not {statistics['shape']}.")
            comparisons.append(self._compare_feature(name, single[name].double(), double[name]))
        return comparisons

    def compare_gradients(self):
        """Loss, and the norm of its gradient for every single parameter (relative where it is above 1)."""
        self.model.zero_grad()
        loss = self.model(self.clips, labels=torch.tensor(self.record["labels"])).loss
        loss.backward()
        tolerance = FLOAT32_TOLERANCE[self.name]
        recorded = torch.tensor(self.record["cross_entropy"])
        comparisons = [self._compare("cross entropy", "float32", loss.detach(), recorded, tolerance)]
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        for name, norm in self.record["grad_norms"].items():
            ours = gradients[convert_key(name)].norm()
            allowed = tolerance * max(1.0, norm)
            comparisons.append(self._compare(f"gradient norm of {name}", "float32", ours, torch.tensor(norm), allowed))
        return comparisons

    @staticmethod
    def _compare(quantity, dtype, ours, reference, allowed):
        error = (ours.double() - reference.double()).abs().max().item()
        return Comparison(quantity, dtype, error, allowed)

    def _compare_feature(self, name, single, double):
        reference = self.recorded.get(f"feat.{name}")
        if reference is None:  # large features were recorded in part
            reference = self.recorded[f"feat_sub.{name}"]
            step = self.record["features"][name]["subsample_step"]
            single, double = (value.flatten()[::step][: reference.numel()] for value in (single, double))
        return FeatureComparison(
            quantity=name,
            max_abs_error=(single - reference).abs().max().item(),
            reference_rms=(double - reference).square().mean().sqrt().item(),
            our_rounding_rms=(double - single).square().mean().sqrt().item(),
        )

    def _features(self, clips):
        """Our intermediate values under the names and in the layouts of the record."""
        features = {}
        encoder = self.model.video_focalnet.encoder
        hooks = [encoder.stages[0].layers[0].modulation.register_forward_hook(_keep(features, "modulation"))]
        for index, stage in enumerate(encoder.stages[1:]):
            hooks.append(stage.downsample.register_forward_hook(_keep(features, f"stage{index}_out")))
        with torch.no_grad():
            outputs = self.model(clips, output_hidden_states=True, output_modulators=True)
            base = self.model.video_focalnet(clips)
        for hook in hooks:
            hook.remove()

        steps = outputs.reshaped_hidden_states[0].shape[2]
        height, width = outputs.reshaped_hidden_states[0].shape[3:]
        features["stage0_block0_modulation"] = features.pop("modulation").unflatten(1, (steps, height, width))
        features["patch_embed"] = outputs.hidden_states[0]
        for index in range(len(encoder.stages)):
            features[f"stage{index}_blocks"] = outputs.hidden_states[index + 1]
        features[f"stage{len(encoder.stages) - 1}_out"] = outputs.hidden_states[-1]
        features["final_norm"] = base.last_hidden_state
        # the reference keeps frames in the batch dimension
        features = {name: _frames_in_batch(value, steps) for name, value in features.items()}
        features["pooled"] = base.pooler_output
        features["logits"] = outputs.logits
        for stage in (1, 3):
            block = sum(self.model.config.depths[: stage + 1]) - 1
            features[f"stage{stage}_last_modulator"] = _channels_first(outputs.spatial_modulators[block])
            features[f"stage{stage}_last_modulator_temporal"] = _channels_first(outputs.temporal_modulators[block])
            features[f"stage{stage}_last_gates"] = _channels_first(outputs.spatial_gates[block])
            gates = outputs.temporal_gates[block]  # (B, T, H, W, L + 1); the reference has (B * H * W, L + 1, T)
            features[f"stage{stage}_last_gates_temporal"] = gates.permute(0, 2, 3, 4, 1).flatten(0, 2)
        return features


def _keep(features, name):
    def hook(module, inputs, output):
        features[name] = output[0]

    return hook


def _frames_in_batch(value, steps):
    if value.ndim == 5:  # (B, T, H, W, C)
        return value.flatten(0, 1)
    return value.unflatten(1, (steps, -1)).flatten(0, 1)  # (B, T * N, C)


def _channels_first(value):
    return value.flatten(0, 1).permute(0, 3, 1, 2)  # (B, T, H, W, C) -> (B * T, C, H, W)
