"""What a compression starts from: the trained model, and the data set, which may be one of the generated ones."""

import os
from pathlib import Path

from accelerate import PartialState
from transformers import AutoConfig, PreTrainedModel

from ..auto import register
from ..compression.block_table import model_blocks
from ..data.synthetic import ALL_MOTION_CLASSES, make_motion_dataset
from ..data.synthetic_streams import make_action_streams
from ..host_loading import load_video_classifier, one_line_errors
from ..models.modeling_actionformer import ActionFormerForTemporalActionDetection
from .block_drop_errors import BlockDropError


# names of data sets that are drawn when asked for, unless there is such a file
GENERATED = {"motion": make_motion_dataset, "streams": make_action_streams}


def open_trained(model, part=None, trust_remote_code=False):
    """A trained classifier or detector whose blocks are known.

    Args:
        model: a folder, a Hub id, or the model, which comes back as it is.
        part: see `model_blocks`.
        trust_remote_code: run model code that comes with a checkpoint.

    Raises:
        CheckpointNotFound, RemoteCodeNeeded: the model cannot be opened.
        UnsupportedBlocksError: nobody knows where its blocks are.
        BlockDropError: adapters around a model.
    """
    register()
    if not isinstance(model, PreTrainedModel):
        if not isinstance(model, (str, os.PathLike)):
            if hasattr(model, "peft_config"):
                raise BlockDropError(
                    "Compression starts from a plain model: merge the adapters first (merge_and_unload)."
                )
            raise BlockDropError(f"model: expected a model, a folder or a Hub id, got {type(model).__name__}.")
        source = os.fspath(model)
        with one_line_errors(source):
            kind = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code).model_type
        if kind == "actionformer":
            with one_line_errors(source):
                model = ActionFormerForTemporalActionDetection.from_pretrained(source)
        else:
            model = load_video_classifier(source, trust_remote_code)
    model_blocks(model, part)
    return model


def data_source(data, folder, labels=(), progress=True):
    """What the data are read from.

    Args:
        data: anything; `"motion"` and `"streams"` are drawn where no such file or folder exists.
        folder: where drawn data are written to.
        labels: classes of the model; drawn data show these, where they can be drawn.
        progress: show a progress bar.
    """
    if not isinstance(data, str) or data not in GENERATED or os.path.exists(data):
        return data
    classes = {"classes": tuple(labels)} if labels and set(labels) <= set(ALL_MOTION_CLASSES) else {}
    with PartialState().main_process_first():
        made = Path(GENERATED[data](Path(folder) / data, progress=progress, **classes))
    return made / "annotations.json" if data == "streams" else made
