"""What is computed once and used often: features of videos, and what teachers say of them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .application import app
from .cache_options import (
    AllowRemote,
    AnswerOutputs,
    Augmentation,
    BatchSize,
    ClipStride,
    ComputeType,
    DecodeSize,
    Fps,
    FramesPerStep,
    Grid,
    NoFlips,
    Role,
    Shards,
    ShardSize,
    Split,
    StoredType,
    Teaches,
    Views,
    ViewSeed,
    Workers,
)
from .options import (
    Device,
    Format,
    JsonFlag,
    LabelMap,
    Labels,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    list_options,
    numbers,
    print_json,
    read_label_map,
    show_progress,
)


# what only one of the two kinds of cache can be told -> its flag
_OF_FEATURES = (
    "frames_per_step", "clip_stride", "fps", "shards", "shard_mb", "allow_remote",
)  # fmt: skip
_OF_ANSWERS = (
    "role", "views", "view_seed", "augmentation", "no_flips", "decode_size", "outputs", "grid", "workers", "label_map", "labels",
)  # fmt: skip


@app.command()
def cache(
    context: typer.Context,
    videos: Annotated[
        str,
        typer.Argument(
            help="A folder of videos, a list of them, annotations of actions, a video, or a data set id; with --teacher "
            "labelled videos, as `effvid train` takes them."
        ),
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Folder or Hub id of a video classifier, or of a detector with backbone."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of what is stored; resumable.")],
    features: Annotated[bool, typer.Option("--features", help="Cache features of a backbone, for detectors.")] = False,
    teacher: Teaches = False,
    frames_per_step: FramesPerStep = None,
    clip_stride: ClipStride = None,
    fps: Fps = None,
    batch_size: BatchSize = 8,
    dtype: ComputeType = "float32",
    stored_as: StoredType = None,
    shards: Shards = "safetensors",
    shard_mb: ShardSize = 64,
    role: Role = None,
    views: Views = 4,
    view_seed: ViewSeed = 0,
    augmentation: Augmentation = "light",
    no_flips: NoFlips = False,
    decode_size: DecodeSize = None,
    outputs: AnswerOutputs = "logits,features,embeddings",
    grid: Grid = None,
    label_map: LabelMap = None,
    labels: Labels = None,
    workers: Workers = 0,
    root: Root = None,
    format: Format = None,
    split: Split = None,
    skip_missing: SkipMissing = False,
    device: Device = None,
    allow_remote: AllowRemote = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Keep the features of videos, so that detectors train without their backbone; or what a teacher says of them, for students.

    Started again after it was stopped, the command goes on where it was. Videos that cannot be read are listed (`index.json`,
    `recipe.json`) and tried again by the next run; exit code 1 when all of them failed.

    Example: `effvid cache actions.csv --features --model run/model --output features/ --fps 16 --clip-stride 8`

    Example: `effvid cache my_videos/ --teacher --role vit --model vit/model --output answers/vit --views 4`
    """
    if features == teacher:
        raise typer.BadParameter("say what to cache: --features or --teacher", param_hint="--features")
    _refuse_foreign(context, _OF_ANSWERS if features else _OF_FEATURES, "--teacher" if features else "--features")
    (_cache_features if features else _cache_answers)(context.params)


def _refuse_foreign(context: typer.Context, names: tuple, kind: str) -> None:
    for name in names:
        if context.get_parameter_source(name).name != "DEFAULT":
            raise typer.BadParameter(f"is for {kind}", param_hint=f"--{name.replace('_', '-')}")


def _cache_features(typed: dict) -> None:
    from ..data.feature_store import FeatureStoreWriter
    from ..pipelines.feature_extraction import FeatureExtractor, extract_features

    of_source = ("videos", "root", "format", "split", "skip_missing")
    found = videos_of_source(*(typed[name] for name in of_source))
    of_extractor = (
        "frames_per_step", "clip_stride", "fps", "batch_size", "dtype", "device", "allow_remote", "trust_remote_code",
    )  # fmt: skip
    extractor = FeatureExtractor(typed["model"], **{name: typed[name] for name in of_extractor})
    output, stored_as = typed["output"], typed["stored_as"] or "float32"
    with FeatureStoreWriter(output, extractor.recipe(), typed["shards"], stored_as, typed["shard_mb"] << 20) as store:
        counts = extract_features(extractor, found, store, progress=show_progress(typed["quiet"]))
        errors, total = dict(store.errors), len(store)
    summary = f"{total} videos ({counts['added']} new, {counts['kept']} kept), {counts['failed']} failed"
    _report(typed, {"videos": total, **counts}, summary, errors)
    if counts["failed"] and total == 0:
        raise typer.Exit(1)


def _cache_answers(typed: dict) -> None:
    import torch

    from ..compression.teachers import Teacher
    from ..data.loading import label_names, load_video_dataset
    from ..training.teacher_cache import cache_teacher_outputs

    if typed["role"] is None:
        raise typer.BadParameter("say which teacher it is: vit or cnn", param_hint="--role")
    listed = list_options(typed["root"], False, typed["format"], typed["labels"], typed["skip_missing"])
    rows = load_video_dataset(typed["videos"], split=typed["split"] or "train", **listed)
    teacher = Teacher.open(
        typed["model"],
        typed["role"],
        label_names(rows),
        label_map=None if typed["label_map"] is None else read_label_map(typed["label_map"]),
        dtype=getattr(torch, typed["dtype"]),
        device=typed["device"] or ("cuda" if torch.cuda.is_available() else "cpu"),
        trust_remote_code=typed["trust_remote_code"],
    )
    store = cache_teacher_outputs(
        teacher,
        rows,
        typed["output"],
        role=typed["role"],
        views=typed["views"],
        view_seed=typed["view_seed"],
        augmentation=typed["augmentation"],
        horizontal_flips=False if typed["no_flips"] else None,
        decode_size=typed["decode_size"],
        outputs=typed["outputs"].split(","),
        grid=numbers(typed["grid"]) if typed["grid"] else None,
        dtype=typed["stored_as"] or "float16",
        batch_size=typed["batch_size"],
        num_workers=typed["workers"],
        progress=show_progress(typed["quiet"]),
    )
    counts = {"answers": len(store), "views": typed["views"], "failed": len(store.errors)}
    _report(typed, counts, f"{len(store)} answers, {len(store.errors)} videos failed", store.errors)
    if store.errors and not len(store):
        raise typer.Exit(1)


def _report(typed: dict, counts: dict, summary: str, errors: dict[str, str]) -> None:
    if typed["as_json"]:
        print_json({"folder": str(typed["output"]), **counts, "errors": errors})
        return
    print(f"{typed['output']}: {summary}")
    for name, reason in errors.items():
        print(f"  {name}: {reason}".encode("utf-8", "backslashreplace").decode())


def videos_of_source(source: str, root: Path | None, format: str | None, split: str | None, skip_missing: bool):
    """Name -> path of the videos that an argument of the command stands for; (name, video) pairs of a data set.

    Names are those that annotations have, or paths below the folder or the folder of the list.
    """
    from ..data.annotations import AnnotationError
    from ..data.detection_annotations import FORMATS, are_detection_annotations, load_detection_annotations
    from ..pipelines.predict import expand_inputs

    path = Path(source).expanduser()
    if not path.exists():
        return _videos_of_data_set(source, split)
    if format in FORMATS or (format is None and are_detection_annotations(path)):
        missing = "skip" if skip_missing else "keep"
        annotations = load_detection_annotations(path, format, root=root, split=split, missing=missing)
        return {video.name: video.path for video in annotations.videos}
    if format is not None or split is not None:
        raise AnnotationError(
            source, "no annotations of actions", f"--format (one of {', '.join(FORMATS)}) and --split are for these."
        )
    base = root or (path if path.is_dir() else path.parent)
    paths = [video for video in expand_inputs(source) if not skip_missing or os.path.exists(video)]
    return {_name_below(video, base): video for video in paths}


def _name_below(video: str, base: Path) -> str:
    if "://" in video:
        return video
    name = os.path.relpath(video, base)
    return video if name.startswith(os.pardir) else Path(name).as_posix()


def _videos_of_data_set(source: str, split: str | None) -> Iterator[tuple[str, object]]:
    from ..data.hub_datasets import load_with_datasets, named_videos

    loaded = load_with_datasets(source, split, streaming=True, load_kwargs={})
    return named_videos(loaded)
