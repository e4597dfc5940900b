"""THE table of architectures, and their registration with transformers' auto classes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForVideoClassification,
    AutoVideoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .models.configuration_actionformer import ActionFormerConfig
from .models.configuration_lite_timesformer import LiteTimesformerConfig
from .models.configuration_lite_videomae import LiteVideoMAEConfig
from .models.configuration_lite_vivit import LiteVivitConfig
from .models.configuration_lite_vjepa2 import LiteVJEPA2Config
from .models.configuration_movinet import MoViNetConfig
from .models.configuration_torchvision_video import TorchvisionVideoConfig, pixel_recipe
from .models.configuration_tsm import TSMConfig
from .models.configuration_video_focalnet import VideoFocalNetConfig
from .models.configuration_x3d import X3DConfig
from .models.modeling_actionformer import ActionFormerForTemporalActionDetection
from .models.modeling_lite_timesformer import LiteTimesformerForVideoClassification, LiteTimesformerModel
from .models.modeling_lite_videomae import LiteVideoMAEForVideoClassification, LiteVideoMAEModel
from .models.modeling_lite_vivit import LiteVivitForVideoClassification, LiteVivitModel
from .models.modeling_lite_vjepa2 import LiteVJEPA2ForVideoClassification, LiteVJEPA2Model
from .models.modeling_movinet import MoViNetForVideoClassification, MoViNetModel
from .models.modeling_torchvision_video import TorchvisionVideoForVideoClassification, TorchvisionVideoModel
from .models.modeling_tsm import TSMForVideoClassification, TSMModel
from .models.modeling_video_focalnet import (
    VideoFocalNetBackbone,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
)
from .models.modeling_x3d import X3DForVideoClassification, X3DModel
from .models.pipeline_temporal_action_detection import TASK, TemporalActionDetectionPipeline
from .models.video_processing_actionformer import ActionFormerProcessor
from .models.video_processing_effvid import EffVidVideoProcessor


@dataclass(frozen=True)
class Architecture:
    """One row: a configuration, the model that each auto class gives for it, and its processor.

    The converter of checkpoints from elsewhere, if there is one, is `hf_effvid.convert.CONVERTERS[model_type]`.

    Attributes:
        recipe: fields of the processor in which a model from scratch differs from the processor's own defaults, or a function that
            gives them for a configuration.
    """

    config: type[PreTrainedConfig]
    models: dict[type, type[PreTrainedModel]]
    video_processor: type | None = None
    recipe: dict | Callable = field(default_factory=dict)

    @property
    def model_type(self):
        """The name of the architecture in `config.json`."""
        return self.config.model_type

    def recipe_for(self, config):
        """`recipe` for a configuration."""
        return self.recipe(config) if callable(self.recipe) else self.recipe


ARCHITECTURES = (
    Architecture(
        config=VideoFocalNetConfig,
        models={
            AutoModel: VideoFocalNetModel,
            AutoModelForVideoClassification: VideoFocalNetForVideoClassification,
            AutoBackbone: VideoFocalNetBackbone,
        },
        video_processor=EffVidVideoProcessor,
    ),
    Architecture(
        config=LiteVideoMAEConfig,
        models={AutoModel: LiteVideoMAEModel, AutoModelForVideoClassification: LiteVideoMAEForVideoClassification},
        video_processor=EffVidVideoProcessor,
    ),
    Architecture(
        config=LiteVivitConfig,
        models={AutoModel: LiteVivitModel, AutoModelForVideoClassification: LiteVivitForVideoClassification},
        video_processor=EffVidVideoProcessor,
    ),
    Architecture(
        config=LiteVJEPA2Config,
        models={AutoModel: LiteVJEPA2Model, AutoModelForVideoClassification: LiteVJEPA2ForVideoClassification},
        video_processor=EffVidVideoProcessor,
    ),
    Architecture(
        config=LiteTimesformerConfig,
        models={
            AutoModel: LiteTimesformerModel,
            AutoModelForVideoClassification: LiteTimesformerForVideoClassification,
        },
        video_processor=EffVidVideoProcessor,
    ),
    Architecture(
        config=TSMConfig,
        models={AutoModel: TSMModel, AutoModelForVideoClassification: TSMForVideoClassification},
        video_processor=EffVidVideoProcessor,
        recipe={"sampling": "segment"},
    ),
    Architecture(
        config=X3DConfig,
        models={AutoModel: X3DModel, AutoModelForVideoClassification: X3DForVideoClassification},
        video_processor=EffVidVideoProcessor,
        recipe={"image_mean": [0.45] * 3, "image_std": [0.225] * 3},
    ),
    Architecture(
        config=MoViNetConfig,
        models={AutoModel: MoViNetModel, AutoModelForVideoClassification: MoViNetForVideoClassification},
        video_processor=EffVidVideoProcessor,
        recipe={"image_mean": [0.0] * 3, "image_std": [1.0] * 3},
    ),
    Architecture(
        config=TorchvisionVideoConfig,
        models={
            AutoModel: TorchvisionVideoModel,
            AutoModelForVideoClassification: TorchvisionVideoForVideoClassification,
        },
        video_processor=EffVidVideoProcessor,
        recipe=pixel_recipe,
    ),
    Architecture(
        config=ActionFormerConfig,
        models={AutoModel: ActionFormerForTemporalActionDetection},
        video_processor=ActionFormerProcessor,
    ),
)


def register():
    """Makes transformers' auto classes know every architecture, and `save_pretrained` ship its code. Idempotent."""
    for architecture in ARCHITECTURES:
        AutoConfig.register(architecture.model_type, architecture.config, exist_ok=True)
        architecture.config.register_for_auto_class()
        for auto_class, model_class in architecture.models.items():
            auto_class.register(architecture.config, model_class, exist_ok=True)
            model_class.register_for_auto_class(auto_class.__name__)
        if architecture.video_processor is not None:
            AutoVideoProcessor.register(architecture.config, architecture.video_processor, exist_ok=True)
            architecture.video_processor.register_for_auto_class()
    # a folder's own copy of the pipeline, which asks for trust, is for those who have not installed this package
    ActionFormerConfig.package_has_pipeline = True
    if TASK not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(TASK, TemporalActionDetectionPipeline, pt_model=AutoModel, type="video")


def find_architecture(model_type):
    """The row of a `model_type`, or None when it is not one of ours."""
    return next((row for row in ARCHITECTURES if row.model_type == model_type), None)


def complete_auto_map(config):
    """Names in `config.auto_map` every class that opens a checkpoint with this configuration; returns the configuration.

    `AutoModel.from_pretrained(folder, trust_remote_code=True)` needs the entry even if a classifier was saved. A
    configuration that is not one of ours is left alone.
    """
    architecture = find_architecture(config.model_type)
    if architecture is not None:
        classes = {"AutoConfig": architecture.config}
        classes.update({auto.__name__: model for auto, model in architecture.models.items()})
        config.auto_map = {
            name: f"{cls.__module__.rsplit('.', 1)[-1]}.{cls.__name__}" for name, cls in classes.items()
        }
    return config
