"""Rows in, logits out, whatever the batch size: nothing lost, nothing swapped."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.batching import Batcher
from hf_effvid.models.pipeline_inputs import kind_of, map_ahead, name_of, video_of


@settings(max_examples=150, deadline=None)
@given(
    views=st.lists(st.integers(0, 5), max_size=12),
    shapes=st.lists(st.sampled_from([2, 3]), min_size=12, max_size=12),
    batch_size=st.integers(1, 7),
    data=st.data(),
)
def test_order_completeness_and_blame(views, shapes, batch_size, data):
    bad = data.draw(st.sets(st.integers(0, 11), max_size=3))
    calls = []

    def forward(batch):
        calls.append(len(batch))
        if any(int(row[0]) in bad for row in batch):
            raise RuntimeError("bad row")
        return batch[:, :1] * 10

    batcher, delivered = Batcher(forward, batch_size, isolate_errors=True), []
    for owner, count in enumerate(views):
        rows = torch.full((count, shapes[owner]), float(owner)) if count else None
        batcher.add(owner, rows)
        delivered += list(batcher.finished())
    batcher.run()
    delivered += list(batcher.finished())
    assert [item.owner for item in delivered] == list(range(len(views)))
    assert all(size <= batch_size for size in calls)
    for item in delivered:
        if views[item.owner] and item.owner in bad:
            assert str(item.error) == "bad row"
        else:
            assert item.error is None
            assert [float(row) for row in item.results] == [item.owner * 10.0] * views[item.owner]


def test_without_isolation_the_error_is_raised():
    def forward(batch):
        raise RuntimeError("bad batch")

    batcher = Batcher(forward, 2, isolate_errors=False)
    batcher.add("a", torch.zeros(1, 2))
    with pytest.raises(RuntimeError, match="bad batch"):
        batcher.add("b", torch.zeros(1, 2))
    with pytest.raises(ValueError, match="batch_size"):
        Batcher(forward, 0, False)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_working_ahead_is_lazy_ordered_and_keeps_errors(workers):
    taken = []

    def items():
        for i in range(100):
            taken.append(i)
            yield i

    def work(i):
        if i % 7 == 3:
            raise KeyError(i)
        return i * i

    results = map_ahead(work, items(), workers)
    first = [next(results) for _ in range(10)]
    assert [item for item, _, _ in first] == list(range(10))
    assert [value for _, value, error in first if error is None] == [i * i for i in range(10) if i % 7 != 3]
    assert isinstance(first[3][2], KeyError)
    assert len(taken) <= 10 + 2 * max(workers, 1)
    results.close()


def test_names_and_kinds():
    assert name_of({"path": "a.mp4", "bytes": b"x"}) == "a.mp4"
    assert name_of(b"abc") == "<bytes, 3 B>"
    assert name_of(torch.zeros(1)) == "<Tensor>"
    assert kind_of("a.mp4") == kind_of({"path": "a.mp4"}) == kind_of(torch.zeros(2, 3, 4, 4)) == "single"
    assert kind_of(["a.mp4"]) == kind_of(torch.zeros(2, 2, 3, 4, 4)) == "list"
    assert kind_of(iter(["a.mp4"])) == "stream"
    assert video_of({"video": 3, "label": 1}, "video") == 3
    with pytest.raises(KeyError, match="video_column"):
        video_of({"clip": 3}, "video")
