"""`progressive_block_drop`: from a trained classifier or detector to an ordinary one with fewer blocks, in one call.

Score, drop the least important block, align what is left to the uncompressed model, merge, judge on held-out videos, and again
("Temporal Action Detection Model Compression by Progressive Block Drop"). Every step starts from the folder that the one before it has
saved, so that a run that was killed ends where it would have, bit for bit.
"""

import sys

from tqdm.auto import tqdm

from .block_drop_data import open_compression_data
from .block_drop_opening import data_source, open_trained
from .block_drop_plan import plan_of
from .block_drop_recovery import recovery_arguments
from .block_drop_run import BlockDropRun
from .block_drop_settings import BlockDropSettings


OPENING_DEFAULTS = {
    "features": None,
    "processor": None,
    "augmentation": "light",
    "windows": None,
    "detection": None,
    "validation_share": 0.2,
    "split_seed": 0,
    "on_error": "skip",
    "cache": "ram",
}
RUN_OPTIONS = (*OPENING_DEFAULTS, "args", "seed", "trust_remote_code", "callbacks", "progress")


def progressive_block_drop(
    model,
    data,
    *,
    output_dir,
    features=None,
    processor=None,
    args=None,
    seed=0,
    augmentation="light",
    windows=None,
    detection=None,
    validation_share=0.2,
    split_seed=0,
    on_error="skip",
    cache="ram",
    resume=False,
    overwrite=False,
    trust_remote_code=False,
    callbacks=None,
    progress=True,
    settings=None,
    **options,
):
    """Drops the blocks of a trained model that matter least, and lets it recover after each.

    Args:
        model: a trained video classifier or detector, its folder or Hub id. It stays as it is.
        data: videos of the model's classes: for a classifier anything `load_video_dataset` takes, for a detector what
            `load_detection_annotations` takes; `"motion"` and `"streams"` are drawn (into `output_dir/data`). Needs a `train` split;
            steps are judged on the `validation` split or a held-out share. The `test` split is never touched.
        output_dir: folder of the run: `step-1/model`, `step-2/model`, ..., the result `model`, `compression.json` and `.md`,
            `block_drop.png` and `.svg`, for detectors `errors`.
        features: stored features, for a detector that takes them.
        processor: see `train_classifier` and `train_detector`.
        args: fields of `EffVidTrainingArguments` of one recovery, over `RECOVERY_ARGUMENTS`.
        seed: of all that is drawn, where `args` does not say.
        augmentation: of the clips or frames that the model recovers on.
        windows: see `train_detector`.
        detection: `train_split`, `validation_split`, `one_class` and `tious` of `train_detector`.
        validation_share: share of the training videos that is held out when there is no validation split.
        split_seed: seed of that choice; with the seed of `train_classifier` or `train_detector` the model has not seen the videos that it is
            judged on.
        on_error: `"skip"` leaves unreadable files out, `"raise"` stops at the first.
        cache: `"ram"` keeps decoded clips of a classifier in memory.
        resume: continue the run in `output_dir`: steps that are done are kept, and a recovery goes on from its newest checkpoint.
        overwrite: delete the run in `output_dir`.
        trust_remote_code: run model code that comes with a checkpoint.
        callbacks: further transformers callbacks of every recovery.
        progress: show progress bars and the final summary.
        settings: a `BlockDropSettings`, instead of its fields one by one.
        options: fields of `BlockDropSettings` (`drop`, `margin`, `order`, `criterion`, `tuning`, `align`, ...); all others are passed to
            `load_video_dataset` or `load_detection_annotations`.

    Returns:
        a `CompressionOutcome`.

    Raises:
        BlockDropError: model, data and settings do not fit, or `output_dir` holds another run.
        UnsupportedBlocksError: nobody knows where the blocks of this model are.
        CheckpointNotFound, RemoteCodeNeeded: the model cannot be opened.
    """
    run = open_run(
        model,
        data,
        output_dir,
        BlockDropSettings.taken_from(options, settings),
        features=features,
        processor=processor,
        args=args,
        seed=seed,
        augmentation=augmentation,
        windows=windows,
        detection=detection,
        validation_share=validation_share,
        split_seed=split_seed,
        on_error=on_error,
        cache=cache,
        trust_remote_code=trust_remote_code,
        callbacks=callbacks,
        progress=progress,
    )
    outcome = run.start(resume, overwrite)
    if run.progress:
        tqdm.write(outcome.summary(), file=sys.stderr)
    return outcome


def plan_block_drop(model, data, *, output_dir, settings=None, **options):
    """What `progressive_block_drop` would do: data, blocks, and what the model costs after every drop. Nothing is trained.

    Args:
        model, data, output_dir, settings, options: see `progressive_block_drop`. Generated data are written, to be counted.

    Returns:
        a `CompressionPlan`.
    """
    own = {name: options.pop(name) for name in list(options) if name in RUN_OPTIONS}
    return plan_of(open_run(model, data, output_dir, BlockDropSettings.taken_from(options, settings), **own))


def open_run(
    model, data, output_dir, told, *, args=None, seed=0, trust_remote_code=False, callbacks=None, progress=True, **options
):  # fmt: skip
    """A `BlockDropRun` that is ready to start.

    Args:
        told: (`BlockDropSettings`, options of loading).

    The others are those of `progressive_block_drop`.
    """
    settings, load_kwargs = told
    model, source = open_trained(model, settings.part, trust_remote_code), model
    if source is model:
        source = model.name_or_path or type(model).__name__
    is_detector = model.config.model_type == "actionformer"
    arguments = recovery_arguments(args, output_dir, "windows" if is_detector else "clips", seed, progress)
    opened = open_compression_data(
        model,
        data_source(data, f"{output_dir}/data", sorted(model.config.label2id), progress),
        settings,
        arguments=arguments,
        seed=arguments.seed,
        trust_remote_code=trust_remote_code,
        load_kwargs=load_kwargs,
        **OPENING_DEFAULTS | options,
    )
    return BlockDropRun(opened, settings, arguments, dict(args or {}), str(source), progress, callbacks)
