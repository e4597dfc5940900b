import json
import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.evaluation.provenance import code_commit, current_provenance
from hf_effvid.evaluation.results import (
    Cost,
    Metric,
    Provenance,
    ResultEntry,
    ResultsError,
    ResultsFile,
    add_results,
)


def entry(**changes) -> ResultEntry:
    values = {
        "task": "video-classification",
        "model": "tiny",
        "dataset": "motion",
        "split": "test",
        "metrics": (Metric.proportion("top1", 45, 50),),
        "cost": Cost(gmacs=0.5, parameters=1000),
        "provenance": Provenance("effvid evaluate tiny motion", commit="abc", seed=0, date="2026-11-20"),
        "protocol": {"num_frames": 8, "num_clips": 3, "num_crops": 1},
        "notes": ("small", "generated"),
    }
    return ResultEntry(**{**values, **changes})


def test_round_trip(tmp_path):
    quoted = entry(
        quoted=True,
        metrics=(Metric("top1", 0.83),),
        cost=Cost(),
        provenance=Provenance("Table 2 of the paper"),
        dataset_id="org/x",
    )
    written = ResultsFile([entry(), quoted])
    path = written.save(tmp_path / "deep" / "results.json")
    assert ResultsFile.load(path) == written
    assert path.stat().st_mode & 0o777 == 0o644
    assert os.listdir(path.parent) == ["results.json"]
    document = json.loads(path.read_text())
    assert document["results"][0]["metrics"][0]["interval"] == list(entry().metrics[0].interval)
    assert "cost" not in document["results"][1]


@given(
    st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.dictionaries(st.text(), st.integers() | st.text() | st.booleans(), max_size=3),
    st.text(min_size=1),
)
def test_every_valid_entry_survives_json(counts, protocol, name):
    written = ResultsFile([entry(metrics=(Metric.proportion("top1", *counts),), protocol=protocol, model=name)])
    assert ResultsFile.from_dict(json.loads(json.dumps(written.to_dict()))) == written


def test_merge_replaces_the_same_measurement_only():
    old = ResultsFile([entry(), entry(split="validation")])
    newer = entry(metrics=(Metric.proportion("top1", 50, 50),))
    other_seed = entry(provenance=replace(entry().provenance, seed=1))
    merged = old.merge([newer, other_seed, entry(variant="frames shuffled")])
    assert [e.split for e in merged.results] == ["test", "validation", "test", "test"]
    assert merged.results[0].metric("top1").value == 1.0
    assert old.results[0].metric("top1").value == 0.9
    assert merged.select(split="test", variant="") == [newer, other_seed]


def test_add_results_creates_then_extends(tmp_path):
    add_results(tmp_path / "r.json", [entry()])
    assert len(add_results(tmp_path / "r.json", [entry(split="train")]).results) == 2
    assert len(ResultsFile.load(tmp_path / "r.json").results) == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Metric("top1", float("nan")), "finite"),
        (lambda: Metric("top1", True), "finite"),
        (lambda: Metric("top1", 0.5, 0), "n must be"),
        (lambda: Metric("top1", 0.5, 2.0), "n must be"),
        (lambda: Metric("top1", 0.5, 10, (0.6, 0.4), "wilson"), "swapped"),
        (lambda: Metric("top1", 0.5, 10, (0.4, 0.6)), "interval_method"),
        (lambda: Metric("top1", 0.5, 10, (0.4,), "wilson"), "low, high"),
        (lambda: Metric("", 0.5), "name"),
        (lambda: Cost(latency_ms=3.0), "hardware, dtype, batch_size, decode_included"),
        (lambda: Cost(gmacs=-1.0), "positive"),
        (lambda: entry(metrics=(Metric("top1", 0.5),)), "has no n"),
        (lambda: entry(metrics=(), cost=Cost()), "neither"),
        (lambda: entry(metrics=(Metric.proportion("top1", 1, 2),) * 2), "twice"),
        (lambda: entry(dataset=""), "dataset must be"),
        (lambda: entry(provenance=Provenance("")), "command that measured"),
        (lambda: entry(quoted=True, provenance=Provenance("")), "citation"),
        (lambda: entry(provenance=Provenance("x")), "date"),
    ],
)
def test_incomplete_numbers_are_refused(build, message):
    with pytest.raises(ResultsError, match=message):
        build()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(schema_version=7), "schema_version 1, found 7"),
        (lambda d: d.update(extra=1), "unknown keys"),
        (lambda d: d["results"][0].update(accuracy=1), r"results\[0\].*accuracy"),
        (lambda d: d["results"][0].pop("dataset"), r"results\[0\].*dataset"),
        (lambda d: d["results"][0].update(metrics={}), "metrics must be a list"),
        (lambda d: d["results"][0]["metrics"][0].pop("n"), "has no n"),
        (lambda d: d["results"].append([]), r"results\[1\].*object"),
    ],
)
def test_broken_documents_say_where(tmp_path, change, message):
    document = ResultsFile([entry()]).to_dict()
    change(document)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ResultsError, match=message) as caught:
        ResultsFile.load(path)
    assert str(path) in str(caught.value)


def test_no_json_at_all(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ResultsError, match="not a JSON file"):
        ResultsFile.load(tmp_path / "x.json")


def test_current_provenance(monkeypatch):
    monkeypatch.setattr("sys.argv", ["/home/someone/secret-place/effvid", "evaluate", "a b"])
    record = current_provenance(seed=3, dtype="float32")
    assert record.command == "effvid evaluate 'a b'"
    assert record.seed == 3 and record.dtype == "float32"
    assert {"python", "torch", "transformers"} <= set(record.versions)
    assert "cores" in record.hardware
    assert len(record.date) == 10


def test_commit_is_that_of_the_package_not_of_the_working_directory(tmp_path, monkeypatch):
    here = code_commit()
    monkeypatch.chdir(tmp_path)
    assert code_commit() == here


@pytest.mark.parametrize(
    ("argument", "recorded"),
    [
        ("/home/someone/videos/tennis", "tennis"),
        ("../data/tennis/", "tennis"),
        ("--root=/home/someone/videos", "--root=videos"),
        ("run/model", "run/model"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("org/name", "org/name"),
        ("--name=a=b", "--name=a=b"),
        ("arm=/home/someone/run/model", "arm=model"),
        ("https://example.org/a=/b", "https://example.org/a=/b"),
        ("/", "/"),
    ],
)
def test_a_command_does_not_tell_where_things_lie(monkeypatch, argument, recorded):
    monkeypatch.setattr("sys.argv", ["effvid", argument])
    assert current_provenance().command == f"effvid {recorded}"
