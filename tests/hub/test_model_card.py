import html
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from transformers import VideoMAEConfig

from hf_effvid.evaluation.results import Metric, Provenance, ResultEntry
from hf_effvid.hub.card_check import card_problems, split_card
from hf_effvid.hub.card_info import CardError, CardInfo
from hf_effvid.hub.escaping import escape_code, escape_markdown
from hf_effvid.hub.model_card import render_model_card

from .tiny_checkpoint import tiny_processor


HOSTILE_LABELS = [
    "<script>alert(1)</script>",
    "![pixel](https://evil.example/p.png)",
    "[click me](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "a | b | c |\n| --- |",
    "`code` and **bold**",
    "\n---\nlicense: mit\n---\n# Owned",
    "{{ 7 * 7 }} {% for x in y %}",
    "\u202egnp.exe\u0000\u2028",
    "&lt;b&gt; &amp;",
    "www.evil.example https://evil.example me@evil.example",
    "x" * 5000,
]


def rendered(text: str) -> str:
    """What a reader's browser gets: HTML passed through and bare links recognised, as careless sites do."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def visible(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page)).strip()


def config_with(labels):
    return VideoMAEConfig(id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)})


def result(**changes):
    values = {
        "task": "video-classification",
        "model": "m",
        "dataset": "motion",
        "split": "test",
        "metrics": (Metric.proportion("top1", 3, 4),),
        "provenance": Provenance("effvid evaluate", commit="abc", date="2026-11-20"),
        "protocol": {"num_frames": 4, "num_clips": 1, "num_crops": 1},
    }
    return ResultEntry(**{**values, **changes})


def card(labels=("a", "b"), **options) -> str:
    return render_model_card(config_with(labels), tiny_processor(), repo_id="org/name", **options)


@pytest.mark.parametrize("label", HOSTILE_LABELS)
def test_hostile_labels_are_only_text(label):
    text = card([label, "harmless"])
    assert card_problems(text, []) == []
    reference = rendered(split_card(card(["plain", "harmless"]))[1])
    page = rendered(split_card(text)[1])
    assert re.findall(r"</?\w+", page) == re.findall(r"</?\w+", reference)  # the same elements: nothing was added
    assert "javascript:" not in re.sub(r">[^<]*<", "><", page)
    assert yaml.safe_load(text.split("---")[1]) == yaml.safe_load(card(["plain", "harmless"]).split("---")[1])


@pytest.mark.parametrize("name", HOSTILE_LABELS)
def test_hostile_names_in_results_are_only_text(name):
    hostile = result(
        dataset=name, split=name, variant=name, notes=(name,), provenance=Provenance(name, commit=name, date="2026")
    )
    text = card(results=[hostile])
    plain = card(results=[result(variant="v", notes=("n",), provenance=Provenance("p", commit="c", date="2026"))])
    tags = [re.findall(r"</?\w+", rendered(split_card(t)[1])) for t in (text, plain)]
    assert tags[0] == tags[1]
    assert card_problems(text, [hostile]) == []
    front, _ = split_card(text)
    assert set(front) == set(split_card(plain)[0]) and front["license"] == "unknown"
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == name


@given(st.text(max_size=60))
def test_escaped_text_reads_as_it_was(text):
    shown = visible(MarkdownIt("commonmark", {"html": True}).renderInline(escape_markdown(text)))
    assert shown == " ".join(escape_free(text).split())


def escape_free(text: str) -> str:
    import unicodedata

    return "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else c for c in text)


@given(st.text(max_size=60))
def test_inline_code_cannot_be_left(text):
    page = MarkdownIt("commonmark", {"html": True}).renderInline(escape_code(text))
    assert re.findall(r"</?\w+", page) == ["<code", "</code"]


def test_nothing_is_invented():
    text = card()
    assert text.count("not measured") == 5  # accuracy, parameters, GMACs, latency, memory
    assert "not recorded" in text and "model-index" not in text
    assert "unknown" in split_card(text)[0]["license"]


def test_front_matter_is_complete():
    info = CardInfo(
        license="cc-by-nc-4.0",
        base_model="MCG-NJU/videomae-base",
        datasets=["org/clips"],
        tags=["tennis"],
        teacher="org/teacher",
        source_url="https://example.org/w.pth",
        source_sha256="ab" * 32,
    )
    data, body = split_card(card(info=info, results=[result(dataset_id="org/clips")]))
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "video-classification"
    assert data["license"] == "cc-by-nc-4.0"
    assert (data["base_model"], data["base_model_relation"]) == ("MCG-NJU/videomae-base", "finetune")
    assert data["datasets"] == ["org/clips"] and data["metrics"] == ["accuracy"]
    assert {"hf-effvid", "videomae", "tennis"} <= set(data["tags"])
    entry = data["model-index"][0]
    assert entry["name"] == "name"
    assert entry["results"][0]["dataset"] == {"name": "motion", "type": "org/clips", "split": "test"}
    assert entry["results"][0]["metrics"][0]["value"] == 0.75
    assert "org/teacher" in body and "ab" * 32 in body and "surveillance" in body


def test_an_adapter_says_so():
    data, body = split_card(card(info=CardInfo(base_model="org/base"), is_adapter=True))
    assert data["library_name"] == "peft" and data["base_model_relation"] == "adapter"
    assert "transformers and peft" in body


def test_a_command_cannot_leave_its_fence():
    text = card(info=CardInfo(training_command="train\n```\n<b>x</b>\n```"))
    assert "<b>" not in rendered(split_card(text)[1])


def test_the_repository_must_be_an_id():
    with pytest.raises(CardError, match="Hub id"):
        render_model_card(config_with(["a"]), tiny_processor(), repo_id='x"); import os')


BROKEN_CARDS = {
    "no front matter": (lambda t: t.removeprefix("---\n"), "front matter"),
    "broken yaml": (lambda t: t.replace("license: unknown", "license: [unknown"), "not valid YAML"),
    "no licence": (lambda t: t.replace("license: unknown\n", ""), "lacks license"),
    "no tags": (lambda t: re.sub(r"tags:\n(- .*\n)+", "", t), "lacks tags"),
    "other library": (lambda t: t.replace("library_name: transformers", "library_name: keras"), "library_name"),
    "placeholder": (lambda t: t.replace("## Training", "## Training\n\nTODO: describe"), "TODO"),
    "template": (lambda t: t.replace("## Training", "## {{ heading }}"), "placeholder"),
    "hub default": (lambda t: t + "\n[More Information Needed]\n", "placeholder"),
    "local base": (lambda t: t.replace("license: unknown", "license: unknown\nbase_model: /tmp/x"), "base_model"),
    "code": (lambda t: t.replace("import hf_effvid  #", "import hf_effvid ;;"), "does not compile"),
    "extra row": (
        lambda t: t.replace("| motion (test)", "| other (test) | 1 | m | 99.9% | n | 1 | measured |\n| motion (test)"),
        "other",
    ),
    "index": (lambda t: t.replace("value: 0.75", "value: 0.99"), "claims"),
}


@pytest.mark.parametrize("case", BROKEN_CARDS)
def test_broken_cards_are_found(case):
    change, message = BROKEN_CARDS[case]
    text = card(results=[result()])
    changed = change(text)
    assert changed != text
    problems = card_problems(changed, [result()])
    assert any(message in problem for problem in problems), problems


def test_a_card_alone_must_not_claim_more_than_it_shows():
    text = card(results=[result()])
    assert card_problems(text) == []
    assert any("does not show" in problem for problem in card_problems(text.replace("value: 0.75", "value: 0.99")))
