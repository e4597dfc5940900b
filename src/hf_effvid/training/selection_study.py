"""`study_token_selection`: what every way to spend fewer tokens costs one's own model, on one's own videos.

The folder of a study holds

    report.json          every number, with what each video got (`SelectionReport.load`)
    tables.md            accuracy, paired differences to random tokens, cost, leak of labels, spread of value, easy and hard classes
    accuracy, token_values, classes .png .svg     figures 2, 3 and 5 of LITE for this model
    values_on_frames.png, kept_on_frames.png      figures 4 and 7
    arms/, costs.json, token_values.jsonl, position_prior.json     what was computed, for whoever starts the study again
"""

import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from ..compression import oracle_importance
from ..compression.host_selection import select_tokens
from ..data.loading import load_video_dataset
from ..evaluation.clips import RowLoader
from ..evaluation.labels import LabelMap
from ..evaluation.opening import evaluation_identity, evaluation_mode, load_classifier, model_name, open_rows
from ..evaluation.protocol import describe_protocol
from ..evaluation.provenance import current_provenance
from ..evaluation.selection_charts import plot_study
from ..evaluation.selection_report import FULL, LITE, ORACLE_PREDICTED, SelectionReport, StudyError
from ..evaluation.selection_tables import markdown
from ..host_processing import holds_recipe
from .selection_answers import StudyClips, StudyLogs, arm_results, run_arms
from .selection_arms import REVERSED, clip_patch
from .selection_costs import arm_costs
from .selection_examples import draw_examples
from .selection_line_up import adaptive, line_up, mergers, position_prior
from .selection_selectors import study_selectors, variant_arm
from .selection_settings import StudySettings


def study_token_selection(
    model,
    data,
    output_dir: str | os.PathLike,
    settings: StudySettings | None = None,
    *,
    processor=None,
    split: str = "test",
    dataset_name: str | None = None,
    name: str | None = None,
    seed: int | None = None,
    device=None,
    command: str | None = None,
    trust_remote_code: bool = False,
    progress: bool = True,
    **load_kwargs,
) -> SelectionReport:
    """Compares scorers, mergers, fewer frames and smaller frames at equal budgets, and takes the oracle apart.

    One view per video. Unreadable videos are left out and counted.

    Args:
        model: a classifier that `select_tokens` knows, or a Lite one, or a folder or Hub id of one.
        data: what `load_video_dataset` takes: a folder, a list file, a data set id. Its `train` split gives the position prior.
        output_dir: folder of the study; one that was begun with the same model and videos is continued.
        settings: what is compared; None compares everything.
        processor: default: the one saved with the model.
        split: split to study on.
        dataset_name, name: of data set and model, in the results.
        seed: training seed of the model, for the results.
        device: torch device; default: a GPU if there is one.
        command: recorded as the command; default: this process's command line.
        trust_remote_code: run model code that comes with the checkpoint.
        progress: show progress bars.
        load_kwargs: passed to `load_video_dataset`.

    Returns:
        The report; its tables and pictures are in `output_dir`.

    Raises:
        StudyError: the model takes several labels per video, or no video could be read.
        CheckpointNotFound, LabelMismatchError, PredictionLogError: see `evaluate_classifier`.
    """
    settings, folder = settings or StudySettings(), Path(output_dir)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    opened, processor = load_classifier(model, processor, trust_remote_code)
    if opened.config.problem_type == "multi_label_classification":
        raise StudyError("a study needs one class per video, this model gives several labels.")
    host = as_lite(opened)
    clips_of = partial(_clips, host, processor, data, settings, device, load_kwargs)
    clips = clips_of(split, settings.max_videos)
    seen = describe_protocol(processor, multi_view=False)
    dataset_name = dataset_name or Path(str(data)).name
    # of the model as it was given: a stock one has just got a selector that is drawn anew each time
    identity = evaluation_identity(opened, seen, clips.rows, dataset_name, split)
    protocol = seen | {"oracle": settings.oracle.to_dict(), "draws": settings.draws}
    notes: list[str] = []
    selectors, told = _selectors(
        model, opened, processor, data, settings, folder, trust_remote_code, progress, load_kwargs
    )
    with evaluation_mode(host, device):
        prior = position_prior(host, clips_of, settings, folder / "position_prior.json", identity, notes)
        arms = line_up(host, processor, clips, settings, selectors, prior, notes)
        clip = _first_clip(clips)
        arms += mergers(host, settings, clip, notes)
        arms += adaptive(arms, processor, data, settings, clip, device, load_kwargs, notes, progress)
        costs = arm_costs(
            arms, settings.keep_ratios, clip.expand(settings.timing_batch, -1, -1, -1, -1).contiguous(),
            rounds=settings.timing_rounds, cache=folder / "costs.json", identity=identity, progress=progress,
        )  # fmt: skip
        value_of = _value_of(host, settings)
        with StudyLogs(folder, arms, settings.keep_ratios, identity) as logs:
            run_arms(arms, clips, logs, settings.keep_ratios, value_of, progress)
            report = _report(
                arms, logs, clips, costs, model_name=name or model_name(opened), dataset_name=dataset_name, split=split,
                protocol=protocol, notes=notes, selector=told, provenance=current_provenance(
                    command, seed=seed, dtype=str(host.dtype).removeprefix("torch."), device=device),
            )  # fmt: skip
        write_report(report, folder)
        draw_examples(folder, arms, clips, processor, clip_patch(host).grid, settings, value_of)
    return report


def study_models(models, data, output_dir, settings=None, *, overwrite=False, seed=None, **options) -> SelectionReport:
    """`study_token_selection` of one model, or of several training seeds of one model, which are averaged video by video.

    Args:
        models: one folder or Hub id or more; several are studied in `<output_dir>/0`, `1`, ...
        data, output_dir, settings, options: see `study_token_selection`.
        overwrite: delete what an earlier study left in `output_dir`.
        seed: of the first model; the others count on.
    """
    folder = Path(output_dir)
    if overwrite:
        for place in (folder, *(folder / str(place) for place in range(len(models)))):
            _forget(place)
    if len(models) == 1:
        return study_token_selection(models[0], data, folder, settings, seed=seed, **options)
    reports = []
    for place, model in enumerate(models):
        of_model = None if seed is None else seed + place
        reports.append(study_token_selection(model, data, folder / str(place), settings, seed=of_model, **options))
    report = SelectionReport.mean_of(reports)
    write_report(report, folder)
    return report


def _forget(folder: Path) -> None:
    """Deletes what a study computed in a folder, and nothing else."""
    for name in ("arms", "selectors"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("costs.json", "token_values.jsonl", "position_prior.json", "report.json"):
        (folder / name).unlink(missing_ok=True)


def as_lite(model):
    """A model whose tokens can be selected: the same weights, with all of its tokens until it is told otherwise."""
    if model.config.model_type.startswith("lite_"):
        return model
    return select_tokens(model, keep_ratio=1.0, scorer="random")


def write_report(report: SelectionReport, folder: str | os.PathLike) -> None:
    """Numbers, tables and charts of a report, into a folder."""
    folder = Path(folder)
    report.save(folder / "report.json")
    (folder / "tables.md").write_text(markdown(report), encoding="utf-8")
    plot_study(report, folder)


# ---- steps -----------------------------------------------------------------------------------------------------------------


def _clips(host, processor, data, settings: StudySettings, device, load_kwargs, split, max_videos) -> StudyClips:
    rows, class_names = open_rows(load_video_dataset(data, split=split, **load_kwargs), "video", "label")
    return StudyClips(
        rows=rows,
        load=RowLoader(processor, {"multi_view": False}, "video", "label"),
        to_class=LabelMap(host.config.id2label, class_names),
        max_videos=max_videos,
        num_workers=settings.num_workers,
        batch_size=settings.batch_size,
        device=device,
        dtype=host.dtype,
    )


def _selectors(
    model, opened, processor, data, settings: StudySettings, folder, trust_remote_code, progress, load_kwargs
):
    """The trained selectors by arm, and what is known of them; none where none is wanted."""
    own = getattr(opened, "selector", None) if getattr(opened.config, "selector_trained", False) else None
    if own is None and not settings.train_selector:
        return {}, {}
    learned = (LITE, REVERSED, *map(variant_arm, settings.variants))
    if not any(settings.wants(name) for name in learned):
        return {}, {}
    return study_selectors(
        model,
        data,
        folder / "selectors",
        hidden_size=opened.config.hidden_size,
        variants=settings.variants,
        own=own,
        oracle=settings.oracle,
        args={"report_to": "none", **settings.selector_args},
        processor=processor if holds_recipe(processor) else None,
        trust_remote_code=trust_remote_code,
        progress=progress,
        **load_kwargs,
    )


def _first_clip(clips: StudyClips) -> torch.Tensor:
    """(1, T, C, H, W): the first video that can be read."""
    errors = []
    for videos in clips.batches(skip=set()):
        for video in videos:
            if video.error is None:
                return clips.as_batch([video]).pixel_values
            errors.append(video.error)
    raise StudyError(
        f"not one of {len(errors)} videos could be read; the first error: {errors[0] if errors else 'none'}"
    )


def _value_of(host, settings: StudySettings):
    """Values of tokens for the label that the host itself predicts: nothing leaks into their spread."""
    predicted = replace(settings.oracle, label_source="predicted")
    if not settings.wants(ORACLE_PREDICTED):
        return None
    return lambda batch: oracle_importance(host, batch.pixel_values, None, predicted).scores


def _report(arms, logs: StudyLogs, clips: StudyClips, costs, *, notes, **named) -> SelectionReport:
    first = logs.arms[FULL]
    within = [index for index in sorted(first.done) if index < len(clips)]
    indices = [index for index in within if first.done[index].error is None]
    names = clips.to_class.names
    results = [one for arm in arms for one in arm_results(arm, logs.arms[arm.name], indices, len(names), costs)]
    return SelectionReport(
        sources=[first.done[index].source for index in indices],
        labels=[first.done[index].label for index in indices],
        class_names=names,
        results=results,
        values=[logs.values.done[index] for index in indices if index in logs.values.done],
        num_failed=len(within) - len(indices),
        notes=notes,
        **named,
    )
