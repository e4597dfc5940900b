"""Video classifiers as they are published: stock transformers opens and runs them, our own architectures and others."""

from ..data.loading import load_video_dataset
from ..evaluation.classification import evaluate_classifier
from ..host_loading import load_video_classifier
from ..host_processing import clip_shape
from .escaping import escape_code, escape_markdown
from .probe_clips import write_probe_clips
from .published_task import Measured, ModelInput, Probes, PublishedTask, size_text, spread_evenly


class VideoClassification(PublishedTask):
    """Pixels of a clip in, one score per class out."""

    name = "video-classification"
    auto_class = "AutoModelForVideoClassification"
    outputs = ("logits",)
    steps = ("package_is_absent", "load", "load_base", "processor", "classify", "resave")
    usage = "use_classifier.md"
    view_name = "view"
    default_limitations = (
        "It always answers with one of its classes, also for a video that shows none of them: a score is not a probability that "
        "the answer is right.",
        "Accuracy was measured on the data above and nowhere else; other cameras, frame rates, places and people will lower it.",
    )
    default_intended_use = "Classifying short clips that resemble the training data; a starting point for fine-tuning."

    def load_model(self, name, trust_remote_code=False):
        return load_video_classifier(name, trust_remote_code)

    def reference_input(self, config, processor):
        return self.view(config, processor)

    def view(self, config, processor):
        return ModelInput((1, *clip_shape(config, processor)))

    def write_probes(self, checkpoint, folder):
        return Probes([str(path) for path in write_probe_clips(folder)], {})

    def load_data(self, source, split=None, **options):
        return load_video_dataset(source, split=split, **options)

    def measure(self, folder, data, split=None, max_videos=None, claim=None, **options):
        # the views of the claim, which may differ from the recipe's
        views = {} if claim is None else {"num_clips": claim.num_clips, "num_crops": claim.num_crops}
        options |= {key: count for key, count in views.items() if count is not None}
        outcome = evaluate_classifier(str(folder), _spread(data, max_videos), max_videos=max_videos, **options)
        return Measured(outcome.metrics, len(outcome.failures))

    def summary(self, config):
        return (
            f"A {escape_code(config.model_type)} video classifier with {config.num_labels} classes, "
            "in the format of Hugging Face transformers."
        )

    def recipe(self, config, processor):
        def value(name, default=None):
            return getattr(processor, name, default)

        if value("sampling") is None:
            return f"{escape_code(type(processor).__name__)} of transformers, with its own defaults; no recipe is recorded."
        how = {
            "uniform": "spread evenly over the video",
            "segment": "one from the middle of each of as many equal segments",
        }
        sampling = how.get(value("sampling"), f"consecutive, {value('frame_stride', 1)} frames apart")
        if value("sampling") == "dense" and value("target_fps"):
            sampling = f"consecutive, at {value('target_fps')} frames per second"
        views = f"{value('num_clips', 1)} clips x {value('num_crops', 1)} crops"
        short = {"repeat_last": "repeats its last frame", "loop": "is looped", "error": "is refused"}
        return (
            f"{value('num_frames')} frames, {sampling}; resized to {escape_markdown(size_text(value('size')))}"
            + (f", centre crop {escape_markdown(size_text(value('crop_size')))}" if value("do_center_crop") else "")
            + f". Tested with {views}, combined by {escape_code(value('aggregation'))}."
            + f" A video that is too short {short.get(value('short_clip_policy'), 'repeats its last frame')}."
        )


def _spread(videos, limit: int | None):
    """So many videos, spread evenly: data sets are sorted by class, and the first ones would all be of one.

    Streams cannot be indexed; of them the first ones are taken.
    """
    if limit is None or not hasattr(videos, "__len__") or len(videos) <= limit:
        return videos
    indices = spread_evenly(len(videos), limit)
    return videos.select(indices) if hasattr(videos, "select") else [videos[index] for index in indices]
