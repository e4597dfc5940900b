import pytest

from hf_effvid.evaluation.results import Metric, Provenance, ResultEntry
from hf_effvid.hub.claims import Claim, claims_of_card, claims_of_results, find_claim
from hf_effvid.hub.model_card import render_model_card

from .tiny_checkpoint import tiny_model, tiny_processor


AWKWARD = "clips | of *mine* (v2)"


def entry(dataset="clips", split="test", metrics=None, **options):
    return ResultEntry(
        task="video-classification",
        model="tiny",
        dataset=dataset,
        split=split,
        metrics=metrics or (Metric.proportion("top1", 45, 60), Metric.proportion("top5", 59, 60)),
        provenance=options.pop("provenance", Provenance("effvid evaluate", date="2026-11-20")),
        protocol={"num_frames": 8, "num_clips": 3, "num_crops": 2},
        **options,
    )


def card(results) -> str:
    return render_model_card(tiny_model().config, tiny_processor(), repo_id="me/tiny", results=results)


def test_results_and_their_card_claim_the_same():
    multi_label = (Metric("mAP", 0.4321, 60, (0.4, 0.47), "bootstrap"), Metric("micro_f1", 0.5, 60))
    results = [entry(), entry(AWKWARD, "validation"), entry("tags", metrics=multi_label)]
    stated, read = claims_of_results(results), claims_of_card(card(results))
    assert [c.metric for c in stated] == ["top1", "top1", "mAP"]
    assert len(read) == len(stated)
    for ours, theirs in zip(stated, read, strict=True):
        assert (ours.dataset, ours.split, ours.metric, ours.n) == (
            theirs.dataset,
            theirs.split,
            theirs.metric,
            theirs.n,
        )
        assert (theirs.num_clips, theirs.num_crops) == (3, 2)
        assert theirs.value == pytest.approx(ours.value, abs=1e-4)
        assert theirs.interval == pytest.approx(ours.interval, abs=1e-3)  # the table is rounded


def test_quoted_numbers_and_variants_are_no_claims_of_the_checkpoint():
    results = [entry(quoted=True), entry(variant="frames shuffled")]
    assert claims_of_results(results) == [] == claims_of_card(card(results))


@pytest.mark.parametrize("text", ["", "no front matter", "---\nmodel-index: 3\n---\n", "---\nlicense: mit\n---\n"])
def test_a_card_without_claims(text):
    assert claims_of_card(text) == []


def test_a_card_of_another_maker_claims_without_n():
    text = """---
model-index:
- name: theirs
  results:
  - task: {type: video-classification}
    dataset: {name: K, type: k, split: val}
    metrics:
    - {type: accuracy, value: 0.8, name: top-1 accuracy}
---
# Theirs
"""
    assert claims_of_card(text) == [Claim("K", "val", "top1", 0.8)]


def test_the_claim_that_fits():
    one, two = Claim("a", "test", "top1", 0.5), Claim("a", "validation", "top1", 0.6)
    other = Claim("b", "test", "top1", 0.7)
    assert find_claim([one]) is one
    assert find_claim([one, two], split="validation") is two
    assert find_claim([one, other], dataset_name="b") is other
    assert find_claim([Claim("a", None, "top1", 0.5)], split="test").value == 0.5
    with pytest.raises(LookupError, match="2 claims fit these videos, split 'test'"):
        find_claim([one, two, other], split="test")
    with pytest.raises(
        LookupError, match=r"nothing is claimed for 'c'. Claimed: top-1 accuracy 50.0% on 'a' \(test\)"
    ):
        find_claim([one], dataset_name="c")
