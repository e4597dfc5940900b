"""Turns a model into a folder that is a Hub repository: self-contained, checked, and with nothing in it by accident."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..auto import complete_auto_map
from ..evaluation.cost import model_cost
from ..evaluation.results import ResultEntry, ResultsFile
from ..host_loading import is_adapter
from ..host_processing import load_processor, takes_videos
from .adapters import save_adapter
from .card_check import card_problems
from .card_info import CardError, CardInfo
from .compression_section import find_compression, save_compression, with_base
from .distillation_section import find_distillation, save_distillation, with_teachers
from .model_card import render_model_card
from .published_tasks import task_of, task_of_checkpoint
from .reference import reference_logits, reference_path
from .selection_section import find_selection_report
from .stage_files import CHART, StageError, file_kind, list_staged_files


def stage_checkpoint(
    model_or_path,
    folder: str | os.PathLike,
    processor=None,
    results=None,
    card=None,
    *,
    repo_id: str | None = None,
    chart: str | os.PathLike | None = None,
    overwrite: bool = False,
    reference: bool = True,
    trust_remote_code: bool = False,
    max_shard_size: str | int = "5GB",
) -> Path:
    """Writes a checkpoint folder that loads anywhere, with this package or without it.

    The folder holds `config.json` with a complete `auto_map` (a detector's also names its pipeline), safetensors, the
    processor's files, the code they need and the model card (for a trained token selector also the report of its oracle, for a model that lost blocks or had teachers the record of that), all readable (mode 0644), and
    nothing else: optimizer states, pickles and stray files of a training folder stay behind. It appears whole or not
    at all. Beside it, as `<folder>.reference.json`, staging leaves the answer of the original model to a fixed input,
    which `verify_checkpoint` compares with.

    Args:
        model_or_path: a video classifier, a PEFT model around one, a temporal action detector, or a folder or Hub id of these.
        folder: where to write.
        processor: the model's video processor; default: the one saved with the checkpoint.
        results: numbers for the card: a `ResultsFile`, a path of one, or a list of `ResultEntry`.
        card: `CardInfo`, a dict of its fields or a YAML file of them, or a path of a finished card (Markdown), which is
            taken as it is.
        repo_id: Hub id that the card's examples name; default: the name of the folder.
        chart: PNG of accuracy against time (`effvid bench --chart`), which the card shows.
        overwrite: replace the folder when it already holds a staged checkpoint.
        reference: record what the model answers to a fixed input.
        trust_remote_code: run model code that comes with the checkpoint; installed architectures never need it.
        max_shard_size: size above which weights are split.

    Returns:
        The folder.

    Raises:
        CheckpointNotFound, RemoteCodeNeeded: the model cannot be opened.
        StageError: the folder exists, or what would be published is not publishable; lists every reason.
        CardError: the card's fields do not fit.
        ResultsError: the results are not in the format.
    """
    folder = Path(folder)
    _check_target(folder, overwrite)
    entries = load_results(results)
    info, finished_card = _card_parts(card)
    model, processor = load_checkpoint(model_or_path, processor, trust_remote_code)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # a neighbour of the target, so that the last step is one rename on the same file system
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        task = task_of(model.config)
        asked, view = task.reference_input(model.config, processor), task.view(model.config, processor)
        logits = None
        if reference:
            logits = reference_logits(model, asked.shape, input_name=asked.name, outputs=task.outputs)
        if is_adapter(model):
            save_adapter(model, work, info.base_model)
        else:
            _save_model(model, work, max_shard_size)
        processor.save_pretrained(work)
        faithfulness = find_selection_report(model_or_path, model)
        if faithfulness is not None:
            faithfulness.save(work)
        compression = find_compression(model_or_path, model)
        if compression is not None:
            save_compression(compression, work)
            info = with_base(info, compression)
        distillation = find_distillation(model_or_path, model)
        if distillation is not None:
            save_distillation(distillation, work)
            info = with_teachers(info, distillation)
        text = finished_card or render_model_card(
            model.config,
            processor,
            repo_id=repo_id or folder.name,
            info=info,
            results=entries,
            cost=model_cost(model, view.shape, view.name),
            has_code=any(work.glob("*.py")),
            is_adapter=is_adapter(model),
            chart=CHART if chart is not None else None,
            faithfulness=faithfulness,
            compression=compression,
            distillation=distillation,
        )
        if chart is not None:
            shutil.copyfile(chart, work / CHART)
        problems = card_problems(text, entries)
        if problems:
            raise StageError(
                "\n".join(["the model card is not publishable:", *(f"  - {problem}" for problem in problems)])
            )
        (work / "README.md").write_text(text, encoding="utf-8")
        for path in work.iterdir():
            path.chmod(0o644)
        list_staged_files(work)
        _put_in_place(work, folder)
        reference_path(folder).unlink(missing_ok=True)
        if logits is not None:
            logits.save(reference_path(folder))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def load_checkpoint(model_or_path, processor=None, trust_remote_code=False):
    """A model (full or PEFT) and its processor, each given or loaded from where the model is.

    Args:
        model_or_path: a model, or a folder or Hub id.
        processor: a processor, a folder or Hub id of one, or None.
        trust_remote_code: run code that comes with the checkpoint.

    Returns:
        `(model, processor)`.

    Raises:
        CheckpointNotFound, RemoteCodeNeeded: the model cannot be opened.
        StageError: there is no video processor to find.
    """
    source = model_or_path
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
        model = task_of_checkpoint(source).load_model(source, trust_remote_code)
    else:
        model = getattr(model_or_path, "_orig_mod", model_or_path)  # torch.compile wraps; the wrapper cannot be saved
        source = getattr(model, "name_or_path", None) or None
    if isinstance(processor, (str, os.PathLike)):
        source, processor = os.fspath(processor), None
    if processor is None:
        if source is None:
            raise StageError(
                "the model was not loaded from a checkpoint: pass its processor, without it nobody can use it."
            )
        processor = load_processor(source, trust_remote_code=trust_remote_code)
        if not takes_videos(processor):
            raise StageError(
                f"{source} holds no video processor, only a {type(processor).__name__}: pass "
                "processor=with_recipe(load_processor(...), model.config), or another video processor."
            )
    return model, processor


def load_results(results) -> list[ResultEntry]:
    """The entries of a results file, a path of one, or a list; None gives none."""
    if results is None:
        return []
    if isinstance(results, (str, os.PathLike)):
        return ResultsFile.load(results).results
    if isinstance(results, ResultsFile):
        return results.results
    if isinstance(results, Sequence) and all(isinstance(entry, ResultEntry) for entry in results):
        return list(results)
    raise TypeError(f"results must be a ResultsFile, a path or a list of ResultEntry, got {type(results).__name__}.")


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if folder.is_symlink() or not folder.is_dir():
        raise StageError(f"{folder} exists and is no folder.")
    entries = sorted(path.name for path in folder.iterdir())
    if not entries:
        return
    if not overwrite:
        raise StageError(
            f"{folder} exists. Choose another folder, or pass overwrite=True to replace the checkpoint in it."
        )
    # replacing means deleting: only what staging itself could have written
    foreign = [name for name in entries if file_kind(name) is None]
    if foreign or not {"config.json", "adapter_config.json"} & set(entries):
        raise StageError(
            f"{folder} holds no staged checkpoint ({', '.join(foreign[:5] or entries[:5])}): not replaced."
        )


def _card_parts(card) -> tuple[CardInfo, str | None]:
    if card is None:
        return CardInfo(), None
    if isinstance(card, CardInfo):
        return card, None
    if isinstance(card, dict):
        return CardInfo.from_dict(card), None
    if not isinstance(card, (str, os.PathLike)) or not Path(card).is_file():
        raise CardError(
            f"card must be a CardInfo, a dict of its fields or the path of a .yaml or .md file, got {card!r}."
        )
    try:
        text = Path(card).read_text(encoding="utf-8")
        if Path(card).suffix not in (".yaml", ".yml"):
            return CardInfo(), text
        fields = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CardError(f"{card}: not readable as text and YAML ({' '.join(str(error).split())[:200]}).") from error
    if not isinstance(fields, dict):
        raise CardError(f"{card}: expected the fields of a card, got {type(fields).__name__}.")
    return CardInfo.from_dict(fields), None


def _save_model(model, folder: Path, max_shard_size) -> None:
    config = model.config
    complete_auto_map(config)
    # one that came with a checkpoint is not ours to publish: its code is not copied. A detector of ours names its own again
    if hasattr(config, "custom_pipelines"):
        del config.custom_pipelines
    trunk = getattr(config, "backbone_config", None)
    if isinstance(getattr(trunk, "name_or_path", None), str):
        trunk.name_or_path = ""  # where the publisher had the trunk from; its weights are in the folder
    model.save_pretrained(folder, max_shard_size=max_shard_size)


def _put_in_place(work: Path, folder: Path) -> None:
    work.chmod(0o755)
    if not folder.exists():
        os.rename(work, folder)
        return
    retired = folder.with_name(f".{folder.name}.replaced-{os.getpid()}")
    os.rename(folder, retired)
    os.rename(work, folder)
    shutil.rmtree(retired)
