"""The section of a model card about token selection: what is kept, how the whole host opens, and whether the selector's teacher can be trusted."""

import json
import os
from pathlib import Path

from transformers import AutoModelForVideoClassification

from ..auto import find_architecture
from ..compression.token_faithfulness import REPORT_NAME, TokenFaithfulness
from ..models.token_budget import BudgetPolicy
from .escaping import escape_code, escape_markdown
from .selection_results import study_lines


def find_selection_report(model_or_path, model) -> TokenFaithfulness | None:
    """The report that training a selector left beside a checkpoint.

    Args:
        model_or_path: what is staged; a folder, an id or a model.
        model: the opened model.

    Returns:
        None when there is no folder, or no report in it.
    """
    for source in (model_or_path, getattr(model, "name_or_path", None)):
        if isinstance(source, (str, os.PathLike)) and source and Path(source, REPORT_NAME).is_file():
            return TokenFaithfulness.load(source)
    return None


def selection_section(config, report: TokenFaithfulness | None, repo_id: str, results=()) -> str | None:
    """Markdown of the section, None for a model that keeps all of its tokens by construction.

    Args:
        config: the model's configuration.
        report: of the check of the oracle that the selector learned from.
        repo_id: the id that the code examples use.
        results: entries of a study of token selection become a table; others are passed over.
    """
    architecture = find_architecture(config.model_type)
    if architecture is None or not hasattr(config, "keep_ratio"):
        return None
    lite = architecture.models[AutoModelForVideoClassification].__name__
    stock, literal = lite.removeprefix("Lite"), json.dumps(repo_id)
    if config.scorer != "lite":
        chooser = f"by the score {escape_code(config.scorer)}, which has no weights"
    elif config.selector_trained:
        chooser = "by a learned selector (LITE), which looks at the embedding of each token"
    else:
        chooser = "by a selector that was **not trained**, that is, arbitrarily"
    kept = "all tokens" if config.keep_ratio == 1 else f"{config.keep_ratio:.0%} of the tokens, chosen {chooser}"
    lines = [
        "## Token selection",
        "",
        f"As saved, the model reads {kept} (`keep_ratio={config.keep_ratio}`, `scorer={json.dumps(config.scorer)}`). The rest is left out before "
        f"the first block. Any other share can be asked for, and the weights of the whole host are in the same file: {stock} of "
        "transformers opens them and ignores `selector.*`.",
        "",
        "```python",
        f"from hf_effvid import {lite}",
        f"from transformers import {stock}",
        "",
        f"half = {lite}.from_pretrained({literal}, keep_ratio=0.5)",
        f"whole = {stock}.from_pretrained({literal})",
        "```",
    ]
    if config.budget_policy:
        lines += ["", _budget_line(config)]
    study = study_lines(results)
    lines += ["", *study] if study else []
    if report is not None:
        lines += ["", *_report_lines(report)]
    elif config.scorer == "lite" and config.selector_trained:
        lines += ["", "No report says whether the oracle that the selector learned from was checked."]
    return "\n".join(lines)


def _budget_line(config) -> str:
    policy = BudgetPolicy(**config.budget_policy)
    named = escape_code(policy.gauge_model) if policy.gauge_model else "of the user"
    gauge = {
        "probe": "a linear probe on its patch embeddings, which is part of the weights,",
        "cascade": "the model itself at the small budget",
        "model": f"another classifier ({named}), which is not part of this repository (`load_budget_gauge(name)`),",
    }[policy.gauge]
    return (
        f"Clips have budgets of their own (LITE++): {policy.easy_ratio(config.keep_ratio):.0%} of the tokens where {gauge} is less than "
        f"{policy.low:.1%} or more than {policy.high:.1%} sure of the class, the share above otherwise. A `keep_ratio` that is passed in a call "
        "holds for all clips."
    )


def _report_lines(report: TokenFaithfulness) -> list[str]:
    oracle, rank = report.oracle, report.rank_correlation
    verdict = "passed its check" if report.passed else "**failed its check**"
    lines = [
        f"The selector learned from an oracle (Grad-CAM at {escape_code(oracle['oracle_tensor'])} of block {int(oracle['oracle_block'])}, "
        f"{escape_markdown(oracle['label_source'])} label) that {verdict} on {rank.n} clips:",
        "",
        "| check | mean over clips | 95 % interval | needed |",
        "| --- | --- | --- | --- |",
        f"| rank correlation with leave-one-out deletion | {rank.value:.2f} | {rank.low:.2f} to {rank.high:.2f} | above 0.2 |",
    ]
    for name, gain in (("insertion", report.insertion_gain), ("deletion", report.deletion_gain)):
        lines.append(
            f"| {name} curve, gain over random tokens | {gain.value:+.3f} | {gain.low:+.3f} to {gain.high:+.3f} | above 0 |"
        )
    if report.forced:
        lines += [
            "",
            "It was trained on all the same, on the publisher's wish: expect no more than from random tokens.",
        ]
    if report.selection:
        lines += [
            "",
            "An oracle that knows the label can pass it on to the model. On the same clips, share of right answers by its tokens:",
            "",
            "| tokens kept | all tokens | random | predicted label | true label | leak (true - predicted) | says a wrong label it was given |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
        for ratio, found in report.selection.items():
            leak = found["leak"]
            lines.append(
                f"| {float(ratio):.0%} | {report.full_accuracy:.3f} | {found['random']:.3f} | {found['predicted']:.3f} | {found['true']:.3f} | "
                f"{leak['value']:+.3f} [{leak['low']:+.3f}, {leak['high']:+.3f}] | {found['says_wrong']:.3f} (unasked "
                f"{report.says_wrong_unasked:.3f}) |"
            )
    return lines
