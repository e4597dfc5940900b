"""`explain`: one video in, the predicted label and where the model looked out."""

import os

from .video_classification import VideoClassificationPipeline


def explain(video, model, output_dir="explanation", *, processor=None, block=-1, device=None, **params):
    """Classifies a video and shows where and when the model looked: an overlay video, a contact sheet, gate maps, numbers.

    Args:
        video: anything that `read_video` takes, or a list of such.
        model: a Video-FocalNet classifier, the folder or Hub id of one, or a `VideoClassificationPipeline`.
        output_dir: folder for the files, one sub-folder per video (or window); None for numbers alone.
        processor: video processor of a model that was given as such.
        block: which block the maps come from, counted over all stages; the last one has seen the whole network, earlier ones have
            finer maps.
        device: torch device.
        **params: further parameters of a call of the pipeline (`start`, `end`, `window`, `stride`, `multi_view`, `top_k`, ...).

    Returns:
        `{"predictions": [...], "explanation": {...}}`, with `window` a list of these with `start` and `end`; a list over a list of
        videos. JSON can hold it. The fields of `explanation`: `label`, `score`, `block`, `view`, `seconds`, `temporal_weight`, `gates` and,
        with an `output_dir`, `files`.

    Raises:
        NoModulatorsError: the model has no modulators; it names the models that have them.
        VideoError: the video cannot be read.
    """
    pipe = model
    if not isinstance(model, VideoClassificationPipeline):
        if isinstance(model, os.PathLike):
            model = os.fspath(model)
        pipe = VideoClassificationPipeline(model, video_processor=processor, device=device)
    return pipe(video, explain=True, explain_dir=output_dir, explain_block=block, **params)
