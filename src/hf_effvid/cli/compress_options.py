"""What `effvid compress` can be told."""

from pathlib import Path
from typing import Annotated

import typer

from .options import check_positive


TrainedModel = Annotated[
    str, typer.Argument(help="Folder or Hub id of a trained video classifier or action detector.")
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        "-d",
        help="Videos of its classes, as `effvid train` takes them; motion or streams: generated ones, made on the spot.",
    ),
]
OutputDir = Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the run.")]
Drop = Annotated[int | None, typer.Option(min=0, help="Blocks to drop; default with no other rule: a quarter.")]
TargetMs = Annotated[
    float | None, typer.Option(callback=check_positive, help="Stop at so many milliseconds per input.")
]
TargetMacs = Annotated[float | None, typer.Option(callback=check_positive, help="Stop at so many GMACs per input.")]
Margin = Annotated[
    float | None,
    typer.Option(
        help="Stop when more than this (0.01: a point) of the held-out metric stays lost; keep the model before."
    ),
]
Order = Annotated[str | None, typer.Option(help="progressive (default), at_once, random or random_at_once.")]
Blocks = Annotated[str | None, typer.Option(help="Drop these instead, in this order, such as 7,10,6.")]
Criterion = Annotated[
    str | None,
    typer.Option(help="Importance of a block: metric (default) or loss without it, or its discrepancy."),
]
ScoreOn = Annotated[
    str | None, typer.Option(help="Score on the train part (default) or the held-out validation part.")
]
ScoreVideos = Annotated[int | None, typer.Option(min=1, help="Score on so many videos; default: all.")]
Metric = Annotated[str | None, typer.Option(help="top1, mAP, average_mAP or mAP@0.5; default: what fits the model.")]
NoRecovery = Annotated[bool, typer.Option("--no-recovery", help="Drop blocks, train nothing.")]
Tuning = Annotated[str | None, typer.Option(help="lora (default) or full: what recovery trains.")]
Rank = Annotated[int | None, typer.Option(min=1, help="Rank of the adapters; default: a quarter of the width.")]
Head = Annotated[str | None, typer.Option(help="train (default) or frozen: head, or detector, in recovery.")]
Align = Annotated[
    str | None,
    typer.Option(help="Comma-separated feature, classification, boundary; or none; default: all that apply."),
]
Preset = Annotated[str | None, typer.Option(help="paper (default), or released: as in the authors' code.")]
Teacher = Annotated[
    str | None, typer.Option(help="static: the uncompressed model; dynamic: the model before each drop.")
]
Temperature = Annotated[float | None, typer.Option(callback=check_positive, help="Of classification alignment.")]
MlpWidth = Annotated[
    int | None, typer.Option(min=1, help="After the drops, prune the MLPs to so many channels and recover (VideoMAE).")
]
Relu = Annotated[bool, typer.Option("--relu", help="At the end, put ReLU in the place of GELU and recover.")]
Part = Annotated[str | None, typer.Option(help="Of a detector: backbone, or the detector itself.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Recipe file (YAML), see examples/configs/block_drop.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: training.learning_rate=1e-3 (repeatable).")
]
ValidationShare = Annotated[
    float | None, typer.Option(help="Share of the videos to hold out when there is no such split; default: 0.2.")
]
SplitSeed = Annotated[int, typer.Option(min=0, help="Seed of that choice: the one that the model was trained with.")]
Epochs = Annotated[float | None, typer.Option(callback=check_positive, help="Epochs of each recovery.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Steps of each recovery, instead of epochs.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Clips or windows per step and device.")]
LearningRate = Annotated[
    float | None, typer.Option("--lr", callback=check_positive, help="Peak learning rate; default: 1e-4.")
]
Ema = Annotated[
    float | None, typer.Option(min=0, max=1, help="Decay of the average of the weights; 0: none; default: 0.999.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")]
TimingRounds = Annotated[
    int | None, typer.Option(min=0, help="Rounds in which models take turns to be timed; 0: no times; default: 6.")
]
Results = Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend: one entry per step.")]
ModelName = Annotated[str | None, typer.Option(help="Name of the result there; default: the output folder's.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run in the folder.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what blocks there are and what each drop would bring; train nothing."),
]
