"""Temporal action detectors as they are published: transformers has no class for the task, so a folder brings model and pipeline."""

from dataclasses import replace

import numpy as np
from transformers import AutoModel

from ..data.detection_annotations import DetectionAnnotations, load_detection_annotations
from ..evaluation.detection_run import evaluate_detections
from ..host_loading import one_line_errors
from ..host_processing import clip_shape
from ..models.configuration_actionformer import ActionFormerConfig
from ..models.pipeline_temporal_action_detection import TemporalActionDetectionPipeline
from .escaping import escape_code, escape_markdown
from .probe_clips import write_probe_clips
from .published_task import Measured, ModelInput, Probes, PublishedTask, size_text, spread_evenly


_PROBE_STEPS = 40
_PROBE_FPS = 25.0
_MAX_PROBE_ANSWERS = 50


class _Detection(PublishedTask):
    name = "temporal-action-detection"
    auto_class = "AutoModel"
    outputs = ("logits", "offsets")
    view_name = "window"
    default_limitations = (
        "It knows nothing but its classes: what looks like one of them is taken for it, and a score is not a probability that the answer is right.",
        "Average precision was measured on the data above and nowhere else; other cameras, frame rates, places and people will lower it. "
        "Choose thresholds on videos of your own.",
    )
    default_intended_use = "Finding actions in untrimmed videos that resemble the training data; a starting point for training on one's own."

    def load_model(self, name, trust_remote_code=False):
        with one_line_errors(name, trust_remote_code=trust_remote_code):
            return AutoModel.from_pretrained(name, trust_remote_code=trust_remote_code)

    def own_answers(self, folder, probes):
        detect = TemporalActionDetectionPipeline(str(folder))
        options = {"threshold": 0.0, "top_k": _MAX_PROBE_ANSWERS, "progress": False, **probes.options}
        return [detect(file, **options) for file in probes.files]

    def load_data(self, source, split=None, **options):
        known = {name: options[name] for name in ("format", "root", "class_names", "missing") if name in options}
        return load_detection_annotations(source, split=split, **known)

    def measure(self, folder, data, split=None, max_videos=None, claim=None, **options):
        annotations = data if isinstance(data, DetectionAnnotations) else self.load_data(data)
        if split is not None:
            annotations = annotations.in_split(split)
        if max_videos is not None and len(annotations.videos) > max_videos:
            chosen = spread_evenly(len(annotations.videos), max_videos)
            annotations = replace(annotations, videos=[annotations.videos[number] for number in chosen])
        options.pop("trust_remote_code", None)  # the package has the code
        tious = {} if claim is None or claim.tious is None else {"tious": claim.tious}
        run = evaluate_detections(str(folder), annotations, **tious, **options)
        return Measured(run.to_result_entry().metrics, len(run.errors))

    def summary(self, config):
        return (
            f"A temporal action detector ({escape_code(config.model_type)}) of {config.num_labels} classes: it says which actions an "
            "untrimmed video shows, and from which second to which."
        )

    def _windows(self, processor, steps, seconds):
        """How it looks at videos that are longer than what it sees at once."""
        if processor.resize_length is not None:
            return f"every video is stretched to {processor.resize_length} steps"
        if steps is None:
            return "videos are looked at whole"
        length = f" ({seconds:.3g} seconds)" if seconds else ""
        return (
            f"longer videos are cut into windows of {steps} steps{length}, which share {processor.window_overlap:.0%}"
        )

    def _decisions(self, config, processor):
        hard = {"none": "nothing is suppressed", "hard": "hard suppression"}
        text = (
            f"Start and end are seconds from the beginning of the file, cut to its duration. Detections of one class that overlap are "
            f"suppressed ({hard.get(processor.nms_method, 'soft suppression, sigma ' + format(processor.nms_sigma, 'g'))}); "
            f"{'all others' if processor.max_segments is None else f'at most {processor.max_segments}'} remain per video."
        )
        points = getattr(config, "operating_points", None)
        if points:
            values = ", ".join(f"{escape_markdown(label, 60)} {score:.2g}" for label, score in points.items())
            text += f" The pipeline says what scores at least: {values} (`threshold=0` for everything)."
        return text


class DetectionFromPixels(_Detection):
    """A video in, segments out."""

    steps = ("package_is_absent", "load", "processor", "detect", "resave")
    usage = "use_detector_of_pixels.md"

    def reference_input(self, config, processor):
        # two clips of the trunk and a little more, so that clips are put together, and a last one is filled up
        return self._frames(config, processor, 2 * config.clip_frames + config.frames_per_step)

    def view(self, config, processor):
        return self._frames(config, processor, self._window(config, processor) * config.frames_per_step)

    def _frames(self, config, processor, count):
        return ModelInput((1, count, *clip_shape(config.backbone_config, processor)[1:]), "pixel_values")

    def _window(self, config, processor):
        return processor.resize_length or processor.window_length or config.max_sequence_length

    def write_probes(self, checkpoint, folder):
        return Probes([str(path) for path in write_probe_clips(folder)], {})

    def recipe(self, config, processor):
        fps, per_step = processor.feature_fps, config.frames_per_step
        steps = self._window(config, processor)
        rate = f"{fps:g} frames per second" if fps else "the file's own frame rate"
        each = "frame" if per_step == 1 else f"{per_step} frames"
        return (
            f"At {rate}, resized to {escape_markdown(size_text(processor.size))}"
            + (f", centre crop {escape_markdown(size_text(processor.crop_size))}" if processor.do_center_crop else "")
            + f". Every {each} make{'s' if per_step == 1 else ''} one step of time; a trunk of type "
            + f"{escape_code(config.backbone_config.model_type)} reads clips of {config.clip_frames} frames, and "
            + f"{self._windows(processor, steps, steps * per_step / fps if fps else None)}.\n\n"
            + self._decisions(config, processor)
        )


class DetectionFromFeatures(_Detection):
    """Features that somebody extracted in, segments out."""

    steps = ("package_is_absent", "load", "feature_processor", "detect", "resave")
    usage = "use_detector_of_features.md"

    def reference_input(self, config, processor):
        return self._features(config, _PROBE_STEPS)

    def view(self, config, processor):
        return self._features(config, processor.resize_length or processor.window_length or config.max_sequence_length)

    def _features(self, config, steps):
        return ModelInput((1, steps, sum(config.feature_sizes)), "input_features")

    def write_probes(self, checkpoint, folder):
        rng, config = np.random.default_rng(0), ActionFormerConfig.from_pretrained(checkpoint)
        files = []
        for name, steps in (("features", _PROBE_STEPS), ("one_feature", 1)):
            path = folder / f"{name}.npy"
            np.save(path, rng.standard_normal((steps, sum(config.feature_sizes)), dtype=np.float32))
            files.append(str(path))
        return Probes(files, {"fps": _PROBE_FPS})

    def recipe(self, config, processor):
        fps = processor.feature_fps
        stride, seen = processor.feature_stride, processor.feature_num_frames
        rate = f"frames at {fps:g} per second" if fps else "frames at the video's own rate"
        steps = processor.window_length
        return (
            f"As features of {' + '.join(map(str, config.feature_sizes))} channels, {stride:g} frames apart, each computed from {seen:g} "
            f"({rate}); {self._windows(processor, steps, steps * stride / fps if fps and steps else None)}. The features must come from the "
            f"same extractor as those it was trained on.\n\n" + self._decisions(config, processor)
        )
