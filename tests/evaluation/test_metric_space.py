"""The metric as a Space: what would be sent, that it loads from there offline, and that its page answers."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import HfApi

from hf_effvid.evaluation.metrics import metric_path


SCRIPTS = Path(__file__).resolve().parents[2] / "upload_scripts"
TRUTH = [{"segments": [[2.0, 6.0], [9.0, 20.0]], "labels": ["jump", "run"]}, {"segments": [], "labels": []}]
FOUND = [
    {"segments": [[2.2, 6.1], [10.0, 20.0]], "labels": ["jump", "jump"], "scores": [0.9, 0.4]},
    {"segments": [[0.0, 1.0]], "labels": ["run"], "scores": [0.1]},
]


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import upload_metric

    return upload_metric


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a dry run asks nobody")

    for name in ("create_repo", "create_commit", "repo_info", "list_repo_files"):
        monkeypatch.setattr(HfApi, name, refuse)


def test_a_dry_run_shows_and_stages_and_sends_nothing(script, no_network, tmp_path, capsys):
    requirement = "hf_effvid @ git+https://example.org/hf_effvid"
    options = ["--stage", str(tmp_path / "detection_map"), "--requirement", requirement]
    assert script.main(["detection_map", "org/detection_map", *options]) == 0
    printed = capsys.readouterr().out
    assert "dry run: nothing was sent" in printed and "private" in printed
    files = sorted(path.name for path in (tmp_path / "detection_map").iterdir())
    assert files == ["README.md", "app.py", "detection_map.py", "requirements.txt"]
    assert (tmp_path / "detection_map" / "requirements.txt").read_text().splitlines() == [
        "evaluate>=0.4.5",
        "datasets>=4.4",
        requirement,
    ]
    evaluate = pytest.importorskip("evaluate")
    metric = evaluate.load(str(tmp_path / "detection_map"), cache_dir=str(tmp_path / "cache"))
    result = metric.compute(predictions=FOUND, references=TRUTH, tious=[0.5, 0.95])
    assert result["average_mAP"] == pytest.approx(0.25) and result["num_videos"] == 2


def test_the_header_is_what_a_space_needs(script):
    text = script.space_files("detection_map")["README.md"].decode()
    header = yaml.safe_load(text.split("---")[1])
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py" and header["sdk_version"].count(".") == 2
    assert {"evaluate", "metric"} <= set(header["tags"]) and header["title"] and header["description"]
    for part in ("Metric description", "How to use", "Inputs", "Output values", "Limitations", "Citation"):
        assert f"# {part}\n" in text


def test_publishing_is_one_commit_to_a_space(script):
    calls = []

    class Api:
        def create_repo(self, *arguments, **options):
            calls.append(("create_repo", arguments, options))

        def create_commit(self, repo_id, operations, **options):
            calls.append(("create_commit", [one.path_in_repo for one in operations], options))
            return SimpleNamespace(commit_url="https://hub/commit/1")

    told = script.upload_metric("detection_map", "org/detection_map", publish=True, api=Api())
    assert told.endswith("published: https://hub/commit/1")
    (created, committed) = calls
    assert created[2] == {"repo_type": "space", "space_sdk": "gradio", "private": True, "exist_ok": True}
    assert committed[1] == ["detection_map.py", "README.md", "app.py", "requirements.txt"]
    assert committed[2]["repo_type"] == "space"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["detection_map", "org/other"], "call the Space so"),
        (["perplexity", "org/perplexity"], "there is no metric"),
        (["topk_accuracy", "org/topk_accuracy"], "no Space yet"),
        (["detection_map", "org/detection_map", "--requirement", "torch"], "begins with hf_effvid"),
    ],
)
def test_what_cannot_be_published(script, no_network, capsys, arguments, reason):
    assert script.main(arguments) == 1
    assert reason in capsys.readouterr().err


def test_the_page_builds_and_answers(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")  # tests ask nobody
    gradio = pytest.importorskip("gradio", reason="the Space's page needs gradio")
    pytest.importorskip("evaluate")
    monkeypatch.setenv("HF_EVALUATE_CACHE", str(tmp_path))
    path = Path(metric_path("detection_map"), "app.py")
    spec = importlib.util.spec_from_file_location("detection_map_app", path)
    app = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "detection_map_app", app)
    spec.loader.exec_module(app)
    assert isinstance(app.demo, gradio.Blocks)
    average, table = app.evaluate_detections(app.TRUTH, app.FOUND, "0.5, 0.75", "activitynet")
    assert average.startswith("average mAP 1.0000  (2 videos, 2 annotations, 4 predictions)")
    assert table["headers"] == ["", "tIoU 0.5", "tIoU 0.75"] and [row[0] for row in table["data"]] == [
        "mAP",
        "jump",
        "run",
    ]
    for truth in ("[", "{}", "[{}]"):
        with pytest.raises(gradio.Error, match="no annotations and predictions"):
            app.evaluate_detections(truth, app.FOUND, "0.5", "default")
