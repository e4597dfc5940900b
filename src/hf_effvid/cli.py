"""The `effvid` command: one short function per job, each calling one public function of the package.

Exit codes: 0 done, 1 bad input (one line on stderr; the whole traceback with EFFVID_DEBUG=1), 2 wrong usage. Data loading, training and
plotting libraries are imported by the command that needs them.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from huggingface_hub.errors import StrictDataclassError
from rich.console import Console

from .version import __version__


app = typer.Typer(
    name="effvid",
    help="Efficient video models for Hugging Face: classify, check, train, evaluate, convert, publish.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
RemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run model code that comes with the checkpoint.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


def _print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8, or a terminal that is not
        text = json.dumps(value, indent=2, default=str)
    print(text)


def _check_device(name: str | None) -> str | None:
    """A device that torch knows and this machine has: otherwise it fails deep inside, with a traceback."""
    if name is not None:
        import torch

        try:
            torch.empty(1, device=name)
        except (RuntimeError, AssertionError) as error:  # which of them depends on how torch was built
            reason = str(error).splitlines()[0]
            raise typer.BadParameter(f"{name!r} cannot be used here ({reason})") from None
    return name


def _check_picture(path: Path | None) -> Path | None:
    """Before hours of work, not after them."""
    if path is not None and path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise typer.BadParameter(f"{path.name!r} must end in .png, .svg or .pdf")
    return path


def _check_positive(value: float | None) -> float | None:
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value} is not greater than 0")
    return value


Device = Annotated[
    str | None,
    typer.Option(callback=_check_device, help="cpu, cuda, cuda:1, mps; default: a GPU if there is one."),
]


Root = Annotated[
    Path | None, typer.Option(help="Folder that the paths of a list are relative to; default: the list's.")
]
MultiLabel = Annotated[
    bool, typer.Option("--multi-label", help="A video of a list has several labels, separated by |.")
]


Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Layout of official annotations: kinetics, ssv2, diving48, activitynet, activitynet-segments, hmdb51, ucf101 "
        "(hmdb51-2: its second split); default: recognised.",
    ),
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Class names in the order of their numbers: CSV 'id,name' or JSON.")
]
SkipMissing = Annotated[
    bool, typer.Option("--skip-missing", help="Leave listed videos out that do not exist, with a warning.")
]


def _list_options(
    root: Path | None,
    multi_label: bool,
    format: str | None = None,
    labels: Path | None = None,
    skip_missing: bool = False,
) -> dict[str, Any]:
    """What `load_video_dataset` is told about a list; without the flag it sees for itself (lists of labels)."""
    given = {"format": format, "class_names": labels, "missing": "skip" if skip_missing else None}
    given = {name: value for name, value in given.items() if value is not None}
    return {"root": root, "multi_label": multi_label or None, **given}


def _progress(quiet: bool) -> bool:
    """A bar for people; none in a log file."""
    return not quiet and sys.stderr.isatty()


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit()


@app.command()
def predict(
    inputs: Annotated[str, typer.Argument(help="A video, a folder of videos, or a CSV/TXT list of them.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Folder or Hub id of any Hugging Face video classifier.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write .jsonl or .csv, row by row; resumable.")
    ] = None,
    top_k: Annotated[int, typer.Option(help="Labels per video.")] = 5,
    window: Annotated[float | None, typer.Option(help="Classify every WINDOW seconds of a video.")] = None,
    stride: Annotated[float | None, typer.Option(help="Seconds from one window to the next; default: WINDOW.")] = None,
    start: Annotated[float | None, typer.Option(help="First second to look at.")] = None,
    end: Annotated[float | None, typer.Option(help="Last second to look at.")] = None,
    multi_view: Annotated[
        bool, typer.Option("--multi-view", help="Average the clips and crops of the recipe.")
    ] = False,
    batch_size: Annotated[int, typer.Option(help="Clips per forward pass.")] = 8,
    threshold: Annotated[float | None, typer.Option(help="Only labels that score as much.")] = None,
    device: Device = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Decode in a worker that a hostile file may crash.")
    ] = False,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let inputs be http(s) addresses.")] = False,
    stop_on_error: Annotated[bool, typer.Option("--stop-on-error", help="Stop at the first unreadable file.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Classify videos.

    Example: `effvid predict holiday/ --model org/name --output predictions.csv`
    """
    from .pipelines.predict import predict_paths, predictions_table
    from .pipelines.video_classification import VideoClassificationPipeline

    pipe = VideoClassificationPipeline(model, model_kwargs={"trust_remote_code": trust_remote_code}, device=device)
    records = predict_paths(
        pipe,
        inputs,
        output=output,
        top_k=top_k,
        window=window,
        stride=stride,
        start=start,
        end=end,
        multi_view=multi_view,
        batch_size=batch_size,
        threshold=threshold,
        isolate=isolate,
        allow_remote=allow_remote,
        on_error="raise" if stop_on_error else "record",
        progress=_progress(quiet),
    )
    records = list(records)
    if output is not None and not records:
        print(f"effvid: {output} already holds all of them", file=sys.stderr)
    if as_json:
        _print_json(records)
    else:
        Console().print(predictions_table(records))
    if records and all("error" in record for record in records):
        raise typer.Exit(1)


@app.command()
def explain(
    video: Annotated[str, typer.Argument(help="A video.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub id of a Video-FocalNet classifier.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the overlay video, the pictures and the numbers.")
    ] = Path("explanation"),
    block: Annotated[
        int, typer.Option(help="Block that the maps come from, over all stages; earlier ones are finer.")
    ] = -1,
    window: Annotated[float | None, typer.Option(help="Explain every WINDOW seconds of a video.")] = None,
    stride: Annotated[float | None, typer.Option(help="Seconds from one window to the next; default: WINDOW.")] = None,
    start: Annotated[float | None, typer.Option(help="First second to look at.")] = None,
    end: Annotated[float | None, typer.Option(help="Last second to look at.")] = None,
    multi_view: Annotated[
        bool, typer.Option("--multi-view", help="Classify the clips and crops of the recipe, explain the clearest.")
    ] = False,
    device: Device = None,
    as_json: JsonFlag = False,
) -> None:
    """Show where and when a model looked: its modulators over the frames (mp4, PNG), its gates.

    Example: `effvid explain clip.mp4 --model run/model --output explanation/ --block 1`
    """
    from .pipelines.explain_video import explain as explain_video

    found = explain_video(
        video,
        model,
        output,
        block=block,
        device=device,
        window=window,
        stride=stride,
        start=start,
        end=end,
        multi_view=multi_view,
    )
    if as_json:
        _print_json(found)
        return
    for one in [found] if window is None else found:
        told = one["explanation"]
        print(f"{told['label']}  {told['score']:.3f}")
        for path in told["files"].values():
            print(f"  {path}")


@app.command()
def check(
    data: Annotated[str, typer.Argument(help="Folder of class folders, list file, metadata.csv, or data set id.")],
    depth: Annotated[str, typer.Option(help="How much of each file is decoded: probe, ends, full.")] = "ends",
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    min_frames: Annotated[int | None, typer.Option(help="Report videos with fewer frames.")] = None,
    picture: Annotated[
        Path | None, typer.Option(callback=_check_picture, help="Draw the report to this file (.png, .svg, .pdf).")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Decode in workers that a hostile file may crash.")
    ] = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Look a data set over before training on it: unreadable files, duplicates across splits, lengths, mirrored labels.

    Exit code 1 when something was found that spoils training or its numbers.

    Example: `effvid check my_videos/ --picture report.png`
    """
    from .data.doctor import check_dataset

    report = check_dataset(
        data,
        depth=depth,
        min_frames=min_frames,
        isolate=isolate,
        progress=_progress(quiet),
        **_list_options(root, multi_label, format, labels, skip_missing),
    )
    if picture is not None:
        report.plot(picture)
    if as_json:
        _print_json(report.to_dict())
    else:
        print(report.to_text())
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def train(
    data: Annotated[str, typer.Argument(help="Folder of class folders, list file, metadata.csv, or data set id.")],
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", help="Folder of the run.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Folder, Hub id, or preset such as video_focalnet:tiny.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Recipe file (YAML), see examples/configs.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a value: training.learning_rate=1e-3 (repeatable).")
    ] = None,
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    validation_share: Annotated[
        float | None,
        typer.Option(help="Share of each class to validate on when there is no such split; 0 for none; default: 0.2."),
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(callback=_check_positive, help="Passes over the training clips.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per step and device.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--lr", callback=_check_positive, help="Peak learning rate.")
    ] = None,
    lora: Annotated[int | None, typer.Option(min=1, help="Rank of LoRA adapters; the base stays frozen.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest complete checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete an earlier run in the folder.")] = False,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Train a video classifier on one's own videos; ends with a Hub folder in OUTPUT_DIR/model.

    Example: `effvid train my_videos/ --model video_focalnet:tiny --output-dir run --epochs 30 --batch-size 8`
    """
    from .training.classification import train_classifier
    from .training.recipe import load_recipe

    recipe = load_recipe(config, set_ or ())
    recipe.model = model or recipe.model
    flags = {
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "lora_r": lora,
        "seed": seed,
    }
    recipe.training.update({name: value for name, value in flags.items() if value is not None})
    # stdout is for the result; what the training loop prints goes to stderr
    with contextlib.redirect_stdout(sys.stderr):
        outcome = train_classifier(
            recipe.build_model_source(),
            data,
            output_dir=output_dir,
            processor=recipe.build_processor(),
            augmentation=recipe.build_augmentation(),
            cache=recipe.cache,
            validation_share=recipe.validation_share if validation_share is None else validation_share,
            args=recipe.training,
            resume=resume,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
            progress=not quiet,
            **recipe.data | _list_options(root, multi_label, format, labels, skip_missing),
        )
    if as_json:
        _print_json({name: value for name, value in outcome.to_dict().items() if name != "history"})


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of any Hugging Face video classifier.")],
    data: Annotated[str, typer.Argument(help="Folder of class folders, list file, metadata.csv, or data set id.")],
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "test",
    root: Root = None,
    format: Format = None,
    labels: Labels = None,
    skip_missing: SkipMissing = False,
    multi_label: MultiLabel = False,
    num_clips: Annotated[int | None, typer.Option(help="Clips per video; default: the recipe's.")] = None,
    num_crops: Annotated[int | None, typer.Option(help="Crops per clip; default: the recipe's.")] = None,
    batch_size: Annotated[int, typer.Option(help="Clips per forward pass.")] = 4,
    max_videos: Annotated[int | None, typer.Option(help="Only the first so many videos.")] = None,
    device: Device = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set in the results.")] = None,
    model_name: Annotated[str | None, typer.Option(help="Name of the checkpoint in the results.")] = None,
    variant: Annotated[str, typer.Option(help="What distinguishes this run, for the results.")] = "",
    frame_order: Annotated[
        str, typer.Option(help="natural, shuffled or reversed: does the order matter?")
    ] = "natural",
    seed: Annotated[int | None, typer.Option(help="Training seed of the checkpoint, for the results.")] = None,
    results: Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend.")] = None,
    confusion: Annotated[
        Path | None, typer.Option(callback=_check_picture, help="Draw the confusion matrix (.png, .svg, .pdf).")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Per-video predictions (.jsonl); makes the run resumable.")
    ] = None,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Measure accuracy with several views per video, with n and Wilson intervals.

    Example: `effvid evaluate run/model my_videos/ --split test --results results.json --confusion confusion.png`
    """
    from dataclasses import replace

    from .data.loading import load_video_dataset
    from .evaluation.classification import evaluate_classifier
    from .evaluation.results import add_results

    report = evaluate_classifier(
        model,
        load_video_dataset(data, split=split, **_list_options(root, multi_label, format, labels, skip_missing)),
        num_clips=num_clips,
        num_crops=num_crops,
        batch_size=batch_size,
        max_videos=max_videos,
        device=device,
        dataset_name=name,
        split=split,
        predictions_file=predictions,
        frame_order=frame_order,
        seed=seed,
        trust_remote_code=trust_remote_code,
        progress=_progress(quiet),
    )
    report.model_name = model_name or report.model_name
    # printed first: whatever cannot be written, the numbers are not lost
    if as_json:
        _print_json(report.to_dict())
    else:
        print(report.to_text())
    if results is not None:
        add_results(results, [replace(report.to_result_entry(), variant=variant)])
    if confusion is not None:
        report.plot_confusion(confusion)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: expected numbers, such as 1,8") from None


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(help="Folders or Hub ids of Hugging Face video classifiers.")],
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated clips per forward pass.")] = "1",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; 6 or more give a 95 % interval.")] = 10,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    dtype: Annotated[
        str, typer.Option(help="Comma-separated: float32, bfloat16, float16, bfloat16-autocast; every model in each.")
    ] = "float32",
    compile: Annotated[
        str, typer.Option(help="Comma-separated torch.compile modes: none, default, max-autotune, ...")
    ] = "none",
    device: Device = None,
    video: Annotated[str | None, typer.Option(help="Video whose decoding is timed; default: a generated one.")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="Model that speed-ups are relative to; default: the first.")
    ] = None,
    budget_ms: Annotated[float | None, typer.Option(help="Name the best setting within so many milliseconds.")] = None,
    accuracies: Annotated[
        list[Path] | None,
        typer.Option(help="Results file with the models' accuracies, for chart and budget (repeatable)."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set whose accuracies count, if there are several.")] = None,
    results: Annotated[Path | None, typer.Option(help="Results file (JSON) to write or extend.")] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Draw accuracy against time (PNG and SVG) to this file; needs --accuracies.")
    ] = None,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Do not measure memory in fresh processes.")] = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Measure parameters, multiply-accumulates, latency, throughput and memory of models on this machine.

    Example: `effvid bench run/model MCG-NJU/videomae-base-finetuned-kinetics --batch-sizes 1,8 --budget-ms 50`

    Example: `effvid bench run/model --dtype float32,bfloat16 --compile none,default`
    """
    from .evaluation.benchmark import benchmark
    from .evaluation.benchmark_budget import recorded_accuracies
    from .evaluation.benchmark_variants import in_every_form
    from .evaluation.results import ResultsFile, add_results

    if chart is not None and not accuracies:
        raise typer.BadParameter("a chart of accuracy against time needs --accuracies", param_hint="--chart")
    modes = [None if mode == "none" else mode for mode in compile.split(",")]
    variants = in_every_form(models, dtype.split(","), modes)
    known = [entry for path in accuracies or () for entry in ResultsFile.load(path).results]
    report = benchmark(
        variants,
        batch_sizes=_numbers(batch_sizes),
        rounds=rounds,
        threads=threads,
        accuracies=recorded_accuracies(known, [variant.name for variant in variants], dataset) if known else None,
        device=device,
        video=video,
        baseline=baseline,
        budget_ms=budget_ms,
        memory=not no_memory,
        progress=_progress(quiet),
    )
    if results is not None:
        add_results(results, report.to_result_entries())
    if chart is not None:
        report.plot_pareto(chart)
    if as_json:
        _print_json(ResultsFile(report.to_result_entries()).to_dict())
        return
    Console().print(report.to_table())
    if budget_ms is not None:
        print(report.best_under_budget(budget_ms).reason)


@app.command()
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Checkpoint file of the authors (.pth, .pt, .safetensors); with --from-image also a folder or Hub id."
        ),
    ],
    output_dir: Annotated[Path, typer.Argument(help="Folder to write.")],
    model_type: Annotated[str, typer.Option(help="Architecture.")] = "video_focalnet",
    preset: Annotated[str | None, typer.Option(help="Released size to insist on: tiny, small or base.")] = None,
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
    from .convert import convert_checkpoint, convert_image_focalnet

    options = {"id2label": labels, "horizontal_flip_safe": not directional}
    if from_image is None:
        folder = convert_checkpoint(source, output_dir, model_type=model_type, preset=preset, **options)
    else:
        folder = convert_image_focalnet(source, output_dir, start=from_image, **options)
    if as_json:
        _print_json({"folder": str(folder)})
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
    from .evaluation.results import add_results
    from .export import export_model, measure_accuracy

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
        progress=_progress(quiet),
    )
    if not as_json:
        Console().print(report.to_table())
    document, entries = report.to_dict(), report.to_result_entries(model_name)
    if evaluate is not None:
        from .data.loading import load_video_dataset

        accuracy = measure_accuracy(
            report,
            model,
            load_video_dataset(evaluate, split=split, **_list_options(root, multi_label)),
            max_videos=max_videos,
            dataset_name=name or Path(evaluate).name,
            model_name=model_name,
            split=split,
            seed=seed,
            trust_remote_code=trust_remote_code,
            progress=_progress(quiet),
        )
        document["accuracy"] = accuracy.to_dict()
        entries += accuracy.to_result_entries(variant)
        if not as_json:
            print(accuracy.to_text())
    if as_json:
        _print_json(document)
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
    from .hub.staging import stage_checkpoint

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
        _print_json({"folder": str(staged), "files": files})
    else:
        print(f"staged: {staged}")
        for name, size in files.items():
            print(f"  {size:>12,} B  {name}")


@app.command()
def verify(
    checkpoint: Annotated[str, typer.Argument(help="Staged folder or Hub id. Its code is executed.")],
    data: Annotated[
        str | None, typer.Option(help="Data set on which the recorded accuracy is measured again.")
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
    """Load a checkpoint in a fresh interpreter without this package, compare logits, run the stock pipeline, check the card.

    Example: `effvid verify staged/my-model --data my_videos/ --max-videos 50`
    """
    from .data.loading import load_video_dataset
    from .hub.verify import verify_checkpoint

    options = _list_options(root, multi_label, format, labels, skip_missing)
    videos = load_video_dataset(data, split=split, **options) if data is not None else None
    report = verify_checkpoint(
        checkpoint,
        videos,
        results=results,
        revision=revision,
        dataset_name=dataset_name,
        split=split if videos is not None else None,
        max_videos=max_videos,
        progress=_progress(quiet),
    )
    if as_json:
        _print_json(report.to_dict())
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
    from .hub.push import push_checkpoint

    outcome = push_checkpoint(
        folder, repo_id, dry_run=not really, private=not public, revision=revision, commit_message=message
    )
    if as_json:
        _print_json(outcome.to_dict())
    else:
        print(outcome.to_text())


def main() -> None:
    """Entry point: turns what a user did wrong into one line and exit code 1; everything else keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show is shown escaped
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get("EFFVID_DEBUG") == "1":
        app()
        return
    try:
        app()
    except BrokenPipeError:  # `effvid ... | head`: whoever read has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError, ImportError, KeyError, StrictDataclassError) as error:
        text = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
        print(f"effvid: {text or type(error).__name__}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("effvid: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
