"""The learned scores of a study: LITE's selector, trained where the model brings none, and the variants of the paper's table 5."""

import json
import os
import shutil
from functools import partial
from pathlib import Path

from torch import nn

from ..compression import OracleSettings, UncheckableOracleError
from ..compression.token_faithfulness import REPORT_NAME, TokenFaithfulness
from ..evaluation.selection_report import LITE
from ..host_loading import load_video_classifier
from .selection_answers import file_name
from .token_selector import train_token_selector


VARIANTS = {
    "edges": {"variants": ("edges",)},
    "peaks": {"variants": ("peaks",)},
    "sharpen": {"variants": ("sharpen",)},
    "global": {"kind": "global"},
    "deep": {"kind": "deep"},
    "transformer": {"kind": "transformer"},
    "shuffled": {"shuffled": True},
}
"""Name -> what is other than in LITE itself. The last is a control: targets of other clips teach places, but no content."""

UNCHECKED_NAME = "not_checked.txt"
"""Beside a selector: why its oracle could not be checked on this host."""


def variant_arm(name: str) -> str:
    """What the arm of a variant is called."""
    return f"{LITE} ({name})"


def selector_sizes(hidden_size: int) -> list[int]:
    """Widths of a selector: 256 and 128 as elsewhere, but no wider than a small host, whose saving it would eat up."""
    return [min(256, hidden_size), min(128, max(hidden_size // 2, 1))]


def study_selectors(
    model,
    data,
    folder: str | os.PathLike,
    *,
    hidden_size: int,
    variants=(),
    own: nn.Module | None = None,
    oracle: OracleSettings | None = None,
    args: dict | None = None,
    processor=None,
    trust_remote_code: bool = False,
    progress: bool = True,
    **load_kwargs,
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Trains LITE's selector and its variants on the `train` split, or opens what an earlier run trained.

    The oracle is checked before LITE is trained; a study goes on when it fails the check, and says so.

    Args:
        model: the host, or a folder or Hub id.
        data: see `train_token_selector`.
        folder: `<folder>/<name>` is the run of each.
        hidden_size: of the host.
        variants: names of `VARIANTS`.
        own: a trained selector that the model brings: LITE is not trained again.
        oracle: what the targets are.
        args: fields of `EffVidTrainingArguments`.
        processor, trust_remote_code, progress, load_kwargs: see `train_token_selector`.

    Returns:
        `(selectors, told)`: arm -> trained selector, `lite` first, and arm -> what is known of its training, in words.

    """
    selectors, told = {}, {}
    if own is not None:
        selectors[LITE], told[LITE] = own, "the selector that came with the model"
    wanted = ([] if own is not None else [(LITE, {})]) + [(variant_arm(name), VARIANTS[name]) for name in variants]
    for arm, options in wanted:
        run = Path(folder) / file_name(arm)
        made_of = {
            "oracle": (oracle or OracleSettings()).to_dict(),
            "hidden_size": hidden_size,
            "args": args,
            **options,
        }
        if _begin(run, made_of):
            train = partial(
                train_token_selector,
                model,
                data,
                output_dir=run,
                oracle=oracle,
                hidden_sizes=selector_sizes(hidden_size),
                force=True,
                args=args,
                processor=processor,
                cache="ram",
                resume=True,
                trust_remote_code=trust_remote_code,
                progress=progress,
                **options,
                **load_kwargs,
            )
            _train(train, run, checked=arm == LITE)
        selectors[arm] = load_video_classifier(run / "model").selector
        told[arm] = _in_words(run)
    return selectors, told


def _train(train, run: Path, checked: bool) -> None:
    """Trains, after the check of the oracle where the host allows one; divided attention cannot leave single tokens out."""
    try:
        train(gate=checked)
    except UncheckableOracleError as error:
        (run / UNCHECKED_NAME).write_text(f"{error}\n", encoding="utf-8")
        train(gate=False)


def _begin(run: Path, made_of: dict) -> bool:
    """Whether there is something to train in a folder; what was made of something else is deleted."""
    file, made_of = run / "made_of.json", json.loads(json.dumps(made_of))
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) == made_of:
        return not (run / "training.json").is_file()
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    file.write_text(json.dumps(made_of, indent=1) + "\n", encoding="utf-8")
    return True


def _in_words(run: Path) -> str:
    metrics = json.loads((run / "training.json").read_text(encoding="utf-8")).get("metrics", {})
    shown = [f"{name} {metrics[name]:.3f}" for name in ("loss", "rank_correlation", "overlap") if name in metrics]
    words = "on validation clips: " + ", ".join(shown) if shown else "trained without validation clips"
    if (run / UNCHECKED_NAME).is_file():
        return (
            f"{words}; its oracle could not be checked: {(run / UNCHECKED_NAME).read_text(encoding='utf-8').strip()}"
        )
    if not (run / REPORT_NAME).is_file():
        return words
    failures = TokenFaithfulness.load(run).failures
    return f"{words}; its oracle {'FAILED the check: ' + '; '.join(failures) if failures else 'passed the check'}"
