"""The gate: an oracle that knows passes, one that does not is refused, and a label that leaks is seen to."""

import json

import pytest
import torch

from hf_effvid.compression import OracleSettings
from hf_effvid.compression.token_faithfulness import (
    FaithfulnessProtocol,
    MeanOverClips,
    TokenFaithfulness,
    UnfaithfulOracleError,
    measure_faithfulness,
)

from ..pipelines import hosts
from ..training.needle import DrawnClips, needle_host


QUICK = FaithfulnessProtocol(
    num_clips=32, num_deletions=16, shares=(0.1, 0.5, 0.9), random_draws=1, keep_ratios=(0.2,)
)


def batches(count=32, size=16):
    clips = DrawnClips(count=count)
    return list(zip(clips.pixels.split(size), clips.labels.split(size), strict=True))


def measure(tensor, model=None, protocol=QUICK, **settings):
    model = needle_host() if model is None else model
    return measure_faithfulness(model, batches(), OracleSettings(oracle_tensor=tensor, **settings), protocol)


@pytest.fixture(scope="module")
def block_out():
    return measure("block_out")


@pytest.fixture(scope="module")
def mlp_out():
    return measure("mlp_out")


def test_the_last_blocks_output_passes(block_out):
    assert block_out.passed and not block_out.failures
    assert block_out.rank_correlation.value > 0.4 and block_out.rank_correlation.n == 32
    assert block_out.insertion_gain.low > 0.05 and block_out.deletion_gain.low > 0.05
    assert block_out.require() is block_out


def test_what_the_last_mlp_adds_fails(mlp_out):
    """The paper's words taken literally: on this host they name a tensor that knows nothing, and the gate says so."""
    assert not mlp_out.passed
    with pytest.raises(UnfaithfulOracleError, match=r"mlp_out of block -1, true label.*32 clips.*--force"):
        mlp_out.require()
    forced = mlp_out.require(force=True)
    assert forced.forced and not forced.passed and "FAILED, forced" in forced.summary()


def test_the_true_label_leaks_and_the_predicted_one_does_not(block_out):
    found = block_out.selection["0.2"]
    assert found["n"] == 32 and found["leak"]["value"] == pytest.approx(found["true"] - found["predicted"])
    assert found["true"] >= block_out.full_accuracy, "tokens for the true label never cost an answer here"
    assert found["predicted"] == pytest.approx(block_out.full_accuracy, abs=0.04)
    assert found["says_wrong"] > block_out.says_wrong_unasked
    assert found["random"] < found["predicted"]
    wrong = found["of_wrong_clips"]
    assert wrong["n"] == round((1 - block_out.full_accuracy) * 32)


def test_on_an_untrained_host_all_gain_is_leak():
    model, _ = hosts.videomae()
    clips = torch.randn(48, hosts.FRAMES, 3, hosts.SIZE, hosts.SIZE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(48) % hosts.LABELS
    protocol = FaithfulnessProtocol(num_clips=48, num_deletions=3, shares=(0.5,), random_draws=1, keep_ratios=(0.2,))
    report = measure_faithfulness(model, [(clips, labels)], OracleSettings(), protocol)
    found = report.selection["0.2"]
    assert abs(report.full_accuracy - 1 / hosts.LABELS) < 0.15, "it knows nothing"
    assert found["true"] > report.full_accuracy + 0.1
    assert found["says_wrong"] > report.says_wrong_unasked + 0.1
    assert abs(found["predicted"] - report.full_accuracy) < 0.1


def test_the_report_goes_through_json(block_out, tmp_path):
    path = block_out.save(tmp_path)
    document = json.loads(path.read_text())
    assert path.name == "token_faithfulness.json" and document["passed"] is True and document["failures"] == []
    assert document["oracle"] == OracleSettings().to_dict() and document["protocol"]["num_clips"] == 32
    again = TokenFaithfulness.load(tmp_path)
    assert again.to_dict() == document and again.passed
    assert "keep 0.2: true label" in again.summary()


def test_the_draws_are_a_function_of_the_seed():
    protocol = FaithfulnessProtocol(num_clips=4, num_deletions=3, shares=(0.5,), random_draws=1, keep_ratios=(0.5,))
    first, second = (measure("block_out", protocol=protocol).to_dict() for _ in range(2))
    assert first == second and first["rank_correlation"]["n"] == 4


def test_without_labels_only_the_predicted_label_is_checked():
    clips = DrawnClips(count=8)
    protocol = FaithfulnessProtocol(num_clips=8, num_deletions=4, shares=(0.5,), random_draws=1)
    settings = OracleSettings(label_source="predicted")
    report = measure_faithfulness(needle_host(), [(clips.pixels, None)], settings, protocol)
    assert report.selection == {} and report.full_accuracy is None and report.rank_correlation.n == 8
    assert report.summary()


def test_verdicts():
    """Each check decides by itself, and an interval that reaches 0 is not good enough."""

    def report(rank, insertion, deletion):
        spread = [MeanOverClips(value, value - 0.05, value + 0.05, 64) for value in (rank, insertion, deletion)]
        return TokenFaithfulness(OracleSettings().to_dict(), {}, *spread, flat_clips=0.0)

    assert report(0.21, 0.06, 0.06).passed
    assert report(0.2, 0.06, 0.06).failures == [
        "its rank correlation with leave-one-out deletion is 0.20, not above 0.2"
    ]
    assert ["shown first" in failure for failure in report(0.5, 0.04, 0.2).failures] == [True]
    assert ["deleted first" in failure for failure in report(0.5, 0.2, -0.1).failures] == [True]


def test_impossible_checks_are_refused():
    with pytest.raises(ValueError, match="num_deletions must be at least 3, got 2"):
        FaithfulnessProtocol(num_deletions=2)
    with pytest.raises(ValueError, match="two clips or more, got 1"):
        measure_faithfulness(needle_host(), [(DrawnClips(count=1).pixels, torch.tensor([0]))])
