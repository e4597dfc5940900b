"""What 8 bits cost on videos with labels, in the one results format; and the command that does it all."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from hf_effvid import load_video_dataset
from hf_effvid.cli import app
from hf_effvid.evaluation.results import ResultEntry, ResultsFile
from hf_effvid.export import ExportError, measure_accuracy
from hf_effvid.export.accuracy import _compared

from ..evaluation.conftest import tiny_videomae
from .conftest import LABELS


pytest.importorskip("onnxruntime", reason="the export extra is not installed")

runner = CliRunner()


def call(*arguments):
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def accuracy(exported, motion):
    return measure_accuracy(
        exported.report,
        exported.checkpoint,
        load_video_dataset(str(motion), split="test"),
        variants=("ONNX float32", "ONNX int8 dynamic"),
        model_name="org/tiny",
        dataset_name="motions",
        split="test",
        seed=3,
        command="a command",
        progress=False,
    )


def test_the_file_in_floats_is_as_accurate_as_the_model(accuracy):
    native = accuracy.variants[0]
    assert native.report.scores == pytest.approx(accuracy.original.scores, abs=1e-4)
    assert native.difference.value == 0 and native.agreement.value == 1 and native.agreement.n == 8
    assert accuracy.original.model_name == native.report.model_name == "org/tiny"


def test_a_video_that_one_of_the_two_could_not_read_is_left_out_of_the_pairs(accuracy):
    native = accuracy.variants[0]
    predictions = list(accuracy.original.predictions)
    predictions[2] = replace(predictions[2], error="took too long", error_type="VideoTimeout")
    fewer = replace(accuracy.original, predictions=predictions)
    compared = _compared(native.row, native.report, fewer)
    assert compared.difference.n == compared.agreement.n == 7 and compared.agreement.value == 1
    nothing = [replace(one, error="gone", error_type="VideoNotFound") for one in predictions]
    with pytest.raises(ExportError, match="one video in common"):
        _compared(native.row, native.report, replace(accuracy.original, predictions=nothing))


def test_result_entries_say_what_was_measured_on_what(exported, accuracy, tmp_path):
    entries = accuracy.to_result_entries("from scratch")
    assert [entry.variant for entry in entries] == [
        "from scratch, ONNX float32",
        "from scratch, ONNX float32 against PyTorch float32",
        "from scratch, ONNX int8 dynamic",
        "from scratch, ONNX int8 dynamic against PyTorch float32",
    ]
    integer, against = entries[2:]
    assert integer.metric("top1").n == 8 and integer.metric("top1").interval is not None
    assert integer.provenance.dtype == "int8 dynamic"
    assert integer.cost.parameters == sum(p.numel() for p in exported.model.parameters())
    assert integer.cost.parameters == sum(p.numel() for p in exported.model.parameters())
    assert integer.cost.gmacs > 0 and integer.cost.latency_ms is None  # times have entries of their own
    assert integer.provenance.seed == 3 and integer.provenance.command == "a command"
    assert against.metric("top1 difference, A minus B").interval_method.startswith("paired bootstrap")
    assert against.metric("same_answer").n == 8
    ResultsFile(entries).save(tmp_path / "results.json")
    assert [ResultEntry.from_dict(entry.to_dict()) for entry in entries] == ResultsFile.load(
        tmp_path / "results.json"
    ).results


def test_times_are_entries_like_those_of_the_benchmark(exported):
    original, native, dynamic, _ = exported.report.to_result_entries("org/tiny", command="a command")
    assert original.cost.execution == "eager" and original.cost.speedup is None
    assert (native.cost.execution, native.cost.dtype) == ("onnxruntime", "float32")
    assert native.cost.baseline == "PyTorch float32" and native.cost.speedup > 0
    assert dynamic.cost.dtype == "int8 dynamic" and dynamic.cost.hardware == exported.report.hardware
    assert dynamic.notes == (f"ONNX int8 dynamic: {exported.report.get('ONNX int8 dynamic').bytes:,} bytes",)
    assert len({entry.key for entry in (original, native, dynamic)}) == 3 and not dynamic.metrics
    assert dynamic.model == "org/tiny" and dynamic.provenance.command == "a command"


def test_the_text_shows_every_variant(accuracy):
    text = accuracy.to_text()
    assert "motions (test), n = 8" in text and "ONNX int8 dynamic" in text and "same answer on 8 of 8" in text


def test_an_export_is_judged_by_the_labels_of_its_model(exported, motion):
    rows = [{"video": str(path), "label": "no such class"} for path in sorted(motion.glob("test/*/*.mp4"))[:2]]
    with pytest.raises(ValueError, match="no such class"):
        measure_accuracy(exported.report, exported.checkpoint, rows, progress=False)


@pytest.mark.slow
def test_the_command_exports_evaluates_and_records(exported, motion, tmp_path):
    result = call(
        "export", exported.checkpoint, tmp_path / "out", "--int8", "weight-only", "--evaluate", motion, "--name", "motions",
        "--model-name", "org/tiny", "--variant", "from scratch", "--results", tmp_path / "results.json", "--json", "--quiet",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["dynamic_axes"] == ["batch", "frames", "height", "width"]
    assert [row["variant"] for row in document["rows"]] == ["PyTorch float32", "ONNX float32", "ONNX int8 weight-only"]
    assert (tmp_path / "out" / document["rows"][2]["file"]).is_file()
    assert len(document["accuracy"]["results"]) == 4
    recorded = ResultsFile.load(tmp_path / "results.json").results
    assert {entry.variant for entry in recorded} >= {"from scratch, ONNX int8 weight-only"}
    assert sum(entry.cost.latency_ms is not None for entry in recorded) == 3
    again = call("export", exported.checkpoint, tmp_path / "out", "--quiet")
    assert again.exit_code == 1


def test_the_command_prints_a_table_that_fits_a_terminal(tmp_path):
    from transformers import VideoMAEImageProcessor

    tiny_videomae(LABELS).save_pretrained(tmp_path / "model")
    VideoMAEImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "model"
    )
    result = call("export", tmp_path / "model", tmp_path / "out", "--format", "pt2", "--quiet")
    assert result.exit_code == 0, result.output
    table = [line for line in result.stdout.splitlines() if "torch.export float32" in line]
    assert len(table) == 1 and "12 of 12" in table[0]
    assert (tmp_path / "out" / "model.pt2").is_file()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--opset", "twenty"], 2, "--opset"),
        (["--format", "tflite"], 1, "onnx, pt2"),
        (["--int8", "static"], 1, "dynamic, weight-only"),
    ],
)
def test_wrong_usage_of_the_command(exported, tmp_path, options, code, message):
    result = call("export", exported.checkpoint, tmp_path / "out", *options)
    assert (result.exit_code, list(tmp_path.iterdir())) == (code, [])
    assert message in (result.output if code == 2 else str(result.exception))
