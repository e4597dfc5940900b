import numpy as np
import pytest

from hf_effvid.evaluation.intervals import wilson_interval
from hf_effvid.evaluation.metrics import metric_path
from hf_effvid.evaluation.scores import topk_hits


evaluate = pytest.importorskip("evaluate")


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    # offline: the path is all that is needed; the cache must not be the user's
    return evaluate.load(metric_path("topk_accuracy"), cache_dir=str(tmp_path_factory.mktemp("evaluate")))


@pytest.mark.parametrize("k", [1, 2, 3])
def test_agrees_with_the_package(metric, k):
    generator = np.random.default_rng(k)
    scores, labels = generator.random((40, 5)), generator.integers(0, 5, 40)
    hits = int(topk_hits(scores, labels, k).sum())
    found = metric.compute(predictions=scores.tolist(), references=labels.tolist(), k=k)
    assert found == {f"top{k}_accuracy": hits / 40, "n": 40, "interval": list(wilson_interval(hits, 40))}


def test_batches_add_up(metric):
    metric.add_batch(predictions=[[0.1, 0.9]], references=[1])
    metric.add_batch(predictions=[[0.1, 0.9]], references=[0])
    assert metric.compute()["top1_accuracy"] == 0.5


def test_unknown_metric():
    with pytest.raises(ValueError, match="topk_accuracy"):
        metric_path("perplexity")
