"""Writes the model card of a checkpoint: measured numbers from a results file, everything else from `CardInfo` and the config."""

import json
from collections.abc import Sequence
from importlib import resources

from huggingface_hub import ModelCardData
from jinja2 import Environment, StrictUndefined

from ..evaluation.results import Cost, ResultEntry
from .architecture_notes import architecture_notes
from .card_info import CardInfo, check_hub_id
from .citations import BLOCK_DROP, DISTILLATION, citation_of
from .compression_section import compression_section
from .distillation_section import distillation_section
from .escaping import escape_code, escape_markdown
from .published_task import NOT_RECORDED, PublishedTask
from .published_tasks import task_of
from .result_table import cost_facts, evaluation_results, metric_ids, protocol_header, result_notes, result_rows
from .selection_results import own_results
from .selection_section import selection_section
from .speed_table import SPEED_HEADER, own_costs, speed_notes, speed_rows


TEMPLATE = "templates/model_card.md"
_MAX_CLASSES_LISTED = 60


def template_text(name: str = TEMPLATE) -> str:
    """The template that ships with the package, or a part of it."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def render_model_card(
    config,
    processor,
    *,
    repo_id: str,
    info: CardInfo | None = None,
    results: Sequence[ResultEntry] = (),
    cost: Cost | None = None,
    has_code: bool = True,
    is_adapter: bool = False,
    chart: str | None = None,
    faithfulness=None,
    compression=None,
    distillation=None,
) -> str:
    """The README.md of a checkpoint repository.

    Args:
        config: configuration of the model; its class names are treated as a stranger's text.
        processor: the video processor, whose recipe is described.
        repo_id: the id the code examples use.
        info: what the publisher says.
        results: measured and quoted accuracies, and entries of `effvid bench`, also of the models it was compared with;
            without any the card says `not measured`. Entries that bear the name of the repository are its own.
        cost: parameters and GMACs per view, where no result states them.
        has_code: whether the repository ships Python code.
        is_adapter: whether it holds a PEFT adapter instead of a whole model.
        chart: file in the repository that shows accuracy against time.
        faithfulness: `TokenFaithfulness` of the oracle that a token selector learned from.
        compression: `CompressionOutcome` of the run that dropped blocks.
        distillation: `DistillationRecord` of the run in which teachers taught the model.

    Returns:
        The whole file.

    Raises:
        CardError: the repository id is none.
    """
    info = info or CardInfo()
    everything, results = list(results), own_results(results)
    check_hub_id(repo_id)
    name, task = repo_id.rsplit("/", 1)[-1], task_of(config)
    names = {
        "repo_literal": json.dumps(repo_id),
        "has_code": has_code,
        "is_adapter": is_adapter,
        "trust": ", trust_remote_code=True" if has_code else "",
        "activation": "sigmoid()" if config.problem_type == "multi_label_classification" else "softmax(-1)",
    }
    environment = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    return environment.from_string(template_text()).render(
        front_matter=front_matter(config, info, results, name, is_adapter),
        title=escape_markdown(info.title or name),
        summary=info.summary or task.summary(config),
        facts=_facts(config, info, own_costs(results, name), cost, task),
        protocol_header=protocol_header(task.name),
        result_rows=result_rows(results),
        result_notes=result_notes(results),
        speed_header=SPEED_HEADER,
        speed_rows=speed_rows(results),
        speed_notes=speed_notes(results),
        chart=chart,
        selection=selection_section(config, faithfulness, repo_id, everything),
        compression=compression_section(compression, config),
        distillation=distillation_section(distillation, everything),
        usage=environment.from_string(template_text(f"templates/{task.usage}")).render(names).strip(),
        recipe=task.recipe(config, processor),
        architecture=architecture_notes(
            config,
            converted=bool(info.source_url) or any(entry.quoted for entry in results),
            processor=processor,
        ),
        training=_training(info),
        classes=_classes(config),
        limitations=[*info.limitations, *task.default_limitations, *_flip_note(processor)],
        intended_use=info.intended_use or task.default_intended_use,
        licence=_licence(info),
        citation=info.citation or _citation(config, compression, distillation),
    )


def front_matter(config, info: CardInfo, results: list[ResultEntry], name: str, is_adapter: bool = False) -> str:
    """The YAML block, written by a YAML library: no value can break out of its place."""
    evaluations, task = evaluation_results(results), task_of(config)
    tags = ["hf-effvid", task.name, str(config.model_type), *info.tags]
    data = ModelCardData(
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag=task.name,
        license=info.license,
        license_name=info.license_name,
        license_link=info.license_link,
        base_model=info.base_model,
        base_model_relation=_relation(info, is_adapter),
        datasets=list(info.datasets) or None,
        metrics=metric_ids(results) or None,
        tags=tags,
        model_name=name if evaluations else None,
        eval_results=evaluations or None,
    )
    return data.to_yaml()


def _relation(info: CardInfo, is_adapter: bool) -> str | None:
    if not info.base_model:
        return None
    return info.base_model_relation or ("adapter" if is_adapter else "finetune")


def _facts(
    config, info: CardInfo, measured: list[Cost], counted: Cost | None, task: PublishedTask
) -> list[tuple[str, str]]:
    facts = [
        ("architecture", escape_code(config.model_type)),
        ("classes", str(config.num_labels)),
        *cost_facts([*measured, *([counted] if counted else [])], task.view_name),
    ]
    if info.base_model:
        facts.append(
            ("weights derived from", f"{escape_code(info.base_model)} ({info.base_model_relation or 'finetune'})")
        )
    if info.teacher:
        facts.append(("distilled from the teacher", escape_code(info.teacher)))
    if info.source_url:
        digest = f", sha256 {escape_code(info.source_sha256)}" if info.source_sha256 else ""
        facts.append(("converted from", f"{escape_code(info.source_url)}{digest}"))
    return facts


def _flip_note(processor) -> list[str]:
    if getattr(processor, "horizontal_flip_safe", True) is not False:
        return []
    return ["Its classes depend on left and right: do not mirror videos, neither for training nor for testing."]


def _training(info: CardInfo) -> str:
    command = f"\n\n```bash\n{_fenced(info.training_command)}\n```" if info.training_command else f" {NOT_RECORDED}."
    commit = escape_code(info.training_commit) if info.training_commit else NOT_RECORDED
    return "\n\n".join(
        [f"Data: {info.training_data or NOT_RECORDED}.".replace("..", "."), f"Commit: {commit}.", f"Command:{command}"]
    )


def _citation(config, compression, distillation) -> str:
    methods = ((BLOCK_DROP, compression), (DISTILLATION, distillation))
    papers = (*(paper for paper, used in methods if used is not None), citation_of(config))
    return "\n\n".join(filter(None, papers))


def _fenced(text: str) -> str:
    """A fence ends at a line of three backticks; a command line never needs one."""
    return text.strip().replace("```", "'''")


def _classes(config) -> str:
    labels = [config.id2label[index] for index in sorted(config.id2label)]
    shown = ", ".join(escape_markdown(label, 60) for label in labels[:_MAX_CLASSES_LISTED])
    more = len(labels) - _MAX_CLASSES_LISTED
    return shown + (f", and {more} more in `config.json`" if more > 0 else "") + "."


def _licence(info: CardInfo) -> str:
    name = info.license_name or info.license
    link = f" ({info.license_link})" if info.license_link else ""
    if info.license == "unknown":
        return "The publisher has not stated the licence of these weights; ask before you use them. The code is Apache-2.0."
    return (
        f"Weights: {escape_markdown(name)}{escape_markdown(link, 200)}. Code: Apache-2.0. The terms of the training data apply beside "
        "them, and those of the base model or teacher where one is named above."
    )
