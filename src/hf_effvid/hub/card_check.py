"""Finds what is wrong with a model card: incomplete front matter, left-over placeholders, numbers nobody measured, code that does not compile."""

import re
from collections.abc import Sequence

import yaml
from huggingface_hub import ModelCardData

from ..evaluation.results import ResultEntry
from .card_info import CardError, check_hub_id
from .result_table import evaluation_results, result_rows
from .selection_results import own_results
from .speed_table import SPEED_HEADER, speed_rows


_REQUIRED = ("library_name", "pipeline_tag", "license", "tags")
_PLACEHOLDER = re.compile(
    r"\{\{|\{%|\bTODO\b|\bFIXME\b|\bTBD\b|\[?more information needed\]?|<your[^>]*>|your-username|lorem ipsum",
    re.I,
)
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\s*$", re.M | re.S)
_RESULT_HEADER = "| data set (split) |"


def card_problems(text: str, results: Sequence[ResultEntry] | None = None) -> list[str]:
    """What is wrong with a card, one sentence each; an empty list when nothing is.

    Args:
        text: the whole README.md.
        results: the results file the card must agree with; None checks only that the card agrees with itself (the front
            matter claims no more than the table shows).
    """
    try:
        data, body = split_card(text)
    except CardError as error:
        return [str(error)]
    problems = [f"front matter lacks {key}" for key in _REQUIRED if not data.get(key)]
    problems += _front_matter_problems(data)
    problems += [f"unresolved placeholder {m.group(0)!r}" for m in _PLACEHOLDER.finditer(_prose(body))]
    for key in ("license", "base_model", "datasets", "tags"):  # names of data sets and splits are a stranger's text
        problems += [f"{key} holds the placeholder {m.group(0)!r}" for m in _PLACEHOLDER.finditer(str(data.get(key)))]
    for language, code in _FENCE.findall(body):
        if language in ("python", "py"):
            problems += _code_problems(code)
    problems += _number_problems(data, body, results)
    return problems


def split_card(text: str) -> tuple[dict, str]:
    """The front matter as a dict, and the rest.

    Raises:
        CardError: there is no front matter, or it is not valid YAML.
    """
    match = re.match(r"---\r?\n(.*?)\r?\n---\r?\n", text, re.S)
    if not match:
        raise CardError("the card does not begin with front matter (--- ... ---).")
    try:
        data = yaml.safe_load(match.group(1))
    except yaml.YAMLError as error:
        raise CardError(f"the front matter is not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise CardError(f"the front matter must be a mapping, got {type(data).__name__}.")
    return data, text[match.end() :]


def card_rows(body: str, header: str = _RESULT_HEADER) -> list[str]:
    """The rows of the card's result table, or of the table with that header, without its two header lines."""
    lines = body.splitlines()
    start = next((number for number, line in enumerate(lines) if line.startswith(header)), None)
    if start is None:
        return []
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(line.rstrip())
    return rows


def _front_matter_problems(data: dict) -> list[str]:
    problems = []
    if data.get("library_name") not in (None, "transformers", "peft"):
        problems.append(
            f"library_name is {data['library_name']!r}, expected 'transformers' (or 'peft' for an adapter)"
        )
    if data.get("license") == "other" and not (data.get("license_name") and data.get("license_link")):
        problems.append("license 'other' needs license_name and license_link")
    if data.get("base_model_relation") and not data.get("base_model"):
        problems.append("base_model_relation without base_model")
    for key in ("base_model", "datasets"):
        values = data.get(key) or []
        for value in values if isinstance(values, list) else [values]:
            try:
                check_hub_id(value)
            except CardError as error:
                problems.append(f"{key}: {error}")
    try:
        ModelCardData(**data)
    except (ValueError, TypeError) as error:
        problems.append(f"the Hub's own reader refuses the front matter: {error}")
    return problems


def _code_problems(code: str) -> list[str]:
    try:
        compile(code, "<card>", "exec")
    except SyntaxError as error:
        return [f"a Python example does not compile, line {error.lineno}: {error.msg}"]
    return []


def _number_problems(data: dict, body: str, results: Sequence[ResultEntry] | None) -> list[str]:
    try:
        claimed = ModelCardData(**data).eval_results or []
    except (ValueError, TypeError):
        return []  # reported above
    rows = card_rows(body)
    claims = [(c.dataset_name, c.dataset_split, c.metric_name, c.metric_value) for c in claimed]
    if results is None:
        shown = {value for row in rows for value in re.findall(r"\d+\.\d%", row)}
        missing = [claim for claim in claims if f"{claim[3]:.1%}" not in shown]
        return [f"the front matter claims {claim}, which the table does not show" for claim in missing]
    results = own_results(results)
    expected_rows = [*result_rows(results), *speed_rows(results)]
    rows = [*rows, *card_rows(body, SPEED_HEADER)]
    problems = [f"the table lacks the result {row}" for row in expected_rows if row not in rows]
    problems += [
        f"the table shows a number that is not in the results file: {row}" for row in rows if row not in expected_rows
    ]
    expected = [(c.dataset_name, c.dataset_split, c.metric_name, c.metric_value) for c in evaluation_results(results)]
    problems += [f"the front matter lacks {claim}" for claim in expected if claim not in claims]
    problems += [
        f"the front matter claims {claim}, which is not in the results file"
        for claim in claims
        if claim not in expected
    ]
    return problems


def _prose(body: str) -> str:
    """Placeholders are looked for in the publisher's prose: a class may be called TODO, and braces in a command may be meant."""
    body = re.sub(r"^## Classes\n.*?(?=^## )", "", body, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", body))
