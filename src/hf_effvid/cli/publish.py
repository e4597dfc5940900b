"""From a checkpoint of somebody else to a checked one of one's own on the Hub."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .application import app
from .options import (
    Format,
    JsonFlag,
    Labels,
    MultiLabel,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    list_options,
    print_json,
    show_progress,
)


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Checkpoint file of the authors (.pth, .pt, .safetensors), or torchvision's name of one "
            "(MViT_V2_S_Weights.KINETICS400_V1); with --from-image also a folder or Hub id."
        ),
    ],
    output_dir: Annotated[Path, typer.Argument(help="Folder to write.")],
    model_type: Annotated[str, typer.Option(help="Architecture.")] = "video_focalnet",
    preset: Annotated[
        str | None, typer.Option(help="Released size or network to insist on, such as tiny, a0 or mvit_v2_s.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV 'id,name' with the class names.")] = None,
    directional: Annotated[
        bool, typer.Option("--directional", help="Labels tell left from right: never mirror clips in training.")
    ] = False,
    from_image: Annotated[
        str | None,
        typer.Option(help="SOURCE is an image FocalNet: start as `published`, or `preserve` what it computes."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Turn a checkpoint file of a paper's authors into a Hub folder (safetensors; pickles are opened with weights_only).

    Example: `effvid convert video-focalnet_tiny_k400.pth converted/ --preset tiny --labels kinetics_400_labels.csv`

    Example: `effvid convert microsoft/focalnet-tiny start/ --from-image published --labels my_labels.csv`
    """
    from ..convert import convert_checkpoint, convert_image_focalnet

    options = {"id2label": labels, "horizontal_flip_safe": not directional}
    if from_image is None:
        folder = convert_checkpoint(source, output_dir, model_type=model_type, preset=preset, **options)
    else:
        folder = convert_image_focalnet(source, output_dir, start=from_image, **options)
    if as_json:
        print_json({"folder": str(folder)})
    else:
        print(f"converted: {folder}")


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of any Hugging Face video classifier.")],
    output: Annotated[Path, typer.Argument(help="Folder to write.")],
    format: Annotated[str, typer.Option(help="onnx, or pt2 for torch.export.")] = "onnx",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    int8: Annotated[
        list[str] | None, typer.Option(help="Also write 8-bit weights: dynamic or weight-only (repeatable).")
    ] = None,
    opset: Annotated[int, typer.Option(help="Version of the ONNX operators.")] = 20,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Largest difference of logits, relative where they exceed 1; default: by dtype."),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the times.")] = None,
    evaluate: Annotated[
        str | None, typer.Option(help="Data set on which model and files are compared: folder, list or id.")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    root: Root = None,
    multi_label: MultiLabel = False,
    max_videos: Annotated[int | None, typer.Option(help="Only the first so many videos.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set in the results.")] = None,
    model_name: Annotated[str | None, typer.Option(help="Name of the checkpoint in the results.")] = None,
    variant: Annotated[str, typer.Option(help="What distinguishes this checkpoint, for the results.")] = "",
    seed: Annotated[int | None, typer.Option(help="Training seed of the checkpoint, for the results.")] = None,
    results: Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Write an ONNX file (or torch.export program) that is checked against the model, with its recipe, labels, size and latency.

    Example: `effvid export run/model exported/ --int8 dynamic --evaluate my_videos/ --results results.json`
    """
    from ..evaluation.results import add_results
    from ..export import export_model, measure_accuracy

    report = export_model(
        model,
        output,
        format=format,
        dtype=dtype,
        int8=int8 or (),
        opset=opset,
        tolerance=tolerance,
        threads=threads,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
        progress=show_progress(quiet),
    )
    if not as_json:
        Console().print(report.to_table())
    document, entries = report.to_dict(), report.to_result_entries(model_name)
    if evaluate is not None:
        from ..data.loading import load_video_dataset

        accuracy = measure_accuracy(
            report,
            model,
            load_video_dataset(evaluate, split=split, **list_options(root, multi_label)),
            max_videos=max_videos,
            dataset_name=name or Path(evaluate).name,
            model_name=model_name,
            split=split,
            seed=seed,
            trust_remote_code=trust_remote_code,
            progress=show_progress(quiet),
        )
        document["accuracy"] = accuracy.to_dict()
        entries += accuracy.to_result_entries(variant)
        if not as_json:
            print(accuracy.to_text())
    if as_json:
        print_json(document)
    if results is not None:
        add_results(results, entries)


@app.command()
def stage(
    model: Annotated[str, typer.Argument(help="Training output or any checkpoint folder, or a Hub id.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    card: Annotated[
        Path | None, typer.Option(help="YAML with the publisher's fields of the card, or a finished .md.")
    ] = None,
    results: Annotated[Path | None, typer.Option(help="Results file whose numbers the card states.")] = None,
    repo_id: Annotated[str | None, typer.Option(help="Hub id that the card's examples name.")] = None,
    chart: Annotated[
        Path | None, typer.Option(help="PNG of accuracy against time (effvid bench --chart) for the card.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier staging.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a Hub folder: weights, complete config, processor, code, card with measured numbers, nothing else.

    Example: `effvid stage run/model staged/my-model --card card.yaml --results results.json --repo-id me/my-model`
    """
    from ..hub.staging import stage_checkpoint

    staged = stage_checkpoint(
        model,
        folder,
        results=results,
        card=card,
        repo_id=repo_id,
        chart=chart,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    files = {
        path.relative_to(staged).as_posix(): path.stat().st_size
        for path in sorted(staged.rglob("*"))
        if path.is_file()
    }
    if as_json:
        print_json({"folder": str(staged), "files": files})
    else:
        print(f"staged: {staged}")
        for name, size in files.items():
            print(f"  {size:>12,} B  {name}")


@app.command()
def verify(
    checkpoint: Annotated[str, typer.Argument(help="Staged folder or Hub id. Its code is executed.")],
    data: Annotated[
        str | None,
        typer.Option(help="Data set, or a detector's annotations, on which the recorded accuracy is measured again."),
    ] = None,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "test",
    dataset_name: Annotated[
        str | None, typer.Option(help="Name of the data set in the card, when it claims several.")
    ] = None,
    max_videos: Annotated[int | None, typer.Option(help="Only so many videos, spread over the data set.")] = None,
    results: Annotated[Path | None, typer.Option(help="Results file that the card must agree with.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Load a checkpoint in a fresh interpreter without this package, compare outputs, run the stock pipeline, check the card.

    Example: `effvid verify staged/my-model --data my_videos/ --max-videos 50`
    """
    from ..hub.published_tasks import task_of_checkpoint
    from ..hub.verify import verify_checkpoint

    options = list_options(root, multi_label, format, labels, skip_missing)
    videos = task_of_checkpoint(checkpoint).load_data(data, split, **options) if data is not None else None
    report = verify_checkpoint(
        checkpoint,
        videos,
        results=results,
        revision=revision,
        dataset_name=dataset_name,
        split=split if videos is not None else None,
        max_videos=max_videos,
        progress=show_progress(quiet),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        print(report.to_text())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Staged folder.")],
    repo_id: Annotated[str, typer.Argument(help="Hub id, me/my-model.")],
    really: Annotated[
        bool, typer.Option("--really", help="Publish; without it only what would happen is printed.")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="A new repository is public; default: private.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch.")] = None,
    message: Annotated[str | None, typer.Option("--message", help="Commit message.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Publish a staged folder in one atomic commit. A dry run unless `--really` is given; log in with `hf auth login`.

    Example: `effvid push staged/my-model me/my-model --really`
    """
    from ..hub.push import push_checkpoint

    outcome = push_checkpoint(
        folder, repo_id, dry_run=not really, private=not public, revision=revision, commit_message=message
    )
    if as_json:
        print_json(outcome.to_dict())
    else:
        print(outcome.to_text())
