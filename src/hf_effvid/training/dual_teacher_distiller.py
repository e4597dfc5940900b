"""A student that learns from labels, from a ViT teacher and from a CNN teacher at once (https://huggingface.co/papers/2511.09469).

L = ce L_CE + r (kd L_KD + residual L_res + cnn_feature L_cnn + relation L_RKD + feature L_feat) + auxiliary L_aux; the terms stand in
`compression/`, their weights and r in `DistillationSettings`. Teachers stand outside of the module tree, auxiliaries inside: the first are
neither trained nor saved nor counted, the second are trained, resume with the run, and never reach the student's folder.
"""

from contextlib import nullcontext

import torch
from torch import nn

from ..compression.distillation import dist_loss, dkd_loss, kd_loss, ofa_loss, standardise_logits
from ..compression.distillation_relations import rkd_angle_loss, rkd_distance_loss
from ..compression.feature_distillation import attention_transfer_loss, feature_mse_loss, fitnet_loss
from ..compression.feature_taps import feature_channels, feature_spec, pooled, record_features
from ..compression.full_precision import lifted
from ..compression.structure_discrepancy import StructureDiscrepancy
from ..compression.teacher_weighting import mix_teachers, teacher_confidence, teacher_discrepancy, teacher_weights
from .distillation_settings import ROLES, DistillationError, DistillationSettings
from .gathered_relations import gather_embeddings
from .tasks import ClassificationTask


OUTPUTS = ("logits", "features", "embeddings")


class DualTeacherDistiller(ClassificationTask):
    """Classification with one or two frozen teachers beside the student.

    A training batch has, beside `pixel_values` (B, T, C, H, W) and `labels` of the student, for each role "vit" and "cnn" of a teacher its own
    pixels (`vit_pixel_values`) or what it has answered before: `vit_logits` (B, N), `vit_features` (B, C, T, H, W), `vit_embeddings` (B, D),
    as far as the terms read them. Class order is the student's. Evaluations are those of `ClassificationTask`, without any teacher.

    Args:
        student: a video classifier of single labels.
        teachers: role ("vit", "cnn") -> a `Teacher`, or anything with its `channels` where batches carry answers.
        settings: `DistillationSettings`; terms for which a teacher is missing are left out.
        spec: where the student's last feature map is, a `FeatureSpec`; None: found by the kind of model.
        seed: of the auxiliary modules' first weights.
        options: of `ClassificationTask`.

    Attributes:
        settings: those of the teachers there are.
        terms: of `kd`, `residual`, `cnn_feature`, `relation`, `feature`: what is computed.

    Raises:
        DistillationError: a student of several labels, an unknown role, a teacher that shares weights with the student.
    """

    def __init__(self, student, teachers, settings=None, *, spec=None, seed=0, **options):
        super().__init__(student, **options)
        if self.multi_label:
            raise DistillationError(
                "Distillation compares softmax predictions; this student has several labels per clip "
                "(problem_type='multi_label_classification'). Train it with train_classifier."
            )
        self.settings = (settings or DistillationSettings()).for_teachers(teachers)
        self.terms = self.settings.terms
        self.roles = tuple(role for role in ROLES if role in teachers)
        # what each teacher is asked for; one that nothing is read of does not run
        self.needed = {role: self.settings.needed_of(role, self.roles) for role in self.roles}
        self._share_of_run = None
        _refuse_shared_weights(student, teachers)
        # a tuple: what stands in one is no sub-module
        self._outside = (dict(teachers),)
        self.feature_spec = (spec or feature_spec(student)) if self._reads_features else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._add_auxiliaries(seed)

    @property
    def teachers(self):
        """Role -> teacher."""
        return self._outside[0]

    @property
    def ramp_factor(self):
        """r: 1 outside of a run, and from the share `settings.ramp` of a run on."""
        if self._share_of_run is None or not self.settings.ramp:
            return 1.0
        return min(1.0, self._share_of_run / self.settings.ramp)

    def begin_step(self, step, num_steps):
        # the first step counts too, so that no step of a run is without its teachers
        self._share_of_run = (step + 1) / max(num_steps, 1)

    # ---- one batch --------------------------------------------------------------------------------------------------

    def forward(self, batch):
        """A batch of the student and its teachers -> outputs of `ClassificationTask` with the whole `loss`.

        Beside it, without their weights: `task_loss`, `kd_loss`, `residual_loss`, `auxiliary_loss`, `cnn_feature_loss`, `relation_distance`,
        `relation_angle`, `feature_loss`; and of what is computed without gradient `residual_rms`, `residual_explained`, `ramp`, and for each role
        `weight_vit`, `confidence_vit` (C), `discrepancy_vit` (D), means over the batch.

        Raises:
            DistillationError: clips of several views, no labels, or neither pixels nor answers of a teacher.
        """
        if not self.training or not self.terms:
            return super().forward(batch)
        if batch["pixel_values"].ndim != 5 or batch.get("labels") is None:
            raise DistillationError(
                "A student is taught with labelled clips (B, T, C, H, W) of one view, "
                f"got {tuple(batch['pixel_values'].shape)}{'' if batch.get('labels') is not None else ' without labels'}."
            )
        recording = record_features(self.model, self.feature_spec) if self._reads_features else nullcontext()
        with recording as recorded:
            outputs = dict(super().forward(batch))
        # auxiliary modules are in single precision, whatever the student is in
        features = lifted(recorded.map) if self._reads_features else None
        answers = {role: self._answers(role, batch) for role in self.roles if self.needed[role]}
        found = {}
        if "kd" in self.terms:
            found |= self._kd_terms(outputs["logits"], answers, batch["labels"])
        if self.discrepancy is not None:
            found |= self._discrepancy_terms(features, answers, batch["labels"])
        if "relation" in self.terms:
            found |= self._relation_terms(features, answers[self.settings.relation_teacher])
        if "feature" in self.terms:
            found["feature_loss"] = self._feature_term(features, answers)
        outputs["task_loss"] = outputs["loss"]
        return {**outputs, **found, "loss": self._total(outputs["loss"], found), "ramp": self._ramp_of(found)}

    def _total(self, task_loss, found):
        settings, ramp = self.settings, self.ramp_factor
        weights = {
            "kd_loss": ramp * settings.kd_weight,
            "residual_loss": ramp * settings.residual_weight,
            "cnn_feature_loss": ramp * settings.cnn_feature_weight,
            "relation_distance": ramp * settings.relation_weight * settings.rkd_distance_weight,
            "relation_angle": ramp * settings.relation_weight * settings.rkd_angle_weight,
            "feature_loss": ramp * settings.feature_weight,
            "auxiliary_loss": settings.auxiliary_weight,
        }
        return settings.ce_weight * task_loss + sum(weights[name] * found[name] for name in weights if name in found)

    def _ramp_of(self, found):
        return torch.tensor(self.ramp_factor, device=next(iter(found.values())).device)

    def _kd_terms(self, logits, answers, labels):
        settings = self.settings
        teacher_logits = [answers[role]["logits"] for role in self.roles]
        weights = teacher_weights(
            logits,
            teacher_logits,
            self._class_numbers(labels) if settings.label_gate or settings.weighting == "ca_mkd" else None,
            settings.weighting,
            combine=settings.combine,
            discrepancy_weight=settings.discrepancy_weight,
            normalise=settings.normalise,
            weight_temperature=settings.weight_temperature,
            confidence_temperature=settings.confidence_temperature,
            center_logits=settings.center_logits,
            label_gate=settings.label_gate,
        )
        target = mix_teachers(weights, teacher_logits, settings.logit_norm)
        found = {"kd_loss": self._kd_loss(logits, target, labels)}
        for number, role in enumerate(self.roles):
            discrepancy = teacher_discrepancy(logits, teacher_logits[number], settings.center_logits)
            found[f"weight_{role}"] = weights[:, number].mean()
            found[f"confidence_{role}"] = teacher_confidence(
                teacher_logits[number], settings.confidence_temperature
            ).mean()
            found[f"discrepancy_{role}"] = discrepancy.mean()
        return found

    def _kd_loss(self, logits, target, labels):
        kind, temperature = self.settings.kd_loss, self.settings.kd_temperature
        if self.settings.logit_norm == "zscore":
            logits = standardise_logits(logits)
        if kind in ("dkd", "ofa"):
            loss = dkd_loss if kind == "dkd" else ofa_loss
            return loss(logits, target, self._class_numbers(labels), temperature=temperature)
        return (kd_loss if kind == "kd" else dist_loss)(logits, target, temperature=temperature)

    def _class_numbers(self, labels):
        if labels.is_floating_point():
            raise DistillationError(
                f"kd_loss={self.settings.kd_loss!r}, weighting={self.settings.weighting!r}, label_gate={self.settings.label_gate} "
                "need one class per clip; mixup and cutmix give shares of two. Switch mixing off."
            )
        return labels

    def _discrepancy_terms(self, features, answers, labels):
        maps = {role: answers[role]["features"] for role in answers if "features" in answers[role]}
        return self.discrepancy(features, maps.get("vit"), maps.get("cnn"), labels)

    def _relation_terms(self, features, answers):
        student, teacher = pooled(features), answers["embeddings"]
        if self.settings.gather_relations:
            student, teacher = gather_embeddings(student), gather_embeddings(teacher)
        found = {}
        if self.settings.rkd_distance_weight:
            found["relation_distance"] = rkd_distance_loss(student, teacher)
        if self.settings.rkd_angle_weight:
            found["relation_angle"] = rkd_angle_loss(student, teacher)
        return found

    def _feature_term(self, features, answers):
        losses = []
        for role in self._feature_roles:
            if self.settings.feature_loss == "mse":
                losses.append(feature_mse_loss(pooled(features), answers[role]["embeddings"]))
            elif self.settings.feature_loss == "fitnet":
                losses.append(fitnet_loss(features, answers[role]["features"], self.feature_projections[role]))
            else:
                losses.append(attention_transfer_loss(features, answers[role]["features"]))
        return torch.stack(losses).mean()

    # ---- teachers ---------------------------------------------------------------------------------------------------

    def _answers(self, role, batch):
        """What is read of a teacher: stored in the batch, or asked now."""
        needed = self.needed[role]
        stored = {name: batch[f"{role}_{name}"] for name in needed if batch.get(f"{role}_{name}") is not None}
        if len(stored) == len(needed):
            return {name: value.float() for name, value in stored.items()}
        pixels = batch.get(f"{role}_pixel_values")
        if pixels is None:
            lacking = ", ".join(f"{role}_{name}" for name in OUTPUTS if name in needed and name not in stored)
            raise DistillationError(
                f"The batch has neither {role}_pixel_values nor {lacking}: read clips with DistillationClipDataset, which serves every "
                "model its own pixels or its stored answers."
            )
        outputs = self.teachers[role].to(pixels.device)(pixels)
        return {name: getattr(outputs, name) for name in needed}

    # ---- the student's features and the auxiliary modules -----------------------------------------------------------

    @property
    def _reads_features(self):
        return bool(set(self.terms) - {"kd"})

    @property
    def _feature_roles(self):
        return [role for role in self.roles if self.settings.feature_teacher in ("both", role)]

    def _add_auxiliaries(self, seed):
        self.discrepancy, self.feature_projections = None, None
        settings = self.settings
        if not self._reads_features:
            return
        # asked of every teacher whose map is read, so that one without a known map is told before training
        widths = {role: self.teachers[role].channels for role in self.roles if self.needed[role] - {"logits"}}
        channels = feature_channels(self.model, self.feature_spec)
        device = next(self.model.parameters()).device
        residual = settings.residual if "residual" in self.terms else "none"
        needs_cnn = residual == "discrepancy" or "cnn_feature" in self.terms
        if residual != "none" or needs_cnn:
            self.discrepancy = StructureDiscrepancy(
                channels,
                widths["vit"] if residual != "none" else None,
                widths["cnn"] if needs_cnn else None,
                num_labels=self.config.num_labels,
                projection=settings.projection,
                seed=seed,
                residual=residual,
                cnn_feature="cnn_feature" in self.terms,
            ).to(device)
        if "feature" in self.terms and settings.feature_loss == "fitnet":
            self.feature_projections = nn.ModuleDict(
                {role: nn.Conv3d(channels, widths[role], 1) for role in self._feature_roles}
            ).to(device)


def _refuse_shared_weights(student, teachers):
    own = {id(parameter) for parameter in student.parameters()}
    for role, teacher in teachers.items():
        model = getattr(teacher, "model", None)
        if isinstance(model, nn.Module) and own & {id(parameter) for parameter in model.parameters()}:
            raise DistillationError(
                f"The {role} teacher shares weights with the student, which would train it: give copy.deepcopy(model)."
            )
