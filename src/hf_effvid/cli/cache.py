"""What is computed once and used often: features of videos."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .application import app
from .options import Device, Format, JsonFlag, Quiet, RemoteCode, Root, SkipMissing, print_json, show_progress


@app.command()
def cache(
    videos: Annotated[
        str,
        typer.Argument(help="A folder of videos, a list of them, annotations of actions, a video, or a data set id."),
    ],
    model: Annotated[
        str,
        typer.Option("--model", "-m", help="Folder or Hub id of a video classifier, or of a detector with backbone."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the features; resumable.")],
    features: Annotated[
        bool, typer.Option("--features", help="Cache features of a backbone; there is nothing else yet, so say it.")
    ] = False,
    frames_per_step: Annotated[
        int | None,
        typer.Option(
            help="A feature for every so many frames, as a detector on pixels has them; default: the detector's."
        ),
    ] = None,
    clip_stride: Annotated[
        int | None, typer.Option(help="A feature for every clip, so many frames apart; default: clips side by side.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Look at so many frames per second; default: the recipe's, or all.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Clips per forward pass.")] = 8,
    dtype: Annotated[str, typer.Option(help="Of the computation: float32, bfloat16, float16.")] = "float32",
    stored_as: Annotated[str, typer.Option(help="Numbers on disk: float32 or float16.")] = "float32",
    shards: Annotated[str, typer.Option(help="Files on disk: safetensors or parquet.")] = "safetensors",
    shard_mb: Annotated[int, typer.Option(min=1, help="Megabytes after which a new file is begun.")] = 64,
    root: Root = None,
    format: Format = None,
    split: Annotated[str | None, typer.Option(help="Only this split of annotations or of a data set.")] = None,
    skip_missing: SkipMissing = False,
    device: Device = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let videos be http(s) addresses.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Keep the features of videos, so that detectors train without their backbone.

    Started again after it was stopped, the command goes on where it was. Videos that cannot be read are listed in `index.json` and tried
    again by the next run; exit code 1 when all of them failed.

    Example: `effvid cache actions.csv --features --model run/model --output features/ --fps 16 --clip-stride 8`
    """
    from ..data.feature_store import FeatureStoreWriter
    from ..pipelines.feature_extraction import FeatureExtractor, extract_features

    if not features:
        raise typer.BadParameter("say what to cache: --features", param_hint="--features")
    found = videos_of_source(videos, root, format, split, skip_missing)
    extractor = FeatureExtractor(
        model,
        frames_per_step=frames_per_step,
        clip_stride=clip_stride,
        fps=fps,
        batch_size=batch_size,
        dtype=dtype,
        device=device,
        allow_remote=allow_remote,
        trust_remote_code=trust_remote_code,
    )
    with FeatureStoreWriter(output, extractor.recipe(), shards, stored_as, shard_mb << 20) as store:
        counts = extract_features(extractor, found, store, progress=show_progress(quiet))
        errors, total = dict(store.errors), len(store)
    if as_json:
        print_json({"folder": str(output), "videos": total, **counts, "errors": errors})
    else:
        print(f"{output}: {total} videos ({counts['added']} new, {counts['kept']} kept), {counts['failed']} failed")
        for name, reason in errors.items():
            print(f"  {name}: {reason}".encode("utf-8", "backslashreplace").decode())
    if counts["failed"] and total == 0:
        raise typer.Exit(1)


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
