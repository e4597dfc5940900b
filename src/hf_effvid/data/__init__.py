"""Data sets: loading labelled videos, clips for training and testing, augmentation, generated data, the data set doctor.

Names are resolved on first use, because some of them need `datasets` or torch.
"""

from ..lazy_names import lazy_names


_PUBLIC_NAMES = {
    "AnnotationError": "annotations",
    "AugmentationConfig": "transforms",
    "AnnotatedVideo": "detection_annotations",
    "ActionSegment": "detection_annotations",
    "ClipCollator": "collator",
    "ClipDataset": "clips",
    "compose_streams": "feature_streams",
    "DatasetReport": "doctor",
    "DetectionAnnotations": "detection_annotations",
    "DistillationClipDataset": "distillation_clips",
    "FeatureStore": "feature_store",
    "FeatureStoreError": "feature_store",
    "FeatureStoreWriter": "feature_store",
    "MOTION_CLASSES": "synthetic",
    "StoredFeatures": "feature_store",
    "StreamComposition": "feature_streams",
    "StreamingClipDataset": "clips",
    "StreamingDistillationClipDataset": "distillation_clips",
    "TeacherCacheError": "teacher_outputs",
    "TeacherOutputStore": "teacher_outputs",
    "TrainTransform": "transforms",
    "check_dataset": "doctor",
    "check_detection_data": "detection_doctor",
    "ViewSettings": "shared_views",
    "is_multi_label": "loading",
    "label_names": "loading",
    "labels_forbid_flips": "label_directions",
    "load_detection_annotations": "detection_annotations",
    "load_video_dataset": "loading",
    "make_action_streams": "synthetic_streams",
    "make_motion_dataset": "synthetic",
    "tiny_action_streams": "synthetic_streams",
    "tiny_motion_dataset": "synthetic",
    "write_feature_streams": "feature_streams",
}

__all__, __getattr__, __dir__ = lazy_names(__name__, _PUBLIC_NAMES)
