"""Files, folders and lists in; records out, on disk as soon as they exist, and never computed twice."""

import csv
import json
import os
import signal

import pytest
from rich.console import Console

from hf_effvid import VideoClassificationPipeline
from hf_effvid.pipelines import predict_paths, predictions_table
from hf_effvid.pipelines.predict import RecordFile, expand_inputs, records_of_rows, rows_of_record

from .conftest import largest_difference
from .hosts import videomae


@pytest.fixture(scope="module")
def pipe():
    model, processor = videomae()
    return VideoClassificationPipeline(model, video_processor=processor, device="cpu")


class CountingPipe:
    """Answers at once, remembers what it was asked, and can die."""

    def __init__(self, die_after=None):
        self.asked, self.die_after = [], die_after

    def answer(self, source):
        if len(self.asked) == self.die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        self.asked.append(source)
        if "bad" in source:
            return {"error": "VideoNotReadable", "message": 'odd, "quoted"\nsecond line', "source": source}
        return [{"score": 0.75, "label": f"a, {source}"}, {"score": 0.25, "label": "b"}]

    def iterate(self, sources, **params):
        return (self.answer(source) for source in sources)

    def stream(self, source, window, stride, **params):
        for k in range(3):
            answer = self.answer(source)
            yield (
                answer
                if isinstance(answer, dict)
                else {"start": k * window, "end": (k + 1) * window, "predictions": answer}
            )
            if isinstance(answer, dict):
                return


def read(path):
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with open(path, newline="") as file:
        return records_of_rows(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "clips"
    for name in ("b.mp4", "a.mkv", "deep/er/c.WEBM", "notes.txt", ".hidden.mp4", ".cache/x.mp4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_folders_are_searched(folder):
    found = [os.path.relpath(path, folder) for path in expand_inputs(folder)]
    assert found == ["a.mkv", "b.mp4", "deep/er/c.WEBM"]
    assert list(expand_inputs([folder / "b.mp4", str(folder)]))[0] == str(folder / "b.mp4")
    assert len(list(expand_inputs([folder, folder / "b.mp4"]))) == 3
    with pytest.raises(ValueError, match="holds no videos"):
        list(expand_inputs(folder / "deep", suffixes=(".mp4",)))


def test_lists(tmp_path):
    (tmp_path / "with blank.mp4").write_bytes(b"")
    texts = {
        "a.csv": "label,path\n1,x.mp4\n2,/abs/y.mp4\n",
        "b.csv": "x.mp4,1\n/abs/y.mp4,2\n",
        "c.txt": "# comment\nx.mp4 1\n/abs/y.mp4 2\n",
        "d.csv": "\ufeffclip,label\nx.mp4,1\n/abs/y.mp4,2\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        column = "clip" if name == "d.csv" else None
        found = list(expand_inputs(tmp_path / name, path_column=column))
        assert found == [str(tmp_path / "x.mp4"), "/abs/y.mp4"], name
    (tmp_path / "e.txt").write_text("with blank.mp4\nhttps://example.invalid/a.mp4\n")
    found = list(expand_inputs(tmp_path / "e.txt"))
    assert found == [str(tmp_path / "with blank.mp4"), "https://example.invalid/a.mp4"]
    with pytest.raises(ValueError, match="no column 'video'"):
        list(expand_inputs(tmp_path / "a.csv", path_column="video"))
    (tmp_path / "f.csv").write_text("label,path\n1\n")
    with pytest.raises(ValueError, match="row 2"):
        list(expand_inputs(tmp_path / "f.csv"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="holds no videos"):
        list(expand_inputs(tmp_path / "empty.csv"))


def test_real_videos(pipe, videos, tmp_path):
    output = tmp_path / "out" / "predictions.jsonl"
    inputs = [videos.long_mp4, videos.broken_mp4, videos.clip_webm]
    records = list(predict_paths(pipe, inputs, output=output, batch_size=2, top_k=3))
    assert [record["source"] for record in records] == [str(path) for path in inputs]
    assert records[1]["error"] == "VideoNotReadable"
    assert largest_difference(records[0]["predictions"], pipe(videos.long_mp4, top_k=3)) < 1e-6
    assert read(output) == records


def test_real_windows(pipe, videos, tmp_path):
    output = tmp_path / "windows.csv"
    records = list(predict_paths(pipe, [videos.twelve_mp4, videos.long_mp4], window=5.0, output=output, top_k=2))
    assert [(record["start"], record["last"]) for record in records] == [
        (0.0, False),
        (5.0, False),
        (10.0, True),
        (0.0, True),
    ]
    assert largest_difference(read(output), records) == 0
    assert list(predict_paths(pipe, [videos.twelve_mp4, videos.long_mp4], window=5.0, output=output)) == []


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
@pytest.mark.parametrize("window", [None, 2.0])
def test_a_killed_run_keeps_its_results_and_the_next_goes_on(tmp_path, kind, window):
    sources = [f"{i}.mp4" for i in range(4)] + ["bad.mp4", "5.mp4"]
    expected = list(predict_paths(CountingPipe(), sources, window=window))
    output = tmp_path / f"records.{kind}"
    child = os.fork()
    if child == 0:
        for _ in predict_paths(CountingPipe(die_after=8 if window else 3), sources, window=window, output=output):
            pass
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    survived = read(output)
    assert survived == expected[: len(survived)]
    assert len(survived) == (7 if window else 3)
    with open(output, "a") as file:
        file.write('{"source": "3.mp4", "predi' if kind == "jsonl" else '3.mp4,"0.')
    pipe = CountingPipe()
    again = list(predict_paths(pipe, sources, window=window, output=output))
    assert set(pipe.asked) == set(sources[2:] if window else sources[3:])
    assert again == expected[6 if window else 3 :]
    assert read(output) == expected
    # everything is done now, but for what failed
    pipe = CountingPipe()
    assert [record["source"] for record in predict_paths(pipe, sources, window=window, output=output)] == ["bad.mp4"]
    pipe = CountingPipe()
    assert list(predict_paths(pipe, sources, window=window, output=output, retry_errors=False)) == []
    assert pipe.asked == []
    assert {record["source"] for record in read(output)} == set(sources)


def test_each_record_is_on_disk_when_it_is_yielded(tmp_path):
    output = tmp_path / "records.jsonl"
    for count, _ in enumerate(predict_paths(CountingPipe(), ["a.mp4", "b.mp4", "c.mp4"], output=output), start=1):
        assert len(read(output)) == count


def test_other_settings_do_not_mix(tmp_path):
    output = tmp_path / "records.jsonl"
    list(predict_paths(CountingPipe(), ["a.mp4"], output=output))
    with pytest.raises(ValueError, match="resume=False"):
        list(predict_paths(CountingPipe(), ["a.mp4"], window=1.0, output=output))
    assert len(list(predict_paths(CountingPipe(), ["a.mp4"], window=1.0, output=output, resume=False))) == 3
    assert len(read(output)) == 3
    with pytest.raises(ValueError, match=r"\.jsonl or \.csv"):
        list(predict_paths(CountingPipe(), ["a.mp4"], output=tmp_path / "records.xml"))


def test_names_that_are_not_unicode(tmp_path):
    name = os.fsdecode(b"caf\xe9.mp4")
    for kind in ("jsonl", "csv"):
        output = tmp_path / f"records.{kind}"
        assert len(list(predict_paths(CountingPipe(), [name], output=output))) == 1
        assert list(predict_paths(CountingPipe(), [name], output=output)) == []


def test_rows_of_a_record_come_back():
    records = list(predict_paths(CountingPipe(), ["a.mp4", "bad.mp4"]))
    records += list(predict_paths(CountingPipe(), ["a.mp4"], window=0.1))
    records.append({"source": "none.mp4", "predictions": []})
    rows = [{key: str(value) for key, value in row.items()} for record in records for row in rows_of_record(record)]
    empty = dict.fromkeys(("start", "end", "last", "rank", "label", "score", "error", "message"), "")
    assert records_of_rows([{**empty, **row} for row in rows]) == records


def test_the_table_shows_labels_as_they_are():
    console = Console(width=120, record=True, file=open(os.devnull, "w"))
    hostile = "[red]link[/red] \x1b[2J \u202e"
    console.print(
        predictions_table(
            [
                {"source": "a.mp4", "predictions": [{"label": hostile, "score": 0.5}]},
                {"source": "b.mp4", "start": 1.0, "end": 2.5, "last": True, "predictions": []},
                {"source": "c.mp4", "error": "VideoEmpty", "message": "0 bytes"},
            ]
        )
    )
    shown = console.export_text()
    assert "[red]link[/red]" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "1.00" in shown
    assert "VideoEmpty: 0 bytes" in shown


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("comma.csv", "file_name,label\na b.mp4,x\n"),
        ("marked.csv", "\ufefffile_name,label\r\na b.mp4,x\r\n"),
        ("semicolon.csv", "file_name;label\na b.mp4;x, y\n"),
        ("tab.tsv", "label\tpath\nx\ta b.mp4\n"),
        ("bare.csv", "a b.mp4\n"),
        ("words.txt", "a b.mp4 x\n"),
    ],
)
def test_lists_in_the_forms_that_spreadsheets_write(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert list(expand_inputs(tmp_path / name)) == [str(tmp_path / "a b.mp4")]


def test_a_list_in_another_encoding_is_named(tmp_path):
    (tmp_path / "list.csv").write_bytes("path\ncaf\u00e9.mp4\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"list\.csv: not UTF-8"):
        list(expand_inputs(tmp_path / "list.csv"))


def test_a_stride_without_a_window_is_an_error(pipe, videos):
    with pytest.raises(ValueError, match="needs a window"):
        list(predict_paths(pipe, videos.long_mp4, stride=1.0))


def test_windows_that_start_behind_the_end_are_one_error_record(pipe, videos):
    (record,) = predict_paths(pipe, videos.long_mp4, window=1.0, start=100.0)
    assert (record["error"], record["source"]) == ("VideoTooShort", str(videos.long_mp4))
    assert "start=100" in record["message"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("out.csv", "name,score\nsomebody,3\n"),
        ("out.jsonl", "{ not json\n"),
        ("out.jsonl", "[1, 2]\n"),
        ("out.jsonl", '{"name": "x"}\n'),
    ],
)
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="holds something else than predictions"):
        RecordFile(tmp_path / name, in_windows=False)
    assert (tmp_path / name).read_text() == content
