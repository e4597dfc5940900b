from dataclasses import replace

from hf_effvid.evaluation.results import Cost, Metric, Provenance, ResultEntry
from hf_effvid.hub.card_check import card_problems
from hf_effvid.hub.model_card import render_model_card
from hf_effvid.hub.speed_table import own_costs, speed_rows

from .tiny_checkpoint import tiny_model, tiny_processor


def timed(model: str, latency_ms: float, **cost) -> ResultEntry:
    values = {
        "latency_ms": latency_ms,
        "latency_p90_ms": latency_ms * 1.1,
        "throughput_clips_per_s": 1e3 / latency_ms,
        "batch_size": 1,
        "hardware": "a machine",
        "dtype": "float32",
        "execution": "eager",
        "decode_included": False,
        "num_threads": 2,
        "num_rounds": 10,
    }
    return ResultEntry(
        task="video-classification",
        model=model,
        dataset="random clips",
        split="benchmark",
        metrics=(),
        cost=Cost(**{**values, **cost}),
        provenance=Provenance("effvid bench a b", date="2026-11-20", commit="abc"),
    )


def accuracy(model: str = "run") -> ResultEntry:
    metrics = (Metric.proportion("top1", 45, 60),)
    provenance = Provenance("effvid evaluate", date="2026-11-20")
    return ResultEntry("video-classification", model, "clips", "test", metrics, provenance)


RESULTS = [
    accuracy(),
    timed("VideoMAE | *base*", 200.0, peak_memory_mb=900.0),
    timed("tiny", 10.0, baseline="VideoMAE | *base*", speedup=20.0, speedup_interval=(19.0, 21.0), speedup_interval_method="x"),
]  # fmt: skip


def card(results, **options) -> str:
    return render_model_card(tiny_model().config, tiny_processor(), repo_id="me/tiny", results=results, **options)


def test_the_card_shows_the_benchmark_and_takes_its_own_latency_from_it():
    text = card(RESULTS)
    assert card_problems(text, RESULTS) == []
    assert "| tiny | float32, eager | 1 | 10 (11) | 100 | not measured | 20.00 (19.00 to 21.00) than VideoMAE" in text
    assert "| latency | 10 ms per batch of 1 (a machine, float32, decoding not included) |" in text
    assert text.count("Measured on a machine, 2 threads, 10 interleaved rounds") == 1  # once per run, not per row
    assert "random clips" not in text


def test_a_table_that_differs_from_the_results_is_found():
    text = card(RESULTS)
    faster = [*RESULTS[:2], replace(RESULTS[2], cost=replace(RESULTS[2].cost, latency_ms=5.0))]
    assert any("| tiny |" in problem for problem in card_problems(text, faster))
    assert any("not in the results file" in problem for problem in card_problems(text, RESULTS[:2]))


def test_the_times_of_others_are_not_ours():
    assert [cost.latency_ms for cost in own_costs(RESULTS[:2], "tiny")] == [None]
    assert "| latency | not measured |" in card(RESULTS[:2])
    named_after_the_run = [accuracy("run"), timed("run", 3.0)]
    assert [cost.latency_ms for cost in own_costs(named_after_the_run, "tiny")] == [None, 3.0]


def test_without_a_benchmark_there_is_no_table():
    assert speed_rows([accuracy()]) == []
    assert "## Speed" not in card([accuracy()])
    assert "](pareto.png)" not in card([accuracy()]) and "](pareto.png)" in card([accuracy()], chart="pareto.png")
