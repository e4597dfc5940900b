"""What a model is worth and what it costs."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .application import app
from .options import (
    Device,
    ErrorPictures,
    Features,
    Format,
    JsonFlag,
    Labels,
    MultiLabel,
    Predictions,
    Quiet,
    RemoteCode,
    Root,
    SkipMissing,
    TaskName,
    Tious,
    VideoScores,
    check_picture,
    detection_options,
    list_options,
    numbers,
    print_json,
    show_progress,
    task_of_checkpoint,
)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="Folder or Hub id of any Hugging Face video classifier, or of a detector.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of class folders, list file, metadata.csv, or data set id; for detection annotations."
        ),
    ],
    split: Annotated[str, typer.Option(help="Split to evaluate on.")] = "test",
    task: TaskName = None,
    features: Features = None,
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
        Path | None, typer.Option(callback=check_picture, help="Draw the confusion matrix (.png, .svg, .pdf).")
    ] = None,
    predictions: Predictions = None,
    tious: Tious = "0.3,0.4,0.5,0.6,0.7",
    video_scores: VideoScores = None,
    errors: ErrorPictures = None,
    trust_remote_code: RemoteCode = False,
    as_json: JsonFlag = False,
    quiet: Quiet = False,
) -> None:
    """Measure accuracy with several views per video, with n and Wilson intervals; or mAP of a detector of actions.

    Example: `effvid evaluate run/model my_videos/ --split test --results results.json --confusion confusion.png`

    Example: `effvid evaluate run/model actions.csv --task detection --root my_videos/ --predictions found.json --errors errors/`
    """
    from dataclasses import replace

    from ..evaluation.results import add_results

    shared = {
        "batch_size": batch_size,
        "max_videos": max_videos,
        "device": device,
        "dataset_name": name,
        "split": split,
        "predictions_file": predictions,
        "seed": seed,
        "progress": show_progress(quiet),
    }
    detection = (task or task_of_checkpoint(model)) == "detection"
    if (confusion if detection else errors) is not None:
        raise typer.BadParameter("--confusion is for classifiers, --errors for detectors")
    if detection:
        annotations = detection_options(root, format, labels, skip_missing) | {"split": split}
        report = _detector_report(model, data, annotations, features, tious, video_scores, shared)
        report.report.model_name = model_name or report.report.model_name
    else:
        videos = list_options(root, multi_label, format, labels, skip_missing) | {"split": split}
        views = {"num_clips": num_clips, "num_crops": num_crops, "frame_order": frame_order}
        report = _classifier_report(model, data, videos, views | {"trust_remote_code": trust_remote_code} | shared)
        report.model_name = model_name or report.model_name
    # printed first: whatever cannot be written, the numbers are not lost
    if as_json:
        print_json(report.to_dict())
    else:
        print(report.to_text())
    if results is not None:
        add_results(results, [replace(report.to_result_entry(), variant=variant)])
    if confusion is not None:
        report.plot_confusion(confusion)
    if errors is not None:
        _draw_errors(report.report, errors)


def _classifier_report(model, data, videos, options):
    from ..data.loading import load_video_dataset
    from ..evaluation.benchmark_execution import resolve_device
    from ..evaluation.classification import evaluate_classifier

    options |= {"device": resolve_device(options["device"])}
    return evaluate_classifier(model, load_video_dataset(data, **videos), **options)


def _detector_report(model, data, annotations, features, tious, video_scores, options):
    from ..data.detection_annotations import load_detection_annotations
    from ..evaluation.detection import ACTIVITYNET_TIOUS
    from ..evaluation.detection_run import evaluate_detections
    from ..evaluation.video_scores import read_video_scores

    if features is not None:
        annotations = {"missing": "keep"} | annotations
    return evaluate_detections(
        model,
        load_detection_annotations(data, **annotations),
        features=None if features is None else _open_features(features, model),
        tious=ACTIVITYNET_TIOUS if tious == "activitynet" else numbers(tious, float),
        video_scores=None if video_scores is None else read_video_scores(video_scores),
        **options,
    )


def _open_features(folder, model):
    """Stored features; one file per video does not say what a feature is, but the detector's recipe does."""
    from ..data.feature_store import FeatureStore
    from ..host_processing import load_processor

    if (folder / "index.json").is_file():
        return FeatureStore.open(folder)
    recipe = load_processor(model)
    return FeatureStore.open(
        folder, stride=recipe.feature_stride, num_frames=recipe.feature_num_frames, fps=recipe.feature_fps
    )


def _draw_errors(report, folder):
    from ..evaluation.detection_charts import plot_errors
    from ..evaluation.detection_errors import analyze_detections

    analysis = analyze_detections(report)
    print(analysis.to_text(), file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    plot_errors(analysis, folder)


@app.command()
def bench(
    models: Annotated[
        list[str], typer.Argument(help="Folders or Hub ids of Hugging Face video classifiers, or of action detectors.")
    ],
    batch_sizes: Annotated[str, typer.Option(help="Comma-separated clips per forward pass.")] = "1",
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; 6 or more give a 95 % interval.")] = 10,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    clock: Annotated[
        str,
        typer.Option(help="wall, or processor: seconds computed, with --threads 1, where others use the machine too."),
    ] = "wall",
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

    Of action detectors: seconds of video per second, and the shares of decoding, backbone, head and post-processing.

    Example: `effvid bench run/model MCG-NJU/videomae-base-finetuned-kinetics --batch-sizes 1,8 --budget-ms 50`

    Example: `effvid bench run/model --dtype float32,bfloat16 --compile none,default`
    """
    from ..evaluation.benchmark import benchmark
    from ..evaluation.benchmark_budget import recorded_accuracies
    from ..evaluation.benchmark_detector import benchmark_detectors
    from ..evaluation.benchmark_variants import are_detectors, in_every_form
    from ..evaluation.results import ResultsFile

    sizes = numbers(batch_sizes)
    shared = {"rounds": rounds, "threads": threads, "device": device, "video": video, "clock": clock}
    shared["progress"] = show_progress(quiet)
    if are_detectors(models):
        told = {
            "--batch-sizes": sizes != (1,),
            "--compile": compile != "none",
            "--baseline": baseline,
            "--chart": chart,
        }
        told |= {"--budget-ms": budget_ms, "--accuracies": accuracies}
        if any(told.values()):
            raise typer.BadParameter("is for classifiers", param_hint=", ".join(name for name in told if told[name]))
        report = benchmark_detectors(in_every_form(models, dtype.split(","), [None]), **shared)
        _tell(report, results, as_json)
        return
    if chart is not None and not accuracies:
        raise typer.BadParameter("a chart of accuracy against time needs --accuracies", param_hint="--chart")
    modes = [None if mode == "none" else mode for mode in compile.split(",")]
    variants = in_every_form(models, dtype.split(","), modes)
    known = [entry for path in accuracies or () for entry in ResultsFile.load(path).results]
    report = benchmark(
        variants,
        batch_sizes=sizes,
        **shared,
        accuracies=recorded_accuracies(known, [variant.name for variant in variants], dataset) if known else None,
        baseline=baseline,
        budget_ms=budget_ms,
        memory=not no_memory,
    )
    if chart is not None:
        report.plot_pareto(chart)
    _tell(report, results, as_json)
    if budget_ms is not None and not as_json:
        print(report.best_under_budget(budget_ms).reason)


def _tell(report, results: Path | None, as_json: bool) -> None:
    """Results of a benchmark, to file and screen."""
    from ..evaluation.results import ResultsFile, add_results

    entries = report.to_result_entries()
    if results is not None:
        add_results(results, entries)
    if as_json:
        print_json(ResultsFile(entries).to_dict())
    else:
        Console().print(report.to_table())
