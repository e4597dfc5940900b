"""What `effvid cache` can be told."""

from typing import Annotated

import typer


def check_role(name: str | None) -> str | None:
    """One of the two teachers."""
    if name not in (None, "vit", "cnn"):
        raise typer.BadParameter(f"{name!r} is neither 'vit' nor 'cnn'")
    return name


def check_type(name: str) -> str:
    """A type of numbers that models compute in."""
    if name not in ("float32", "bfloat16", "float16"):
        raise typer.BadParameter(f"{name!r} is none of float32, bfloat16, float16")
    return name


# ---- features ----------------------------------------------------------------------------------------------------------------

FramesPerStep = Annotated[
    int | None,
    typer.Option(
        help="A feature for every so many frames, as a detector on pixels has them; default: the detector's."
    ),
]
ClipStride = Annotated[
    int | None, typer.Option(help="A feature for every clip, so many frames apart; default: clips side by side.")
]
Fps = Annotated[float | None, typer.Option(help="Look at so many frames per second; default: the recipe's, or all.")]
Shards = Annotated[str, typer.Option(help="Files on disk: safetensors or parquet.")]
ShardSize = Annotated[int, typer.Option(min=1, help="Megabytes after which a new file is begun.")]
AllowRemote = Annotated[bool, typer.Option("--allow-remote", help="Let videos be http(s) addresses.")]

# ---- a teacher's answers -----------------------------------------------------------------------------------------------------

Teaches = Annotated[
    bool,
    typer.Option("--teacher", help="Cache what a teacher says of random views of the clips, see `effvid distill`."),
]
Role = Annotated[str | None, typer.Option(callback=check_role, help="Which teacher it is: vit or cnn.")]
Views = Annotated[int, typer.Option(min=1, help="Random views of each clip; trainings use as many or fewer.")]
ViewSeed = Annotated[int, typer.Option(help="Seed of the views.")]
Augmentation = Annotated[
    str, typer.Option(help="What is done to the clips, that of the training: none, light, recipe or strong.")
]
NoFlips = Annotated[
    bool, typer.Option("--no-flips", help="No flips, for a student whose recipe forbids them where labels do not.")
]
DecodeSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Shorter side of decoded frames, the same for all teachers; default: for this one's size."
    ),
]
AnswerOutputs = Annotated[str, typer.Option(help="What to store of logits,features,embeddings.")]
Grid = Annotated[
    str | None, typer.Option(help="Average feature maps to frames,rows,columns, such as the student's 8,7,7.")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that decode; 0: this one.")]

# ---- both --------------------------------------------------------------------------------------------------------------------

BatchSize = Annotated[int, typer.Option(min=1, help="Clips per forward pass.")]
ComputeType = Annotated[str, typer.Option(callback=check_type, help="Of the computation: float32, bfloat16, float16.")]
StoredType = Annotated[
    str | None,
    typer.Option(
        help="Numbers on disk: float32 or float16; default: float32 of features, float16 of a teacher's answers."
    ),
]
Split = Annotated[
    str | None,
    typer.Option(help="Only this split of annotations or of a data set; with --teacher by default train."),
]
