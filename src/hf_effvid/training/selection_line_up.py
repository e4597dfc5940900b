"""Which arms take part in a study: all that host, videos and settings allow, and a note for each that they do not."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from ..compression import oracle_importance
from ..evaluation.selection_report import LITE, StudyError
from ..models.merging_videomae import MERGING_METHODS
from .budget_measuring import ClipReading
from .selection_adaptive import ADAPTIVE, adaptive_arm
from .selection_answers import StudyClips
from .selection_arms import (
    MERGING_NAMES,
    Arm,
    ArmUnavailable,
    FullArm,
    ScoreArm,
    attention_arm,
    merging_arm,
    motion_vector_arm,
    oracle_arms,
    score_arms,
    selector_arms,
)
from .selection_costs import arm_costs
from .selection_inputs import INPUT_ARMS, input_arm
from .selection_settings import StudySettings


def line_up(host, processor, clips: StudyClips, settings: StudySettings, selectors, prior, notes) -> list[Arm]:
    """Every arm whose numbers do not depend on the cost of another."""
    arms = [FullArm(host), *score_arms(host, settings.draws, prior)]
    arms += _tried(
        "motion_vectors", lambda: motion_vector_arm(host, processor, clips.rows[0]["video"]), settings, notes
    )
    if selectors:
        arms += selector_arms(host, selectors)
    elif settings.wants(LITE):
        notes.append("no selector was trained, so that there is no arm 'lite'.")
    arms += [attention_arm(host), *oracle_arms(host, settings.oracle)]
    for name in INPUT_ARMS:
        arms += _tried(name, lambda name=name: input_arm(host, name, settings.keep_ratios), settings, notes)
    return [arm for arm in arms if settings.wants(arm.name)]


def adaptive(arms, processor, data, settings: StudySettings, clip, device, load_kwargs, notes, progress) -> list[Arm]:
    """LITE++ on the arm of LITE, if there is one."""
    lite = next((arm for arm in arms if arm.name == LITE), None)
    if lite is None:
        return []
    reading = ClipReading(
        batch_size=settings.batch_size, num_workers=settings.num_workers, device=device, progress=progress
    )
    options = {"reading": reading, "max_probe_videos": settings.probe_videos, **load_kwargs}
    shape = tuple(clip.shape)
    build = partial(adaptive_arm, lite.host, processor, data, settings.keep_ratios, shape, **options)
    return _tried(ADAPTIVE, build, settings, notes)


def mergers(host, settings: StudySettings, clip, notes: list[str]) -> list[Arm]:
    """Merging at the cost of a selection that looks at all embeddings, as LITE does."""
    if not any(settings.wants(name) for name in MERGING_NAMES.values()):
        return []
    selection = ScoreArm("all embedded", "score", host=host, scorer="embedding_norm")
    costs = arm_costs([selection], settings.keep_ratios, clip, rounds=0, progress=False)
    budgets = {ratio: cost.gmacs for (_, ratio), cost in costs.items() if cost.gmacs is not None}
    arms = []
    for method in MERGING_METHODS:
        arms += _tried(
            MERGING_NAMES[method], lambda method=method: merging_arm(host, method, budgets), settings, notes
        )
    for arm in arms:
        beyond = [f"{ratio:g}" for ratio in budgets if not arm.reaches(ratio)]
        if beyond:
            notes.append(f"{arm.name} cannot be as cheap as a selection at P = {', '.join(beyond)} on this model.")
    return arms


def _tried(name: str, build, settings: StudySettings, notes: list[str]) -> list[Arm]:
    """The arm, or nothing and a note where this host or these videos do not allow it."""
    if not settings.wants(name):
        return []
    try:
        return [build()]
    except ArmUnavailable as error:
        notes.append(f"{name} was left out: {error}")
        return []


def position_prior(host, clips_of, settings: StudySettings, file: Path, identity: dict, notes) -> list[float] | None:
    """The mean of the oracle's maps over training videos: what a selection that ignores the content can know.

    Args:
        host: the Lite model.
        clips_of: `(split, max_videos) -> StudyClips`.
        settings: how many videos, and what the oracle reads.
        file: where the values are kept, for a study that is started again.
        identity: what they depend on.
        notes: gets a line where there are no training videos.

    Returns:
        (N,) values, or None.
    """
    if not settings.prior_videos or not settings.wants("position_prior"):
        return None
    oracle = settings.oracle.to_dict()
    made_of = json.loads(json.dumps({"identity": identity, "videos": settings.prior_videos, "oracle": oracle}))
    if file.is_file():
        known = json.loads(file.read_text(encoding="utf-8"))
        if known["made_of"] == made_of:
            return known["values"]
    try:
        values = _mean_values(host, clips_of("train", None), settings)
    except ValueError as error:
        notes.append(f"position_prior was left out: {error}")
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"made_of": made_of, "values": values}) + "\n", encoding="utf-8")
    return values


def _mean_values(host, clips: StudyClips, settings: StudySettings) -> list[float]:
    predicted = replace(settings.oracle, label_source="predicted")
    # spread over the split, whose classes follow each other
    step = max(1, len(clips.rows) // settings.prior_videos)
    skipped = {index for index in range(len(clips.rows)) if index % step}
    total, count = 0.0, 0
    for videos in clips.batches(skip=skipped):
        readable = [video for video in videos if video.error is None]
        if readable:
            maps = oracle_importance(host, clips.as_batch(readable).pixel_values, None, predicted).targets
            total, count = total + maps.sum(0).double().cpu(), count + len(maps)
    if not count:
        raise StudyError("no training video could be read.")
    return (total / count).tolist()
