"""Two thresholds: what counts, and that a stream finds the same while it runs."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.models.streaming_hysteresis import StreamingHysteresis, hysteresis


def table(rows):
    columns = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    return {"segments": columns[:, :2], "scores": columns[:, 3], "labels": columns[:, 2].long()}


def rows_of(found):
    return torch.cat([found["segments"], found["labels"][:, None], found["scores"][:, None]], 1).tolist()


def test_faint_ones_count_when_a_chain_leads_to_a_clear_one():
    clear, touching, next_to_it, alone = [0, 5, 0, 0.8], [5.5, 7, 0, 0.4], [7.4, 9, 0, 0.5], [9.6, 11, 0, 0.5]
    other_class, low_threshold = [5, 6, 1, 0.4], [20, 21, 2, 0.4]
    found = table([clear, alone, next_to_it, touching, other_class, low_threshold])
    thresholds = {2: 0.3, None: 0.6}
    assert rows_of(hysteresis(found, thresholds, gap=0.5)) == [clear, next_to_it, touching, low_threshold]
    assert rows_of(hysteresis(found, thresholds, gap=0.0)) == [clear, low_threshold]
    assert rows_of(hysteresis(found, 0.6, gap=0.61)) == [clear, alone, next_to_it, touching]
    assert rows_of(hysteresis(table([]), 0.5)) == []


segments = st.tuples(st.integers(0, 60), st.integers(1, 8), st.integers(0, 1), st.sampled_from([0.4, 0.5, 0.9]))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(segments, st.integers(0, 12)), max_size=14),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sampled_from([2, 7, 20]),
)
def test_the_stream_says_what_the_whole_video_says(given_rows, gap, chunk):
    """Detections become final some time after their end, in no order; until then they are alive."""
    rows = [([start, start + length, label, score], start + length + delay) for (start, length, label, score), delay in given_rows]  # fmt: skip
    stream, said, held = StreamingHysteresis(0.6, gap), [], []
    for now in [*range(0, 90, chunk), float("inf")]:
        final = [row for row, known in rows if now - chunk < known <= now or (now == float("inf") and known > 89 // chunk * chunk)]  # fmt: skip
        said += stream.add(table(final))
        alive = {None: [(now, float("inf"))]} if now < float("inf") else {}
        for row, known in rows:
            if known > now:
                alive.setdefault(row[2], []).append(tuple(row[:2]))
        stream.forget(alive)
        held.append(len(stream.faint) + len(stream.clear))
    assert held[-1] == 0
    assert sorted(map(list, said)) == sorted(rows_of(hysteresis(table([row for row, _ in rows]), 0.6, gap)))


def test_what_is_far_behind_is_forgotten():
    stream = StreamingHysteresis(0.6, gap=1.0)
    assert stream.add(table([[0, 2, 0, 0.4], [4, 6, 0, 0.9]])) == [(4.0, 6.0, 0, 0.9)]
    stream.forget({None: [(2.5, float("inf"))]})
    assert len(stream.faint) == 1  # something from 2.5 on could still join both
    stream.forget({None: [(3.5, float("inf"))]})
    assert stream.faint == [] and len(stream.clear) == 1
    stream.forget({None: [(20.0, float("inf"))], 0: [(6.5, 30.0)]})
    assert len(stream.clear) == 1
    stream.forget({None: [(20.0, float("inf"))], 1: [(6.5, 30.0)]})
    assert stream.clear == []
