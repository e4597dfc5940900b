"""What a distillation run may be told: which terms teach the student, how much each counts, and how they are computed."""

from dataclasses import asdict, dataclass, fields, replace

from ..compression.structure_discrepancy import PROJECTIONS, RESIDUALS
from ..compression.teacher_weighting import MODES


ROLES = ("vit", "cnn")
KD_LOSSES = ("kd", "dkd", "dist", "ofa")
FEATURE_LOSSES = ("none", "mse", "fitnet", "attention")
# The papers of DIST and OFA-KD use no temperature.
_TEMPERATURES = {"kd": 4.0, "dkd": 4.0, "dist": 1.0, "ofa": 1.0}
_CHOICES = {
    "weighting": MODES,
    "combine": ("product", "sum"),
    "normalise": ("ratio", "softmax"),
    "logit_norm": ("none", "zscore"),
    "kd_loss": KD_LOSSES,
    "residual": RESIDUALS,
    "projection": PROJECTIONS,
    "relation_teacher": ROLES,
    "feature_loss": FEATURE_LOSSES,
    "feature_teacher": ("both", *ROLES),
}
_WEIGHTS = (
    "ce_weight",
    "kd_weight",
    "residual_weight",
    "auxiliary_weight",
    "cnn_feature_weight",
    "relation_weight",
    "rkd_distance_weight",
    "rkd_angle_weight",
    "feature_weight",
    "discrepancy_weight",
)


class DistillationError(ValueError):
    """Settings, teachers or clips with which a student cannot be taught; the message says what to change."""


@dataclass(frozen=True)
class DistillationSettings:
    """Settings of `DualTeacherDistiller` and `distill_classifier`.

    L = ce L_CE + r (kd L_KD + residual L_res + cnn_feature L_cnn + relation L_RKD + feature L_feat) + auxiliary L_aux, with the weights below and r,
    which rises from 0 to 1 (`ramp`). A term whose weight is 0 is not computed, nor is what only it needs.

    Attributes:
        ce_weight: of the task's own loss with the labels.
        kd_weight: alpha, of the loss with the mixed logits of the teachers.
        kd_loss: that loss: `kd`, `dkd`, `dist` or `ofa`.
        temperature: of that loss; None: 4 for `kd` and `dkd`, 1 for `dist` and `ofa`.
        weighting: how much each teacher counts for a sample, a mode of `teacher_weights`: `discrepancy_aware`, `uniform`, `confidence`,
            `discrepancy`, `ebkd`, `ca_mkd`.
        combine, normalise, discrepancy_weight, weight_temperature, confidence_temperature, center_logits, label_gate: see `teacher_weights`.
        logit_norm: `zscore` standardises the logits of teachers and student before they are compared.
        residual_weight: beta, of the branch that predicts what the ViT sees and the CNN does not.
        residual: what it predicts: the `discrepancy` of both teachers, the `vit`'s map itself (an ablation), or `none`.
        projection: how the teachers' maps come to the student's channels: `aux_ce` or `orthogonal`, see `ResidualTarget`.
        auxiliary_weight: of the classification that trains the projections of `aux_ce`.
        cnn_feature_weight: of the distance of the student's projected map to the CNN teacher's.
        relation_weight: gamma, of the relations between samples.
        relation_teacher: whose relations.
        rkd_distance_weight, rkd_angle_weight: of their two parts; 25 and 50 are common for students that start from nothing.
        gather_relations: relations of the samples of all processes, and not of each one's own.
        feature_loss: baseline on features: `mse` of pooled features (of one width), `fitnet` of maps, `attention` transfer, or `none`.
        feature_teacher: whose features; `both`: the mean over the teachers there are.
        feature_weight: of that baseline.
        ramp: share of the steps over which the terms of the teachers rise linearly.

    Raises:
        DistillationError: an unknown choice, or a number out of its range.
    """

    weighting: str = "discrepancy_aware"
    combine: str = "product"
    normalise: str = "ratio"
    discrepancy_weight: float = 1.0
    weight_temperature: float = 1.0
    confidence_temperature: float = 1.0
    center_logits: bool = False
    label_gate: bool = False
    logit_norm: str = "none"
    kd_loss: str = "kd"
    temperature: float | None = None
    ce_weight: float = 1.0
    kd_weight: float = 1.0
    residual_weight: float = 1.0
    residual: str = "discrepancy"
    projection: str = "aux_ce"
    auxiliary_weight: float = 1.0
    cnn_feature_weight: float = 0.0
    relation_weight: float = 1.0
    relation_teacher: str = "vit"
    rkd_distance_weight: float = 1.0
    rkd_angle_weight: float = 2.0
    gather_relations: bool = False
    feature_loss: str = "none"
    feature_teacher: str = "both"
    feature_weight: float = 1.0
    ramp: float = 0.1

    def __post_init__(self):
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise DistillationError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        for name in _WEIGHTS:
            if not (_is_number(getattr(self, name)) and getattr(self, name) >= 0):
                raise DistillationError(f"{name} must be a number, at least 0, got {getattr(self, name)!r}.")
        for name in ("temperature", "weight_temperature", "confidence_temperature"):
            value = getattr(self, name)
            if not (_is_number(value) and value > 0) and not (name == "temperature" and value is None):
                raise DistillationError(f"{name} must be a number above 0, got {value!r}.")
        for name in ("center_logits", "label_gate", "gather_relations"):
            if not isinstance(getattr(self, name), bool):
                raise DistillationError(f"{name} must be true or false, got {getattr(self, name)!r}.")
        if not (_is_number(self.ramp) and 0 <= self.ramp <= 1):
            raise DistillationError(f"ramp is a share of the steps, from 0 to 1, got {self.ramp!r}.")

    @classmethod
    def of(cls, settings) -> "DistillationSettings":
        """Settings of a dictionary of fields, or as they are; None: the defaults.

        Raises:
            DistillationError: an unknown field, and those of `__init__`.
        """
        if isinstance(settings, cls):
            return settings
        unknown = sorted(set(settings or {}) - {field.name for field in fields(cls)})
        if unknown:
            raise DistillationError(
                f"There are no settings {', '.join(unknown)}; there are {', '.join(field.name for field in fields(cls))}."
            )
        return cls(**(settings or {}))

    @property
    def kd_temperature(self) -> float:
        """The temperature of `kd_loss`."""
        return _TEMPERATURES[self.kd_loss] if self.temperature is None else self.temperature

    def for_teachers(self, roles) -> "DistillationSettings":
        """The settings without the terms for which a teacher is missing: what a run with these teachers computes.

        With one teacher there is no discrepancy of two, with a CNN alone no `vit` map, and relations need the teacher that they are of. With
        none nothing is left but the loss with the labels.

        Args:
            roles: of the teachers there are, of `ROLES`.

        Raises:
            DistillationError: a role that is not known.
        """
        roles = set(roles)
        if roles - set(ROLES):
            raise DistillationError(f"Teachers are 'vit' and 'cnn', got {', '.join(sorted(map(repr, roles)))}.")
        needed = {"discrepancy": {"vit", "cnn"}, "vit": {"vit"}, "none": set()}[self.residual]
        changes = {} if needed <= roles else {"residual": "none"}
        if not roles:
            changes |= {"kd_weight": 0.0, "feature_loss": "none"}
        if self.relation_teacher not in roles:
            changes["relation_weight"] = 0.0
        if self.feature_teacher not in ("both", *roles):
            changes["feature_loss"] = "none"
        if "cnn" not in roles:
            changes["cnn_feature_weight"] = 0.0
        return replace(self, **changes)

    @property
    def terms(self) -> tuple[str, ...]:
        """Which of `kd`, `residual`, `cnn_feature`, `relation` and `feature` are computed, when no teacher is missing."""
        on = {
            "kd": self.kd_weight > 0,
            "residual": self.residual != "none" and self.residual_weight > 0,
            "cnn_feature": self.cnn_feature_weight > 0,
            "relation": self.relation_weight > 0 and self.rkd_distance_weight + self.rkd_angle_weight > 0,
            "feature": self.feature_loss != "none" and self.feature_weight > 0,
        }
        return tuple(name for name, is_on in on.items() if is_on)

    @property
    def needs_class_numbers(self) -> bool:
        """Whether a term cannot do with shares of two classes, as mixup and cutmix make them."""
        judges = self.label_gate or self.weighting == "ca_mkd"
        return "kd" in self.terms and (judges or self.kd_loss in ("dkd", "ofa"))

    def needed_of(self, role: str, roles=ROLES) -> frozenset[str]:
        """Which outputs of a teacher the terms read: of `logits`, `features` and `embeddings`; empty: it need not run.

        Args:
            role: of the teacher.
            roles: of all teachers there are.
        """
        settings = self.for_teachers(roles)
        terms, needed = settings.terms, set()
        if "kd" in terms:
            needed.add("logits")
        if "residual" in terms and (role == "vit" or settings.residual == "discrepancy"):
            needed.add("features")
        if "cnn_feature" in terms and role == "cnn":
            needed.add("features")
        if "relation" in terms and role == settings.relation_teacher:
            needed.add("embeddings")
        if "feature" in terms and settings.feature_teacher in ("both", role):
            needed.add("embeddings" if settings.feature_loss == "mse" else "features")
        return frozenset(needed)

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return asdict(self)


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
