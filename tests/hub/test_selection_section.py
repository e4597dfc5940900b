"""The card of a LITE checkpoint: how it opens, what was kept, and what the check of its oracle found."""

import numpy as np
import torch

from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification
from hf_effvid.compression import OracleSettings
from hf_effvid.compression.token_faithfulness import MeanOverClips, TokenFaithfulness
from hf_effvid.evaluation.results import Cost, Metric, Provenance, ResultEntry
from hf_effvid.evaluation.selection_charts import plot_accuracy
from hf_effvid.evaluation.selection_report import ArmResult, SelectionReport
from hf_effvid.hub.card_check import card_problems
from hf_effvid.hub.model_card import render_model_card
from hf_effvid.hub.selection_section import selection_section
from hf_effvid.hub.staging import stage_checkpoint

from .tiny_checkpoint import tiny_processor


FIELDS = {
    "image_size": 16, "patch_size": 8, "num_frames": 4, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "num_labels": 3, "selector_hidden_sizes": (4,), "keep_ratio": 0.5, "selector_trained": True,
}  # fmt: skip


def report(rank=0.61, forced=False):
    def spread(value):
        return MeanOverClips(value, value - 0.04, value + 0.04, 64)

    arms = {"true": 0.9, "predicted": 0.8, "wrong": 0.3, "random": 0.5, "says_wrong": 0.41}
    leak = {"value": 0.1, "low": 0.05, "high": 0.15, "n": 64}
    return TokenFaithfulness(
        OracleSettings().to_dict(), {"num_clips": 64}, spread(rank), spread(0.2), spread(0.1), 0.0,
        selection={"0.5": {"n": 64, **arms, "leak": leak, "of_wrong_clips": {"n": 0}}}, full_accuracy=0.82, says_wrong_unasked=0.03,
        forced=forced,
    )  # fmt: skip


def test_the_section_says_what_is_kept_and_how_all_of_it_opens():
    text = selection_section(LiteVideoMAEConfig(**FIELDS), report(), "org/lite")
    assert "reads 50% of the tokens, chosen by a learned selector (LITE)" in text
    assert 'LiteVideoMAEForVideoClassification.from_pretrained("org/lite", keep_ratio=0.5)' in text
    assert 'VideoMAEForVideoClassification.from_pretrained("org/lite")' in text
    assert "passed its check on 64 clips" in text and "| 0.61 | 0.57 to 0.65 | above 0.2 |" in text
    assert "| 50% | 0.820 | 0.500 | 0.800 | 0.900 | +0.100 [+0.050, +0.150] | 0.410 (unasked 0.030) |" in text


def test_the_section_does_not_hide_what_speaks_against_the_selector():
    forced = selection_section(LiteVideoMAEConfig(**FIELDS), report(rank=0.05, forced=True), "org/lite")
    assert "**failed its check**" in forced and "expect no more than from random tokens" in forced
    untrained = selection_section(LiteVideoMAEConfig(**{**FIELDS, "selector_trained": False}), None, "org/lite")
    assert "**not trained**" in untrained
    assert "No report says" in selection_section(LiteVideoMAEConfig(**FIELDS), None, "org/lite")
    random = selection_section(LiteVideoMAEConfig(**{**FIELDS, "scorer": "random"}), None, "org/lite")
    assert "by the score `random`, which has no weights" in random and "No report" not in random
    whole = selection_section(LiteVideoMAEConfig(**{**FIELDS, "keep_ratio": 1.0}), None, "org/lite")
    assert "reads all tokens" in whole


def test_the_section_says_that_clips_have_budgets_of_their_own():
    policy = {"low": 0.08, "high": 0.725, "gauge": "probe"}
    text = selection_section(LiteVideoMAEConfig(**FIELDS, budget_policy=policy), report(), "org/lite")
    assert "30% of the tokens where a linear probe" in text and "less than 8.0% or more than 72.5% sure" in text
    outside = selection_section(
        LiteVideoMAEConfig(**FIELDS, budget_policy=policy | {"gauge": "model"}), None, "org/lite"
    )
    assert "not part of this repository" in outside
    assert "LITE++" not in selection_section(LiteVideoMAEConfig(**FIELDS), report(), "org/lite")


def test_hostile_text_in_a_report_stays_text():
    bad = report()
    bad.oracle["label_source"] = "<script>alert(1)</script>\n# Owned"
    text = selection_section(LiteVideoMAEConfig(**FIELDS), bad, "org/lite")
    assert "<script>" not in text and "\n# Owned" not in text


def test_the_whole_card_is_publishable():
    config = LiteVideoMAEConfig(**FIELDS)
    text = render_model_card(config, tiny_processor(), repo_id="org/lite", faithfulness=report())
    assert "## Token selection" in text and not card_problems(text, [])


def test_staging_takes_the_report_along(tmp_path):
    torch.manual_seed(0)
    model = LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**FIELDS))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    model.save_pretrained(tmp_path / "run")
    tiny_processor().save_pretrained(tmp_path / "run")
    report().save(tmp_path / "run")
    (tmp_path / "run" / "training.json").write_text("{}")
    staged = stage_checkpoint(tmp_path / "run", tmp_path / "staged", reference=False)
    names = {path.name for path in staged.iterdir()}
    assert "token_faithfulness.json" in names and "training.json" not in names
    assert TokenFaithfulness.load(staged).to_dict() == report().to_dict()
    assert "passed its check on 64 clips" in (staged / "README.md").read_text()


def test_the_card_shows_the_chart_the_random_baseline_and_the_leak(tmp_path):
    """What a study drew and measured goes to the Hub with the checkpoint."""
    folder = tmp_path / "lite"
    model = LiteVideoMAEForVideoClassification(LiteVideoMAEConfig(**FIELDS))
    model.save_pretrained(folder)
    report().save(folder)
    provenance = Provenance("effvid select study", commit="0" * 40, date="2026-11-20")
    arms = {"all tokens": 40, "random, keep 0.5": 30, "lite, keep 0.5": 38, "lite, keep 0.2": 20}
    ahead = {"lite, keep 0.5": (0.05, 0.25), "lite, keep 0.2": (-0.3, -0.1)}
    results = [
        ResultEntry(
            "token-selection", "lite", "clips", "test",
            (Metric.proportion("top1", right, 50), *(Metric("top1 minus random", -0.1, 50, ahead[arm], "bootstrap") for _ in [0] if arm in ahead)),
            provenance, variant=arm, cost=Cost(gmacs=1.0, latency_ms=2.0, batch_size=1, hardware="a machine", dtype="float32", decode_included=False),
        )
        for arm, right in arms.items()
    ]  # fmt: skip
    leak = Metric("true minus predicted label, keep 0.5", -0.02, 50, (-0.1, 0.1), "bootstrap")
    results.append(
        ResultEntry(
            "token-selection", "lite", "clips", "test", (leak,), provenance, variant="leak of the oracle's label"
        )
    )
    study = SelectionReport(
        "lite",
        "clips",
        "test",
        ["a", "b"],
        [0, 1],
        ["left", "right"],
        _study_arms(),
        [],
        {"num_frames": 4},
        provenance,
    )
    plot_accuracy(study, tmp_path / "accuracy")
    staged = stage_checkpoint(
        folder,
        tmp_path / "staged",
        tiny_processor(),
        repo_id="org/lite",
        results=results,
        reference=False,
        chart=tmp_path / "accuracy.png",
    )
    card = (staged / "README.md").read_text()
    assert "](pareto.png)" in card and (staged / "pareto.png").read_bytes() == (tmp_path / "accuracy.png").read_bytes()
    assert "| random | 60.0 | - |" in card and "| lite | 76.0 ↑ | 40.0 ↓ |" in card  # all of the study in one table
    assert "all tokens: 80.0 [67.0, 88.8]" in card and "| clips (test), all tokens |" in card
    front = card.split("---")[1]
    assert (
        "top-1 accuracy (all tokens)" in front
        and "keep" not in front
        and "leak" not in front
        and "## Speed" not in card
    )
    assert "leak (true - predicted)" in card and "+0.100 [+0.050, +0.150]" in card
    assert card_problems(card, results) == [] and card_problems(card) == []


def _study_arms():
    def arm(name, kind, ratio, right, milliseconds):
        cost = Cost(
            gmacs=ratio,
            latency_ms=milliseconds,
            batch_size=1,
            hardware="a machine",
            dtype="float32",
            decode_included=False,
        )
        top1 = np.array(right, dtype=float)
        return ArmResult(name, kind, ratio, top1, top1, [float(top1.mean())], cost=cost)  # fmt: skip

    return [
        arm("full", "all", 1.0, [1, 1], 2.0),
        arm("random", "score", 0.5, [1, 0], 1.0),
        arm("lite", "score", 0.5, [1, 1], 1.0),
    ]
