"""The search over blocks, tokens and number types: every combination once, on the same videos, in one chart."""

import json
from io import StringIO

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from hf_effvid import EffVidVideoProcessor, drop_blocks, evaluate_classifier, load_video_dataset, select_tokens
from hf_effvid.cli import app
from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.export import SearchError, search_compression
from hf_effvid.export.compression_search import step_models

from ..models.tiny_videomae import tiny_videomae


LABELS = ("moves_left", "moves_right")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """What `effvid compress` leaves: a folder per step, each a checkpoint."""
    folder = tmp_path_factory.mktemp("compressed")
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    model = tiny_videomae(num_hidden_layers=3, num_labels=2, **names)
    processor = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32)
    for step, dropped in enumerate([[], [1]]):
        drop_blocks(model, dropped).save_pretrained(folder / f"step-{step}" / "model")
        processor.save_pretrained(folder / f"step-{step}" / "model")
    return folder


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    clips = {"train": 1, "validation": 1, "test": 6}
    folder = make_motion_dataset(tmp_path_factory.mktemp("motion"), clips_per_class=clips, classes=LABELS, seed=1)
    (next(iter((folder / "test").rglob("*.mp4")))).write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def videos(motion):
    return load_video_dataset(motion, split="test")


@pytest.fixture(scope="module")
def report(compressed, videos):
    return search_compression(
        str(compressed), videos, keep_ratios=(1, 0.5), number_types=("float32", "bfloat16"), rounds=6, threads=1,
        clock="processor", dataset_name="motion", name="tiny", progress=False,
    )  # fmt: skip


def test_every_combination_once_and_the_uncompressed_model_first(report):
    assert len(report.rows) == len({row.name for row in report.rows}) == 2 * 2 * 2
    first = report.rows[0]
    assert (first.dropped, first.keep_ratio, first.number_type, first.speedup) == (0, 1, "float32", None)
    assert report.num_videos == 11 and report.num_failed == 1
    by_name = {row.name: row for row in report.rows}
    fewer = by_name["1 dropped, keep 0.5, float32"]
    assert fewer.gmacs < by_name["1 dropped, all tokens, float32"].gmacs < first.gmacs
    assert fewer.parameters < first.parameters and fewer.speedup.coverage > 0.95


def test_accuracies_are_those_of_the_models_themselves(report, compressed, videos):
    model = compressed / "step-1" / "model"
    plain = evaluate_classifier(str(model), videos, multi_view=False, progress=False)
    row = next(row for row in report.rows if row.name == "1 dropped, all tokens, float32")
    assert list(row.correct) == list(plain.correct)
    assert report.difference(row).value == pytest.approx(row.accuracy.value - report.rows[0].accuracy.value)


def test_front_choice_entries_and_chart(report, tmp_path):
    front = report.front()
    assert front[0] == min(report.rows, key=lambda row: (row.latency_ms, -row.accuracy.value))
    assert front[-1].accuracy.value == max(row.accuracy.value for row in report.rows)
    screen = Console(width=80, record=True, file=StringIO())
    screen.print(report.to_table())  # every column whole on a narrow terminal
    text = screen.export_text()
    assert "dropped" in text and "bfloat16" in text and "…" not in text
    choice = report.best_under_budget(max(row.latency_ms for row in report.rows))
    assert choice.setting.accuracy.value == front[-1].accuracy.value
    document = json.loads(json.dumps(ResultsFile(report.to_result_entries()).to_dict()))
    entries = ResultsFile.from_dict(document).results
    assert len({entry.key for entry in entries}) == 8 and entries[1].cost.baseline == report.rows[0].name
    assert entries[-1].cost.execution == "eager, processor time"
    assert "scorer" in entries[-1].protocol and entries[0].metric("top1").n == 11
    png, svg = report.plot(tmp_path / "chart.png")
    assert png.stat().st_size > 10_000 and "all blocks, all tokens, float32" in svg.read_text()


@pytest.mark.slow
def test_files_for_onnxruntime_answer_as_the_models(compressed, videos):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    report = search_compression(
        step_models(compressed)[:1], videos, keep_ratios=(0.7, 0.5), number_types=("float32", "onnx", "int8"), rounds=1,
        progress=False,
    )  # fmt: skip
    assert [row.name.split(", ", 1)[1] for row in report.rows] == [
        "all tokens, float32", "keep 0.7, float32", "keep 0.7, onnx", "keep 0.7, int8", "keep 0.5, float32", "keep 0.5, onnx", "keep 0.5, int8",
    ]  # fmt: skip
    by_type = {row.number_type: row for row in report.rows[1:]}
    assert by_type["onnx"].correct == by_type["float32"].correct
    assert by_type["int8"].gmacs == by_type["float32"].gmacs


def test_models_in_memory_need_their_recipe_and_keep_their_weights(videos):
    model = select_tokens(tiny_videomae(num_labels=2), keep_ratio=0.5, scorer="embedding_norm")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    processor = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32)
    report = search_compression([model], videos, processor=processor, rounds=1, max_videos=2, progress=False)
    assert report.rows[0].name == "all blocks, all tokens, float32"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.config.keep_ratio == 0.5
    with pytest.raises(ValueError, match="pass its processor"):
        search_compression([model], videos, rounds=1, progress=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"number_types": ("float8",)}, "number types are"),
        ({"keep_ratios": (0,)}, "above 0"),
        ({"keep_ratios": (1, 1.0)}, "twice"),
        ({"keep_ratios": ()}, "above 0"),
    ],
)
def test_settings_that_make_no_search(compressed, videos, settings, message):
    with pytest.raises(SearchError, match=message):
        search_compression(str(compressed), videos, progress=False, **settings)


def test_models_in_another_order_or_twice(compressed, videos):
    steps = step_models(compressed)
    for models in (steps[::-1], [steps[0], steps[0]]):
        with pytest.raises(SearchError, match="all of its blocks first"):
            search_compression(models, videos, progress=False)


def test_the_command_names_the_best_within_a_budget(compressed, motion, tmp_path):
    results, chart = tmp_path / "results.json", tmp_path / "chart.png"
    arguments = ["search", compressed, "-d", motion, "--dtypes", "float32", "--keep-ratios", "1,0.5", "--rounds", "1"]
    arguments += ["--budget-ms", "1e6", "--results", results, "--chart", chart, "-q"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert "is the most accurate within the budget" in " ".join(done.output.split())
    assert chart.is_file() and len(ResultsFile.load(results).results) == 4
