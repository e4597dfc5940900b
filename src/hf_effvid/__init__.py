"""Efficient video models for Hugging Face: importing this package registers every architecture with transformers.

Names that need heavy dependencies (`datasets`, `accelerate`, `matplotlib`) are resolved on first use, so that the import
stays cheap and the core install stays light.
"""

from .auto import register
from .lazy_names import lazy_names
from .version import __version__


# public name -> module that defines it; the one list that __all__, __getattr__ and the documentation are made from
_PUBLIC_NAMES = {
    "VideoFocalNetConfig": "models.configuration_video_focalnet",
    "VideoFocalNetModel": "models.modeling_video_focalnet",
    "VideoFocalNetBackbone": "models.modeling_video_focalnet",
    "VideoFocalNetForVideoClassification": "models.modeling_video_focalnet",
    "LiteVideoMAEConfig": "models.configuration_lite_videomae",
    "LiteVideoMAEModel": "models.modeling_lite_videomae",
    "LiteVideoMAEForVideoClassification": "models.modeling_lite_videomae",
    "LiteVivitConfig": "models.configuration_lite_vivit",
    "LiteVivitModel": "models.modeling_lite_vivit",
    "LiteVivitForVideoClassification": "models.modeling_lite_vivit",
    "LiteVJEPA2Config": "models.configuration_lite_vjepa2",
    "LiteVJEPA2Model": "models.modeling_lite_vjepa2",
    "LiteVJEPA2ForVideoClassification": "models.modeling_lite_vjepa2",
    "LiteTimesformerConfig": "models.configuration_lite_timesformer",
    "LiteTimesformerModel": "models.modeling_lite_timesformer",
    "LiteTimesformerForVideoClassification": "models.modeling_lite_timesformer",
    "select_tokens": "compression.host_selection",
    "VideoDifficultyGauge": "models.difficulty_gauge",
    "merge_tokens": "models.merging_videomae",
    "drop_blocks": "compression.block_drop",
    "score_blocks": "compression.block_scores",
    "motion_vector_tokens": "models.motion_vectors",
    "ActionFormerConfig": "models.configuration_actionformer",
    "ActionFormerModel": "models.modeling_actionformer",
    "ActionFormerForTemporalActionDetection": "models.modeling_actionformer",
    "TSMConfig": "models.configuration_tsm",
    "TSMModel": "models.modeling_tsm",
    "TSMForVideoClassification": "models.modeling_tsm",
    "X3DConfig": "models.configuration_x3d",
    "X3DModel": "models.modeling_x3d",
    "X3DForVideoClassification": "models.modeling_x3d",
    "MoViNetConfig": "models.configuration_movinet",
    "MoViNetModel": "models.modeling_movinet",
    "MoViNetForVideoClassification": "models.modeling_movinet",
    "TorchvisionVideoConfig": "models.configuration_torchvision_video",
    "TorchvisionVideoModel": "models.modeling_torchvision_video",
    "TorchvisionVideoForVideoClassification": "models.modeling_torchvision_video",
    "EffVidVideoProcessor": "models.video_processing_effvid",
    "ActionFormerProcessor": "models.video_processing_actionformer",
    "VideoClassificationPipeline": "pipelines.video_classification",
    "TemporalActionDetectionPipeline": "models.pipeline_temporal_action_detection",
    "explain": "pipelines.explain_video",
    "read_video": "models.video_reader",
    "probe_video": "models.video_reader",
    "iterate_video": "models.video_reader",
    "VideoLimits": "models.video_reader",
    "VideoError": "models.video_reader",
    "load_video_dataset": "data.loading",
    "load_detection_annotations": "data.detection_annotations",
    "check_dataset": "data.doctor",
    "make_action_streams": "data.synthetic_streams",
    "make_motion_dataset": "data.synthetic",
    "train_classifier": "training.classification",
    "train_detector": "training.detection",
    "train_token_selector": "training.token_selector",
    "distill_classifier": "training.distillation",
    "DistillationSettings": "training.distillation_settings",
    "DualTeacherDistiller": "training.dual_teacher_distiller",
    "progressive_block_drop": "training.progressive_block_drop",
    "CompressionOutcome": "training.block_drop_outcome",
    "calibrate_budget": "training.budget_calibration",
    "evaluate_budget": "training.budget_evaluation",
    "evaluate_classifier": "evaluation.classification",
    "evaluate_detections": "evaluation.detection_run",
    "evaluate_detector": "evaluation.detection",
    "benchmark": "evaluation.benchmark",
    "export_model": "export.exporting",
    "load_exported": "export.runtime",
    "stage_checkpoint": "hub.staging",
    "verify_checkpoint": "hub.verify",
    "push_checkpoint": "hub.push",
}

_names, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
__all__ = ["__version__", *_names]

register()
