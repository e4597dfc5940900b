import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import VideoMAEForVideoClassification, VideoMAEImageProcessor, VideoMAEVideoProcessor

from hf_effvid.data.loading import load_video_dataset
from hf_effvid.evaluation.classification import NothingEvaluatedError, evaluate_classifier
from hf_effvid.evaluation.labels import LabelMismatchError
from hf_effvid.evaluation.prediction_log import PredictionLogError
from hf_effvid.evaluation.results import ResultEntry, wilson_interval
from hf_effvid.evaluation.scores import mean_average_precision, micro_f1
from hf_effvid.models.video_reader import read_video

from .conftest import CLASSES, tiny_videomae


@pytest.fixture
def dataset(motion_folder):
    return load_video_dataset(motion_folder, split="test")


def by_hand(model, processor, dataset, **views):
    """Scores of every video, one video and one view at a time."""
    model = model.eval()
    scores = []
    for row in dataset:
        pixels = processor(row["video"], multi_view=True, **views)["pixel_values"]
        with torch.no_grad():
            scores.append(torch.stack([model(view[None]).logits[0].softmax(-1) for view in pixels]).mean(0))
    return torch.stack(scores).numpy()


def test_multi_view_equals_one_view_at_a_time(model, processor, dataset):
    model.train()
    report = evaluate_classifier(model, dataset, processor, batch_size=5, progress=False, command="test")
    assert model.training  # left as it was
    expected = by_hand(model, processor, dataset)
    np.testing.assert_allclose(report.scores, expected, atol=1e-5)
    names = dataset.features["label"].names
    labels = np.array([CLASSES.index(names[row["label"]]) for row in dataset])
    assert report.targets.tolist() == labels.tolist()
    hits = int((expected.argmax(1) == labels).sum())
    assert report.top1 == hits / 12 and report.n == 12 and report.top5 is None
    assert report.metric("top1").interval == wilson_interval(hits, 12)
    assert report.confusion.sum() == 12 and np.trace(report.confusion) == hits
    assert [row["n"] for row in report.per_class] == [3, 3, 3, 3]
    assert {p.num_views for p in report.predictions} == {6}


def test_logit_mean_and_other_views(model, processor, dataset):
    single = evaluate_classifier(model, dataset, processor, multi_view=False, progress=False)
    assert {p.num_views for p in single.predictions} == {1}
    assert (single.protocol["num_clips"], single.protocol["num_crops"]) == (1, 1)
    more = evaluate_classifier(model, dataset, processor, num_clips=3, num_crops=1, max_videos=2, progress=False)
    np.testing.assert_allclose(
        more.scores, by_hand(model, processor, dataset.select(range(2)), num_clips=3, num_crops=1), atol=1e-5
    )
    assert more.n == 2 and more.protocol["num_clips"] == 3


def test_the_report_is_a_valid_result(model, processor, dataset):
    report = evaluate_classifier(
        model,
        dataset,
        processor,
        progress=False,
        dataset_name="motion",
        split="test",
        seed=5,
        command="effvid evaluate tiny motion",
    )
    entry = report.to_result_entry()
    assert ResultEntry.from_dict(json.loads(json.dumps(entry.to_dict()))) == entry
    assert (entry.dataset, entry.split, entry.provenance.seed, entry.provenance.dtype) == (
        "motion",
        "test",
        5,
        "float32",
    )
    assert entry.protocol["num_frames"] == 4 and entry.protocol["aggregation"] == "softmax_mean"
    assert entry.cost.parameters == sum(p.numel() for p in model.parameters())
    assert entry.cost.gmacs > 0
    json.dumps(report.to_dict())
    assert "n = 12" in report.to_text()


def test_the_report_names_what_the_split_says(model, processor, motion_folder):
    for streaming in (False, True):
        rows = load_video_dataset(motion_folder, split="test", streaming=streaming)
        report = evaluate_classifier(model, rows, processor, multi_view=False, max_videos=1, progress=False)
        assert (report.dataset_name, report.split) == (motion_folder.name, "test")
    rows = [{"video": next(motion_folder.rglob("*.mp4")), "label": "grows"}]
    report = evaluate_classifier(model, rows, processor, multi_view=False, progress=False)
    assert (report.dataset_name, report.split) == ("unnamed", "all")


def test_names_are_matched_not_numbers(processor, dataset):
    # the same weights under another order of the classes: the same accuracy
    order = [2, 0, 3, 1]
    model, shuffled = tiny_videomae(CLASSES), tiny_videomae([CLASSES[i] for i in order])
    shuffled.load_state_dict(model.state_dict())
    with torch.no_grad():
        shuffled.classifier.weight.copy_(model.classifier.weight[order])
        shuffled.classifier.bias.copy_(model.classifier.bias[order])
    reports = [evaluate_classifier(m, dataset, processor, progress=False) for m in (model, shuffled)]
    assert reports[0].top1 == reports[1].top1
    assert reports[0].correct.tolist() == reports[1].correct.tolist()
    with pytest.raises(LabelMismatchError, match="unknown to the model"):
        evaluate_classifier(tiny_videomae(["a", "b", "c", "d"]), dataset, processor, progress=False)


@pytest.fixture
def damaged(motion_folder, tmp_path):
    folder = shutil.copytree(motion_folder, tmp_path / "motion")
    files = sorted(folder.rglob("*.mp4"))
    files[0].write_bytes(b"this is no video")
    files[5].write_bytes(b"")
    return load_video_dataset(folder, split="test")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_bad_files_are_recorded_and_counted(model, processor, damaged, num_workers):
    report = evaluate_classifier(model, damaged, processor, multi_view=False, num_workers=num_workers, progress=False)
    assert report.n == 10 and len(report.failures) == 2
    assert report.metric("top1").n == 10
    assert all(failure["source"] in failure["error"] for failure in report.failures)
    entry = report.to_result_entry()
    assert entry.num_failed == 2
    assert "not evaluated" in report.to_text()


def test_bad_files_can_stop_it(model, processor, damaged):
    with pytest.raises(ValueError, match="mp4") as caught:
        evaluate_classifier(model, damaged, processor, on_error="raise", progress=False)
    assert any(cls.__name__ == "VideoError" for cls in type(caught.value).__mro__)


def test_nothing_to_evaluate(model, processor, tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"nothing")
    rows = [{"video": str(tmp_path / "x.mp4"), "label": "grows"}]
    with pytest.raises(NothingEvaluatedError, match="first error"):
        evaluate_classifier(model, rows, processor, progress=False)
    with pytest.raises(NothingEvaluatedError, match="no videos"):
        evaluate_classifier(model, [], processor, progress=False)


def test_programming_errors_are_not_bad_files(model, dataset):
    class Broken:
        frame_indices = None

        def __call__(self, *args, **kwargs):
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        evaluate_classifier(model, dataset, Broken(), progress=False)


class StopAfter:
    """A model that is interrupted in the middle of an evaluation."""

    def __init__(self, model, calls):
        self.calls, self.remaining = 0, calls
        model.register_forward_pre_hook(self.count, with_kwargs=True)

    def count(self, module, arguments, options):
        self.calls += not options["pixel_values"].is_meta  # counting operations runs the model on shapes alone
        if self.calls > self.remaining:
            raise KeyboardInterrupt


def test_an_interrupted_evaluation_goes_on(model, processor, dataset, tmp_path):
    options = {"multi_view": False, "batch_size": 2, "progress": False, "dataset_name": "motion"}
    whole = evaluate_classifier(model, dataset, processor, **options)
    path = tmp_path / "predictions.jsonl"
    interrupted = tiny_videomae(CLASSES)
    StopAfter(interrupted, 3)
    with pytest.raises(KeyboardInterrupt):
        evaluate_classifier(interrupted, dataset, processor, predictions_file=path, **options)
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 6
    # killed in the middle of a line
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:17])
    again = tiny_videomae(CLASSES)
    counter = StopAfter(again, 100)
    resumed = evaluate_classifier(again, dataset, processor, predictions_file=path, **options)
    assert counter.calls == 4  # 7 videos in twos; the cost is counted without running the model
    # other videos share a batch now, which changes the last digit
    np.testing.assert_allclose(resumed.scores, whole.scores, atol=1e-6)
    assert [p.index for p in resumed.predictions] == list(range(12))
    assert resumed.metrics == whole.metrics
    assert len(path.read_text().splitlines()) == 13


def test_predictions_of_another_evaluation_are_refused(model, processor, dataset, tmp_path):
    path = tmp_path / "predictions.jsonl"
    options = {"predictions_file": path, "progress": False}
    evaluate_classifier(model, dataset, processor, multi_view=False, **options)
    with pytest.raises(PredictionLogError, match="different: protocol"):
        evaluate_classifier(model, dataset, processor, num_clips=3, **options)
    with pytest.raises(PredictionLogError, match="different: weights"):
        evaluate_classifier(tiny_videomae(CLASSES, seed=1), dataset, processor, multi_view=False, **options)
    reordered = dataset.select(range(11, -1, -1))
    with pytest.raises(PredictionLogError, match="as video"):
        evaluate_classifier(model, reordered, processor, multi_view=False, **options)


def test_streaming_lists_and_decoded_columns_agree(model, processor, dataset, motion_folder):
    options = {"multi_view": False, "progress": False}
    expected = evaluate_classifier(model, dataset, processor, **options)
    streamed = evaluate_classifier(
        model, load_video_dataset(motion_folder, split="test", streaming=True), processor, **options
    )
    assert sorted(map(tuple, streamed.scores)) == sorted(map(tuple, expected.scores))
    names = dataset.features["label"].names
    rows = [{"video": row["video"]["path"], "label": names[row["label"]]} for row in dataset]
    assert evaluate_classifier(model, rows, processor, **options).scores.tolist() == expected.scores.tolist()


def test_parts_of_files(model, processor, dataset):
    path = dataset[0]["video"]["path"]
    rows = [{"video": path, "label": 0, "start": s, "end": e} for s, e in [(None, None), (0.0, 0.2), (0.3, 0.6)]]
    report = evaluate_classifier(model, rows, processor, multi_view=False, progress=False)
    expected = [processor(path)["pixel_values"], processor(path, start=0.0, end=0.2)["pixel_values"]]
    with torch.no_grad():
        scores = [model.eval()(pixels).logits.softmax(-1)[0].numpy() for pixels in expected]
    np.testing.assert_allclose(report.scores[:2], scores, atol=1e-5)
    assert not np.allclose(report.scores[0], report.scores[2], atol=1e-4)


@pytest.mark.parametrize(
    "stock",
    [
        VideoMAEVideoProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
        VideoMAEImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}),
    ],
    ids=["video processor", "image processor"],
)
def test_stock_processors(model, dataset, stock):
    report = evaluate_classifier(model, dataset, stock, progress=False)
    for row, scores in zip(dataset, report.scores, strict=True):
        frames = read_video(row["video"]["path"], num_frames=4).frames
        if hasattr(stock, "fetch_videos"):
            pixels = stock(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"]
        else:
            pixels = stock([f.permute(1, 2, 0).numpy() for f in frames], return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            np.testing.assert_allclose(scores, model.eval()(pixels).logits.softmax(-1)[0].numpy(), atol=1e-5)
    views = evaluate_classifier(model, dataset, stock, num_clips=2, num_crops=3, max_videos=1, progress=False)
    assert views.predictions[0].num_views == 6


def test_a_checkpoint_folder_brings_its_recipe(model, processor, dataset, tmp_path):
    model.save_pretrained(tmp_path / "my-model")
    processor.save_pretrained(tmp_path / "my-model")
    report = evaluate_classifier(tmp_path / "my-model", dataset, progress=False, max_videos=2)
    assert report.model_name == "my-model" and report.predictions[0].num_views == 6
    np.testing.assert_allclose(report.scores, by_hand(model, processor, dataset.select(range(2))), atol=1e-5)


def test_an_adapter_is_called_by_its_own_name(model, processor, dataset, tmp_path):
    model.save_pretrained(tmp_path / "base")
    model = VideoMAEForVideoClassification.from_pretrained(tmp_path / "base")
    lora = LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["classifier"], init_lora_weights=False)
    adapter = get_peft_model(model, lora)
    adapter.save_pretrained(tmp_path / "my-adapter")
    processor.save_pretrained(tmp_path / "my-adapter")
    in_memory = evaluate_classifier(adapter, dataset, processor, progress=False)
    from_folder = evaluate_classifier(tmp_path / "my-adapter", dataset, progress=False)
    assert (in_memory.model_name, from_folder.model_name) == ("base with an adapter", "my-adapter")
    np.testing.assert_allclose(from_folder.scores, in_memory.scores, atol=1e-6)
    base = evaluate_classifier(tmp_path / "base", dataset, processor, progress=False)
    assert base.model_name == "base" and not np.allclose(base.scores, in_memory.scores, atol=1e-3)


def test_multi_label(processor, dataset):
    model = tiny_videomae(CLASSES, problem_type="multi_label_classification")
    generator = np.random.default_rng(0)
    targets = generator.random((12, 4)) < 0.5
    rows = [
        {"video": row["video"]["path"], "label": [CLASSES[k] for k in np.flatnonzero(target)]}
        for row, target in zip(dataset, targets, strict=True)
    ]
    report = evaluate_classifier(model, rows, processor, multi_view=False, progress=False)
    assert report.targets.tolist() == targets.tolist()
    assert report.metric("mAP").value == mean_average_precision(report.scores, targets)
    assert report.metric("micro_f1").value == micro_f1(report.scores > 0.5, targets)
    for metric in report.metrics:
        assert metric.n == 12 and metric.interval[0] < metric.value < metric.interval[1]
        assert "bootstrap" in metric.interval_method
    assert report.top1 is None and "average_precision" in report.per_class[0]
    assert not np.allclose(report.scores.sum(1), 1)
    with pytest.raises(ValueError, match="no confusion"):
        _ = report.confusion
    json.dumps(report.to_dict())


def test_top5_needs_more_than_five_classes(processor, dataset):
    model = tiny_videomae([*CLASSES, "a", "b", "c"])
    report = evaluate_classifier(model, dataset, processor, multi_view=False, progress=False)
    assert report.top5 >= report.top1
    assert report.metric("top5").n == 12
    assert [row["accuracy"] for row in report.per_class[4:]] == [None] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "/some/path"}, "load_video_dataset"),
        ({"dataset": {"train": [], "test": []}}, "one split"),
        ({"on_error": "ignore"}, "on_error"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1"),
        ({"num_crops": 0}, "num_crops must be an integer >= 1"),
        ({"num_clips": 1.5}, "num_clips must be an integer >= 1"),
        ({"max_videos": 0}, "max_videos must be an integer >= 1"),
        ({"processor": None}, "pass its processor"),
        ({"label_column": "category"}, "no column 'category'"),
    ],
)
def test_wrong_arguments(model, processor, dataset, change, message):
    arguments = {"model": model, "dataset": dataset, "processor": processor, "progress": False, **change}
    with pytest.raises((TypeError, ValueError), match=message):
        evaluate_classifier(**arguments)


def test_the_order_of_frames_can_be_taken_away(model, processor, dataset):
    natural, shuffled, again, reversed_ = (
        evaluate_classifier(model, dataset, processor, frame_order=order, progress=False)
        for order in ("natural", "shuffled", "shuffled", "reversed")
    )
    assert "frame_order" not in natural.protocol and shuffled.protocol["frame_order"] == "shuffled"
    assert np.array_equal(shuffled.scores, again.scores)
    assert not np.allclose(natural.scores, shuffled.scores) and not np.allclose(natural.scores, reversed_.scores)
    with pytest.raises(ValueError, match="frame_order"):
        evaluate_classifier(model, dataset, processor, frame_order="sorted", progress=False)
