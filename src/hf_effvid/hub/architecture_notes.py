"""What a card says about an architecture: how it compares with the network of the paper, and whose weights may be in it.

Keyed by `model_type`; a model without an entry gets no such section. The numbers are those of `docs/video_focalnet.md`, tested
against the models themselves; what is said of the small CNNs (`docs/students.md`) is tested against them too.
"""

from collections.abc import Callable

from ..models.configuration_video_focalnet import PRESETS
from .escaping import escape_code


# size -> parameters with 400 classes, GMACs of one view of 8 x 224 x 224 as counted, GFLOPs as printed in the paper
VIDEO_FOCALNET_SIZES = {
    "tiny": (49_553_272, 63.0, 63),
    "small": (88_735_168, 124.3, 124),
    "base": (157_389_216, 220.6, 149),
}
_AUTHORS = "github.com/TalalWasim/Video-FocalNets"


def architecture_notes(config, *, converted: bool = False, processor=None) -> list[str]:
    """Sentences for the card of a model with this configuration; none for an architecture that needs none.

    Args:
        config: configuration of the model.
        converted: whether the weights were converted from a file of the paper's authors, or are quoted to be theirs.
        processor: the checkpoint's; of small CNNs the notes say how it normalises, which differs from family to family.
    """
    write = _WRITERS.get(str(config.model_type))
    if write is None:
        return []
    return [*write(config, converted), *(_pixels(processor) if write is not _video_focalnet else [])]


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


def _tsm(config, converted: bool) -> list[str]:
    share = f"1/{config.shift_div}"
    notes = [
        f"{escape_code(config.architecture)} of timm, a network for images, applied to every frame; the logits of the frames are averaged. In front of "
        f"its convolutions named by {'the configuration' if config.shift_modules else 'the rule of its family'}, {share} of the channels come from the "
        + (
            "frame before, so that nothing is seen before its time and a video may come frame by frame (`past_states`)."
            if config.causal
            else f"frame before and {share} from the frame after. The shift has no weights and costs no multiplication."
        ),
        "timm builds the network: `pip install timm` is needed to open it, also without the package.",
        f"Trained on {config.num_frames} frames; it takes any number of them.",
    ]
    if converted:
        notes.append(
            "The authors' repository (github.com/mit-han-lab/temporal-shift-module) is under the MIT licence; the ImageNet weights that its networks "
            "started from, and Kinetics, have terms of their own."
        )
    return notes


def _x3d(config, converted: bool) -> list[str]:
    return [
        "A 3-D network of depthwise convolutions; time is never strided.",
        _clips(config)
        + " Of a larger clip or crop the head classifies every place where such a window fits, and averages the logits.",
        *(
            ["The weights are of pytorchvideo (github.com/facebookresearch/pytorchvideo): its terms hold for them."]
            * converted
        ),
    ]


def _movinet(config, converted: bool) -> list[str]:
    form = (
        "The stream form: nothing is seen before its time, and a video may come piece by piece. `model(piece, past_states=states, use_cache=True)` hands out "
        "what it remembers, in memory that does not grow, and the logits after the last piece are those of the whole video."
        if config.causal
        else "The base form: every frame sees those after it, so a clip must be there as a whole. For a live video take a stream form, whose weights are others."
    )
    return [
        form,
        _clips(config) + " It takes other lengths and sizes.",
        *(
            [
                "The published weights know the 600 classes of Kinetics-600 (github.com/tensorflow/models, ported in github.com/Atze00/MoViNet-pytorch, "
                "which is under the MIT licence): the terms of both hold for them."
            ]
            * converted
        ),
    ]


def _torchvision_video(config, converted: bool) -> list[str]:
    fixed = "; clips of exactly that size" if config.network == "mvit_v1_b" else ""
    return [
        f"{escape_code(config.network)} of torchvision, which builds the network: `pip install torchvision` is needed to open it, also without the package.",
        f"{_clips(config).removesuffix('.')}{fixed}.",
        *(
            ["The weights are those that torchvision publishes; the terms of their training data (Kinetics) apply."]
            * converted
        ),
    ]


def _pixels(processor) -> list[str]:
    mean, deviation = (getattr(processor, name, None) for name in ("image_mean", "image_std"))
    if mean is None or deviation is None:
        return []
    if getattr(processor, "do_normalize", True) is False or (not any(mean) and set(deviation) == {1.0}):
        return ["It sees plain pixels, from 0 to 1, without mean or deviation."]
    mean, deviation = (", ".join(f"{value:g}" for value in values) for values in (mean, deviation))
    return [f"It sees pixels from 0 to 1, normalised with mean ({mean}) and deviation ({deviation})."]


def _clips(config) -> str:
    size = config.image_size
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    return f"Trained on clips of {config.num_frames} x {height} x {width}."


_WRITERS: dict[str, Callable] = {
    "video_focalnet": _video_focalnet,
    "tsm": _tsm,
    "x3d": _x3d,
    "movinet": _movinet,
    "torchvision_video": _torchvision_video,
}
