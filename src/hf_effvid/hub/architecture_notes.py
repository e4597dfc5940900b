"""What a card says about an architecture: how it compares with the network of the paper, and whose weights may be in it.

Keyed by `model_type`; a model without an entry gets no such section. The numbers are those of `docs/video_focalnet.md`, tested
against the models themselves.
"""

from collections.abc import Callable

from ..models.configuration_video_focalnet import PRESETS


# size -> parameters with 400 classes, GMACs of one view of 8 x 224 x 224 as counted, GFLOPs as printed in the paper
VIDEO_FOCALNET_SIZES = {
    "tiny": (49_553_272, 63.0, 63),
    "small": (88_735_168, 124.3, 124),
    "base": (157_389_216, 220.6, 149),
}
_AUTHORS = "github.com/TalalWasim/Video-FocalNets"


def architecture_notes(config, *, converted: bool = False) -> list[str]:
    """Sentences for the card of a model with this configuration; none for an architecture that needs none.

    Args:
        config: configuration of the model.
        converted: whether the weights were converted from a file of the paper's authors, or are quoted to be theirs.
    """
    write = _WRITERS.get(str(config.model_type))
    return write(config, converted) if write else []


def _video_focalnet(config, converted: bool) -> list[str]:
    notes = [
        "Spatio-temporal focal modulation: at every site of every frame a query is multiplied by two modulators, one gathered "
        "around it in the frame, one from the same site in other frames. There is no attention; the cost grows linearly with "
        "frames and pixels, and the weights take any number of frames and any size of 32 pixels or more.",
        *_size(config),
    ]
    if (config.temporal_encoding, config.modulator_fusion) == ("parallel", "product"):
        notes.append(
            "The network is the paper's: with the same weights its logits equal those of the authors' code to 1e-9 in double "
            "precision. It differs in what surrounds them: the number of frames comes from the input, layouts are "
            "channels-last throughout, modulators and gates are outputs (`output_modulators=True`), and linear layers take "
            "the place of 1x1 convolutions, so that LoRA applies to them."
        )
    else:
        notes.append(
            "It is a variant and not the paper's network: "
            f"`temporal_encoding={config.temporal_encoding}`, `modulator_fusion={config.modulator_fusion}`."
        )
    if converted:
        notes.append(
            f"The authors' repository ({_AUTHORS}) states no licence for its code or its weights: ask its authors before you "
            "pass on weights that were converted from their files. Whoever has such a file and the repository's list of labels makes this "
            "checkpoint with `effvid convert FILE FOLDER --preset tiny|small|base --labels LABELS.csv`."
        )
    return notes


def _size(config) -> list[str]:
    shape = (config.embed_dim, list(config.depths))
    for size, (parameters, counted, printed) in VIDEO_FOCALNET_SIZES.items():
        if shape == (PRESETS[size]["embed_dim"], PRESETS[size]["depths"]):
            note = (
                f"It has the paper's size *{size}*: {parameters:,} parameters with 400 classes, and {counted} billion "
                "multiply-accumulates per view of 8 x 224 x 224, counted on the operations that run."
            )
            # a rounded figure is no difference
            differs = f" The paper prints {printed}, which is not what the released network costs."
            return [note + (differs if abs(printed - counted) > 1 else "")]
    return []


_WRITERS: dict[str, Callable] = {"video_focalnet": _video_focalnet}
