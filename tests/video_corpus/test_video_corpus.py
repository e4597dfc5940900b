"""The corpus itself: seeded, complete, and read without a crash, a hang or an untyped error."""

import collections
import hashlib
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import torch

from hf_effvid.models.video_errors import VideoError
from hf_effvid.models.video_reader import read_video
from tests.video_corpus import cases as catalogue
from tests.video_corpus import hostile, run


def test_the_catalogue_covers_what_it_promises():
    every = catalogue.all_cases()
    assert len({case.name for case in every}) == len(every)
    kinds = {case.kind for case in every}
    promised = (
        "few frames,odd size,10 bit,gray,alpha,variable rate,B-frames,edit list,rotation,mirrored,audio only,cover art"
    )
    promised += ",two video streams,container,missing duration,wrong extension,1x1,very wide,interlaced,size change"
    promised += ",text file,empty file,no frames,bomb,playlist,lying header,colour,chroma"
    assert set(promised.split(",")) <= kinds
    for name in catalogue.CONTAINERS:
        assert sum(case.kind == f"truncated {name}" for case in every) == 49
        assert sum(case.kind == f"bit flips {name}" for case in every) == 500
    assert len(catalogue.sample("ci")) == 1500
    assert (
        {case.kind for case in catalogue.sample("default")}
        == {case.kind for case in catalogue.sample("full")}
        == kinds
    )


@pytest.mark.parametrize("name", catalogue.CONTAINERS)
def test_the_generator_is_seeded(name):
    """Encoded twice, in this process and with other work in between, the bytes are the same; so are the flips."""
    first = catalogue.CONTAINERS[name]()
    assert catalogue.CONTAINERS[name]() == first == catalogue.base_file(name)
    flips = [case for case in catalogue.bit_flips(8) if case.kind == f"bit flips {name}"]
    digests = {hashlib.sha256(case.make()).hexdigest() for case in flips}
    assert digests == {hashlib.sha256(case.make()).hexdigest() for case in flips}
    assert len(digests) == 8
    assert hashlib.sha256(first).hexdigest() not in digests


def test_the_default_sample():
    summary = run.run_cases(catalogue.sample("default"), num_workers=2)
    assert summary["failures"] == []
    assert summary["num_cases"] == len(catalogue.sample("default"))
    assert summary["max_peak_mb"] < 1000


@pytest.mark.corpus_ci
@pytest.mark.timeout(1500)
def test_1500_cases():
    summary = run.run_cases(catalogue.sample("ci"), num_workers=2)
    assert summary["num_cases"] == 1500
    assert summary["failures"] == []


@pytest.mark.corpus_full
@pytest.mark.timeout(7200)
def test_every_case():
    summary = run.run_cases(catalogue.sample("full"), num_workers=2)
    assert summary["failures"] == []


def test_the_runner_notices_a_death_a_hang_and_a_wrong_outcome(monkeypatch, tmp_path):
    """A worker that really kills itself, or sleeps, on certain files: its cases fail, the others are still read."""
    script = tmp_path / "worker.py"
    script.write_text(
        "import json, os, signal, sys, time\n"
        "for line in sys.stdin:\n"
        "    path = json.loads(line)\n"
        "    if 'crash' in path: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    if 'hang' in path: time.sleep(60)\n"
        "    facts = dict(outcome='frames', num_frames=3, size=[2, 2], seconds=0.1, peak=10**6, resident=10**6)\n"
        "    print(json.dumps(facts), flush=True)\n"
    )
    monkeypatch.setattr(run, "WORKER", script)
    monkeypatch.setattr(run, "MAX_SECONDS", 1.0)
    monkeypatch.setattr(run, "_GRACE", 5.0)
    names = ("a.mp4", "crash.mp4", "b.mp4", "hang.mp4", "c.mp4", "count.mp4", "error.mp4")
    cases = [catalogue.Case(name, "made up", bytes) for name in names[:5]]
    cases.append(catalogue.Case("count.mp4", "made up", bytes, "frames", 4))
    cases.append(catalogue.Case("error.mp4", "made up", bytes, "VideoEmpty"))
    summary = run.run_cases(cases, num_workers=1)
    wrong = {failure["case"]: failure["wrong"] for failure in summary["failures"]}
    assert wrong == {
        "crash.mp4": "DIED SIGSEGV",
        "hang.mp4": "HANG or killed",
        "count.mp4": "4 frames expected, got 3",
        "error.mp4": "VideoEmpty expected, got frames",
    }
    assert summary["table"]["made up"] == {"frames": 5, "DIED SIGSEGV": 1, "HANG or killed": 1}


def test_the_command_writes_its_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "sample", lambda name: catalogue.sample("default")[:6])
    out, page = tmp_path / "out.json", tmp_path / "page.md"
    page.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")
    assert run.main(["--workers", "1", "--out", str(out)]) == 0
    summary = json.loads(out.read_text())
    assert summary["num_cases"] == 6 and summary["failures"] == []
    assert "| few frames | 3 | 3 |" in capsys.readouterr().out
    assert run.main(["--results", str(out), "--document", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "6 cases, 0 failures" in text and "| few frames | 3 | 3 |" in text


def test_the_published_counts_are_of_the_whole_corpus():
    text = (Path(run.__file__).parents[2] / "docs" / "video_path.md").read_text()
    published = text.split(run.BEGIN)[1].split(run.END)[0]
    assert f"{len(catalogue.all_cases())} cases, 0 failures" in published
    rows = dict(re.findall(r"^\| ([^|*]+) \| (\d+) \|", published, flags=re.MULTILINE))
    kinds = collections.Counter(case.kind for case in catalogue.all_cases())
    assert {kind: int(count) for kind, count in rows.items()} == dict(kinds)


def test_frames_that_a_change_of_size_brings_are_resized_and_noted():
    cases = {case.name: case for case in catalogue.broken_cases()}
    video = read_video(cases["size_change.ts"].make())
    assert video.frames.shape == (16, 3, 48, 64)
    assert sum("has 96x80 pixels: resized like the first one" in note for note in video.notes) == 8


def test_a_truncated_file_gives_what_is_left_and_says_so():
    whole, cut = catalogue.base_file("faststart.mp4"), None
    for percent in (60, 80):
        cut = read_video(whole[: len(whole) * percent // 100])
        assert 0 < len(cut.indices) < 24
        expected = read_video(whole, indices=list(range(len(cut.indices))))
        assert torch.equal(cut.frames[: len(cut.indices) - 2], expected.frames[: len(cut.indices) - 2])
    with pytest.raises(VideoError):
        read_video(catalogue.base_file("h264.mp4")[:3000])


def _load(data, path):
    path.write_bytes(data)
    with safetensors.safe_open(str(path), framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}


@pytest.mark.parametrize("name", hostile.SAFETENSORS)
def test_hostile_weights_are_refused_with_a_typed_error_in_bounded_memory(name, tmp_path):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(safetensors.SafetensorError):
        _load(hostile.SAFETENSORS[name], tmp_path / "model.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


def test_the_hostile_weights_differ_from_good_ones_in_what_their_name_says(tmp_path):
    good = hostile._safetensors({"a": hostile._tensor(0, 16)}, bytes(16))
    assert torch.equal(_load(good, tmp_path / "good.safetensors")["a"], torch.zeros(4))


def test_the_corpus_imports_no_model_code():
    """Corpus workers start in a fraction of a second because they load neither torch nor transformers."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import worker; worker.load_reader(sys.argv[1]);"
        "print(sorted({'torch', 'transformers', 'hf_effvid'} & set(sys.modules)))"
    )
    command = [sys.executable, "-I", "-c", script, str(run.READER), str(run.WORKER.parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
