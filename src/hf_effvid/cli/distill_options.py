"""What `effvid distill` can be told."""

from pathlib import Path
from typing import Annotated

import typer

from .options import check_positive


Student = Annotated[
    str | None,
    typer.Option("--student", "-s", help="Folder, Hub id, or preset such as x3d:s; default: the recipe's model."),
]
TeacherVit = Annotated[
    str | None, typer.Option(help="Folder or Hub id of the transformer that teaches; none: the CNN teaches alone.")
]
TeacherCnn = Annotated[
    str | None, typer.Option(help="Folder or Hub id of the CNN that teaches; none: the transformer teaches alone.")
]
Data = Annotated[
    str, typer.Option("--data", "-d", help="Videos of the teachers' classes, as `effvid train` takes them.")
]
OutputDir = Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the run.")]
Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="Recipe file (YAML), see examples/configs/distillation.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a value: distillation.kd_weight=2 (repeatable).")
]
Weighting = Annotated[
    str | None,
    typer.Option(
        help="How much each teacher counts for a clip: discrepancy_aware (default), uniform, confidence, discrepancy, ebkd, "
        "ca_mkd."
    ),
]
KdLoss = Annotated[str | None, typer.Option(help="Loss with the teachers' logits: kd (default), dkd, dist, ofa.")]
Temperature = Annotated[
    float | None, typer.Option(callback=check_positive, help="Of that loss; default: 4 for kd and dkd, else 1.")
]
LogitNorm = Annotated[
    str | None, typer.Option(help="none (default), or zscore: teachers whose logits differ in scale mix evenly.")
]
NoKd = Annotated[bool, typer.Option("--no-kd", help="No loss with the teachers' logits.")]
Residual = Annotated[
    str | None,
    typer.Option(
        help="What the branch predicts: discrepancy of both teachers (default), the vit's map itself, or none: no branch."
    ),
]
Projection = Annotated[
    str | None,
    typer.Option(help="To the student's channels: aux_ce (default) learns to classify; orthogonal is fixed."),
]
NoRelations = Annotated[bool, typer.Option("--no-relations", help="No distances and angles between clips.")]
GatherRelations = Annotated[
    bool, typer.Option("--gather-relations", help="Relations over the clips of all processes.")
]
FeatureLoss = Annotated[
    str | None, typer.Option(help="A baseline on features besides: none (default), mse, fitnet, attention.")
]
Views = Annotated[
    int | None,
    typer.Option(
        min=1, help="Only so many random views of a clip, the same in every run; default: a new one each epoch."
    ),
]
CacheTeachers = Annotated[
    Path | None,
    typer.Option(help="Folder to keep the teachers' outputs in, so that teachers run once per view; needs --views."),
]
ValidationShare = Annotated[
    float | None, typer.Option(help="Share of each class to validate on when there is no such split; default: 0.2.")
]
Epochs = Annotated[float | None, typer.Option(callback=check_positive, help="Passes over the training clips.")]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Steps, instead of epochs.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Clips per step and device.")]
LearningRate = Annotated[float | None, typer.Option("--lr", callback=check_positive, help="Peak learning rate.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random but the views.")]
Compare = Annotated[
    bool,
    typer.Option(
        "--compare", help="At the end, measure student and teachers on the validation clips: does it exceed them?"
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the newest complete checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run in the folder.")]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Open everything, say what would be trained and what a step costs; train nothing."),
]
