"""ActionFormer as the authors' implementation ran it: a recorded run, and our model with the same weights."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from hf_effvid.convert import CONVERTERS
from hf_effvid.convert.actionformer import restore_state_dict
from hf_effvid.models.modeling_actionformer import ActionFormerForTemporalActionDetection
from hf_effvid.models.temporal_candidates import select_candidates

from .video_focalnet_reference import Comparison


FIXTURES = Path(__file__).parent / "fixtures" / "actionformer"
CASES = ("thumos_tiny_local", "anet_tiny_global")
EVALUATIONS = [("thumos_tiny_local", 0), ("thumos_tiny_local", 1)] + [
    ("anet_tiny_global", index) for index in range(3)
]

# Both sides are float32: what two correct orders of summation differ by, absolute. Logits go up to 5, segments to 128 steps.
ALLOWED = {
    "features after the neck": 2e-5,
    "logits": 2e-5,
    "offsets": 2e-5,
    "candidates: scores": 5e-6,
    "candidates: segments (steps)": 1e-4,
    "targets: offsets": 0.0,
    "losses": 1e-6,
    "running count of positives": 1e-4,
    "gradient norms": 1e-6,
}


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

    def run_evaluation(self, index):
        """Pyramid, outputs and candidates of one recorded input."""
        features, mask = self.evaluation_inputs(index)
        with torch.no_grad():
            outputs = self.model(features, mask)
            pyramid = self.model.actionformer(features, mask)
        candidates = select_candidates(
            outputs.logits[0],
            outputs.offsets[0],
            outputs.point_mask[0],
            outputs.points,
            score_threshold=self.tests["pre_nms_thresh"],
            top_k=self.tests["pre_nms_topk"],
            min_steps=self.tests["duration_thresh"],
        )
        return pyramid, outputs, candidates

    def compare_evaluation(self, index):
        """Every number that was recorded of one input, before suppression."""
        pyramid, outputs, candidates = self.run_evaluation(index)
        recorded = {name.removeprefix(f"eval{index}."): value for name, value in self.recorded.items()}
        for level, name in ((0, "0"), (-1, "last")):
            ours = pyramid.feature_maps[level].transpose(1, 2)
            yield _compare("features after the neck", ours, recorded[f"fpn_feat.{name}"])
        yield _compare("logits", outputs.logits, self.levels(f"eval{index}.cls_logits"))
        yield _compare("offsets", outputs.offsets, self.levels(f"eval{index}.offsets"))
        yield _compare("candidates: scores", candidates.scores, recorded["pre_nms.scores"])
        yield _compare("candidates: segments (steps)", candidates.segments, recorded["pre_nms.segments"])

    def compare_training(self):
        """Every number that was recorded of two steps on the training batch; needs a case with `drop_path_rate=0.0`."""
        self.model.train()
        self.model.loss_normalizer.value.fill_(self.config.loss_normalizer_init)
        self.model.zero_grad()
        features, mask, labels = self.training_inputs()
        record = self.record["train"]
        outputs = self.model(features, mask, labels=labels)
        targets = self.model.assign_targets(labels, outputs.points)
        positive = targets.positive & outputs.point_mask
        yield _compare("logits", outputs.logits, self.levels("train.cls_logits"))
        yield _compare("offsets", outputs.offsets, self.levels("train.offsets"))
        yield _compare("targets: offsets", targets.offsets[positive], self.recorded["train.target_offsets"][positive])
        yield from self._compare_losses(outputs, record["losses"], record["loss_normalizer_after"])
        outputs.loss.backward()
        gradients = {name: parameter.grad for name, parameter in self.model.named_parameters()}
        for name, gradient in restore_state_dict(gradients).items():
            yield _compare("gradient norms", gradient.norm(), torch.tensor(record["grad_l2"][name]))
        outputs = self.model(features, mask, labels=labels)
        yield from self._compare_losses(outputs, record["losses_second_call"], record["loss_normalizer_after_second"])

    def _compare_losses(self, outputs, losses, count):
        found = (outputs.classification_loss, outputs.regression_loss, outputs.loss)
        for ours, name in zip(found, ("cls_loss", "reg_loss", "final_loss"), strict=True):
            yield _compare("losses", ours, torch.tensor(losses[name]))
        yield _compare("running count of positives", self.model.loss_normalizer.value, torch.tensor(count))


def _compare(quantity, ours, expected):
    if ours.shape != expected.shape:
        raise RuntimeError(f"{quantity} have shape {tuple(ours.shape)}, not {tuple(expected.shape)}.")
    error = (ours.detach() - expected).abs().max().item()
    return Comparison(quantity, "float32", error, ALLOWED[quantity])


def compare_all(name):
    """All comparisons of one recorded model."""
    case = ReferenceCase(name)
    for index in range(len(case.record["eval"])):
        yield from case.compare_evaluation(index)
    yield from ReferenceCase(name, drop_path_rate=0.0).compare_training()


def pad(videos, steps):
    """Features of videos side by side, with zeros up to `steps`, and the mask of what is no padding."""
    features = torch.stack([torch.nn.functional.pad(video, (0, 0, 0, steps - len(video))) for video in videos])
    mask = torch.stack([torch.arange(steps) < len(video) for video in videos])
    return features, mask
