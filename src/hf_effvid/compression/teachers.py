"""A frozen teacher: any video classifier, opened once, that answers to clips with logits in the student's class order and feature maps.

It is no part of the module tree of what is trained: it has no gradient, is not moved by an optimizer and not saved with the student.
"""

import os
from dataclasses import dataclass

import torch
from huggingface_hub import metadata_load
from transformers import PreTrainedModel
from transformers.utils import cached_file

from ..host_loading import is_adapter, load_video_classifier
from ..host_processing import NO_PROCESSOR, holds_recipe, load_processor, with_recipe
from .feature_taps import FeatureError, feature_channels, feature_spec, pooled, record_features


ROLES = ("vit", "cnn")
# names of classes that an error shows
_SHOWN = 5


class TeacherError(ValueError):
    """A teacher that cannot teach this student; the message says what to do."""


class TeacherLabelError(TeacherError):
    """A teacher answers in other classes than the student's."""


@dataclass(frozen=True)
class TeacherOutputs:
    """What a teacher says to B clips, in single precision and without gradient.

    Attributes:
        logits: (B, N), in the student's class order.
        features: (B, C, T, H, W), the last feature map; None for a model whose map nobody knows.
        embeddings: (B, C), its mean.
    """

    logits: torch.Tensor
    features: torch.Tensor | None = None
    embeddings: torch.Tensor | None = None


class Teacher:
    """A frozen video classifier and what it needs: its processor, its class order, where its feature map is. Made by `Teacher.open`.

    Attributes:
        model: The classifier, in evaluation mode and without gradients.
        role: `"vit"` or `"cnn"`.
        processor: An `EffVidVideoProcessor` with the recipe that the teacher's clips follow; None for a model that was given without one.
        spec: `FeatureSpec` of its last feature map; None for a family that `feature_spec` does not know.
        name: What it was opened from.
        license: Licence in its model card, such as `"cc-by-nc-4.0"`; None when that says nothing.
        class_order: Indices of the teacher's classes in the student's order; None where the two are the same.
    """

    def __init__(self, model, role, processor=None, spec=None, name=None, license=None, class_order=None):
        self.model = model.eval().requires_grad_(False)
        self.role, self.processor, self.spec, self.name, self.license = role, processor, spec, name, license
        self.class_order = class_order

    @classmethod
    def open(
        cls,
        source,
        role,
        class_names,
        *,
        processor=None,
        label_map=None,
        dtype=None,
        device=None,
        spec=None,
        trust_remote_code=False,
    ):
        """Opens a teacher for a student of the given classes.

        Args:
            source: Folder or Hub id of a video classifier, or of an adapter; or a model, which is frozen as it is, not copied.
            role: `"vit"` or `"cnn"`.
            class_names: Names of the student's classes in the order of its logits.
            processor: A processor, or a folder or Hub id of one; None: the one beside the checkpoint.
            label_map: The teacher's name of a class -> the student's, where they differ.
            dtype: Of its weights, such as `torch.bfloat16`; None: single precision, and of a given model its own.
            device: None: where it is.
            spec: `FeatureSpec` of its last feature map; None: by its family.
            trust_remote_code: Run model code that comes with the checkpoint.

        Raises:
            CheckpointNotFound, CheckpointNotUsable: There is no such classifier.
            TeacherLabelError: It answers in other classes.
            TeacherError: An unknown role.
        """
        if role not in ROLES:
            raise TeacherError(f"A teacher's role is one of {', '.join(map(repr, ROLES))}, got {role!r}.")
        given = isinstance(source, torch.nn.Module)
        if given:
            model, name = source, getattr(source, "name_or_path", "")
        else:
            name = os.fspath(source)
            model = load_video_classifier(name, trust_remote_code=trust_remote_code, dtype=dtype or torch.float32)
        order = class_order(model.config, class_names, label_map, name or "the teacher")
        if dtype is not None or device is not None:
            model = model.to(device=device, dtype=dtype)
        return cls(
            model,
            role,
            processor=_recipe_of(processor, model, None if given else name, trust_remote_code),
            spec=_known_spec(model) if spec is None else spec,
            name=name or type(source).__name__,
            license=card_license(name) if name else None,
            class_order=order,
        )

    @property
    def channels(self):
        """C of the feature map.

        Raises:
            FeatureError: Nothing is known about the model's feature map.
        """
        return feature_channels(self.model, self.spec)

    @property
    def device(self):
        """Where the model is."""
        return next(self.model.parameters()).device

    def to(self, device):
        """Moves the model; returns the teacher."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, pixel_values):
        """Answers to clips.

        Args:
            pixel_values: (B, T, C, H, W), made by the teacher's own processor.

        Raises:
            FeatureError: The model gives no feature map although its family has one, for instance because it drops tokens.
        """
        self.model.eval()  # whoever holds the model as well may have put it into training mode
        weight = next(self.model.parameters())
        pixels = {_input_name(self.model): pixel_values.to(weight.device, weight.dtype)}
        if self.spec is None:
            return TeacherOutputs(self._in_student_order(self.model(**pixels).logits))
        with record_features(self.model, self.spec) as recorded:
            logits = self.model(**pixels).logits
        # of a scaled half-precision map the mean is taken in single precision
        features = recorded.map.float()
        return TeacherOutputs(self._in_student_order(logits), features, pooled(features))

    def _in_student_order(self, logits):
        logits = logits.float().flatten(1)  # VideoPrism has an axis of one in between
        return logits if self.class_order is None else logits[:, self.class_order.to(logits.device)]

    def __repr__(self):
        return f"Teacher({self.name!r}, role={self.role!r})"


# ---- classes ---------------------------------------------------------------------------------------------------------------


def class_order(config, class_names, label_map=None, name="the teacher"):
    """Indices of a teacher's classes in the student's order, (N,) int64; None where the order is the same.

    Args:
        config: The teacher's configuration.
        class_names: Names of the student's classes in their order.
        label_map: The teacher's name of a class -> the student's; names that it does not have are no error, as long as the classes fit.
        name: Of the teacher, for messages.

    Raises:
        TeacherLabelError: The two do not have the same classes.
    """
    wanted = list(class_names)
    if len(set(wanted)) != len(wanted):
        raise TeacherLabelError("The student's classes must have different names for a teacher to know them by.")
    own = [config.id2label[index] for index in sorted(config.id2label)]
    label_map = dict(label_map or {})
    # one map may serve two teachers
    unknown = sorted(set(label_map) - set(own))
    named = [label_map.get(label, label) for label in own]
    if named == wanted:
        return None
    if sorted(named) != sorted(wanted):
        missing = [label for label in wanted if label not in named]
        other = [label for label in named if label not in wanted]
        doubled = sorted({label for label in named if named.count(label) > 1})
        differences = [f"it lacks {_shown(missing)}"] if missing else []
        differences += [f"it has besides {_shown(other)}"] if other else []
        differences += [f"it has more than one {_shown(doubled)}"] if doubled else []
        differences += [f"label_map names {_shown(unknown)}, which it does not have"] if unknown else []
        raise TeacherLabelError(
            f"{name} has {len(own)} classes, the student {len(wanted)}: {'; '.join(differences)}. Train the teacher on the student's "
            "data set first (effvid train --model TEACHER), or, where classes are only called otherwise, pass "
            "label_map={teacher's name: student's name}."
        )
    place = {label: index for index, label in enumerate(named)}
    return torch.tensor([place[label] for label in wanted])


def _shown(names):
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


# ---- what comes with a checkpoint ------------------------------------------------------------------------------------------


def card_license(name):
    """Licence in the model card of a folder or Hub id; None where there is no card, or it says nothing."""
    quiet = {
        "_raise_exceptions_for_gated_repo": False,
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    try:
        card = cached_file(name, "README.md", **quiet)
        data = metadata_load(card) if card is not None else None
    except (OSError, ValueError):  # no repository of this name; a card that is no card
        return None
    found = (data or {}).get("license")
    return str(found) if found else None


def _recipe_of(processor, model, name, trust_remote_code):
    if processor is None and name is not None:
        try:
            processor = load_processor(name, trust_remote_code=trust_remote_code)
        except NO_PROCESSOR as error:
            raise TeacherError(
                f"The teacher {name!r} comes without a processor, so that nobody knows what clips it wants: pass processor=."
            ) from error
    if isinstance(processor, (str, os.PathLike)):
        processor = load_processor(os.fspath(processor), trust_remote_code=trust_remote_code)
    return processor if processor is None or holds_recipe(processor) else with_recipe(processor, model.config)


def _known_spec(model):
    try:
        return feature_spec(model)
    except FeatureError:
        return None


def _input_name(model):
    model = model.get_base_model() if is_adapter(model) else model
    return model.main_input_name if isinstance(model, PreTrainedModel) else "pixel_values"
