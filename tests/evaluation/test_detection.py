"""The evaluator of detections against its definition, on what is not clean, and as an `evaluate` module."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_effvid.evaluation.detection import THUMOS_TIOUS, evaluate_detector
from hf_effvid.evaluation.detection_charts import plot_errors
from hf_effvid.evaluation.detection_errors import KINDS, analyze_detections
from hf_effvid.evaluation.detection_matching import average_precision
from hf_effvid.evaluation.detection_protocol import DetectionError, DetectionProtocol
from hf_effvid.evaluation.metrics import metric_path


def make_run(seed, videos=4, annotations=12, predictions=40, classes=3, decimals=4):
    """Annotations, and predictions of which half are shifted annotations; coarse decimals make ties."""
    generator = np.random.default_rng(seed)
    names = [f"v{number}" for number in range(videos)]
    truth = {name: {"duration": 60.0, "annotations": []} for name in names}
    found = {name: [] for name in names}
    drawn = []
    for _ in range(annotations):
        start = float(np.round(generator.uniform(0, 50), decimals))
        one = (names[generator.integers(videos)], f"c{generator.integers(classes)}", start,
               float(np.round(start + generator.uniform(0.5, 9), decimals)))  # fmt: skip
        drawn.append(one)
        truth[one[0]]["annotations"].append({"label": one[1], "segment": [one[2], one[3]]})
    for _ in range(predictions):
        video, label, start, end = drawn[generator.integers(len(drawn))]
        if generator.random() < 0.3:
            label = f"c{generator.integers(classes)}"
        start, end = start + generator.normal(0, 0.7), end + generator.normal(0, 0.7)
        score = float(np.round(generator.random(), decimals))
        found[video].append({"label": label, "segment": [min(start, end), max(start, end)], "score": score})
    return truth, found


def by_the_definition(truth, found, tiou):
    """mAP at one overlap, written as loops."""
    labels = {a["label"] for entry in truth.values() for a in entry["annotations"]}
    values = []
    for label in labels:
        targets = {v: [a["segment"] for a in e["annotations"] if a["label"] == label] for v, e in truth.items()}
        count = sum(map(len, targets.values()))
        ranked = [(p["score"], v, p["segment"]) for v, many in found.items() for p in many if p["label"] == label]
        ranked.sort(key=lambda one: -one[0])
        taken, hits = set(), []
        for _, video, (a, b) in ranked:
            options = []
            for number, (c, d) in enumerate(targets.get(video, [])):
                overlap = max(0.0, min(b, d) - max(a, c))
                iou = overlap / (b - a + d - c - overlap)
                if iou >= tiou and (video, number) not in taken:
                    options.append((iou, number))
            hits.append(bool(options))
            if options:
                taken.add((video, max(options)[1]))
        precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
        values.append(sum(max(precision[k:]) for k in range(len(hits)) if hits[k]) / count)
    return float(np.mean(values))


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    predictions=st.integers(0, 60),
    classes=st.integers(1, 4),
    decimals=st.sampled_from([1, 5]),
)
def test_is_the_definition(seed, predictions, classes, decimals):
    truth, found = make_run(seed, predictions=predictions, classes=classes, decimals=decimals)
    report = evaluate_detector(truth, found, THUMOS_TIOUS)
    expected = [by_the_definition(truth, found, tiou) for tiou in THUMOS_TIOUS]
    np.testing.assert_allclose(report.mAP, expected, rtol=0, atol=1e-12)
    assert report.average_mAP == pytest.approx(np.mean(expected))
    assert list(report.mAP) == sorted(report.mAP, reverse=True) or decimals == 1


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.floats(-5, 5), scale=st.floats(0.1, 10))
def test_depends_on_the_order_of_scores_alone_and_on_no_unit_of_time(seed, shift, scale):
    truth, found = make_run(seed)
    report = evaluate_detector(truth, found, (0.31, 0.52))
    moved = [
        {
            name: [one | {"segment": [shift + scale * t for t in one["segment"]]} for one in many]
            for name, many in side.items()
        }
        for side in ({v: e["annotations"] for v, e in truth.items()}, found)
    ]
    moved_truth = {name: {"annotations": many} for name, many in moved[0].items()}
    squashed = {name: [one | {"score": one["score"] ** 3} for one in many] for name, many in moved[1].items()}
    np.testing.assert_allclose(evaluate_detector(moved_truth, squashed, (0.31, 0.52)).mAP, report.mAP, atol=1e-9)


def test_perfect_and_empty_predictions():
    truth, _ = make_run(0)
    perfect = {name: [a | {"score": 1.0} for a in entry["annotations"]] for name, entry in truth.items()}
    assert evaluate_detector(truth, perfect).average_mAP == 1.0
    assert evaluate_detector(truth, {}).average_mAP == 0.0
    assert len(evaluate_detector(truth, {}).ap) == 3


TWICE = {"v": {"duration": 10, "annotations": [{"label": "a", "segment": [1, 2]}] * 2}}
POINT = {"v": {"duration": 10, "annotations": [{"label": "a", "segment": [5, 5]}, {"label": "a", "segment": [1, 2]}]}}


@pytest.mark.parametrize(
    ("protocol", "truth", "segments", "expected"),
    [
        ("activitynet", TWICE, [[1, 2]], 0.5),
        ("opentad", TWICE, [[1, 2]], 1.0),
        ("actionformer", TWICE, [[1, 2]], 1.0),
        ("activitynet", POINT, [[5, 5], [1, 2]], 1.0),  # 0/0 is a match
        ("default", POINT, [[5, 5], [1, 2]], 0.25),
        ("opentad", POINT, [[1, 2]], 1.0),
        ("detad", POINT, [[1, 2]], 1.0),
    ],
)
def test_duplicates_and_segments_without_length(protocol, truth, segments, expected):
    found = {"v": [{"label": "a", "segment": s, "score": 1.0 - i / 10} for i, s in enumerate(segments)]}
    assert evaluate_detector(truth, found, [0.5], protocol=protocol).average_mAP == pytest.approx(expected)


def test_an_annotation_longer_than_its_video_is_dropped_by_detad_alone():
    truth = {
        "v": {"duration": 4, "annotations": [{"label": "a", "segment": [0, 9]}, {"label": "a", "segment": [1, 2]}]}
    }
    assert len(evaluate_detector(truth, {}, protocol="detad").data.truth) == 1
    assert len(evaluate_detector(truth, {}).data.truth) == 2


def test_single_precision_moves_overlaps_on_the_threshold():
    truth = {"v": {"annotations": [{"label": "a", "segment": [0, 10]}]}}
    found = {"v": [{"label": "a", "segment": [0, 7], "score": 1}]}  # 0.7 is below itself in single precision
    assert evaluate_detector(truth, found, [0.7]).average_mAP == 1
    assert evaluate_detector(truth, found, [0.7], protocol=DetectionProtocol(iou_dtype="float32")).average_mAP == 0


def test_predictions_elsewhere_count_against_precision_and_unknown_classes_are_reported():
    truth = {"v": {"annotations": [{"label": "a", "segment": [0, 1]}]}}
    right = {"label": "a", "segment": [0, 1], "score": 0.5}
    elsewhere = {"v": [right], "w": [right | {"score": 0.9}]}
    assert evaluate_detector(truth, elsewhere).average_mAP == 0.5
    unknown = evaluate_detector(truth, {"v": [right, right | {"label": "b"}]})
    assert unknown.data.num_unknown == 1 and "1 predictions of classes" in unknown.to_text()
    with pytest.raises(DetectionError, match="no annotation has"):
        evaluate_detector(truth, {"v": [right | {"label": "b"}]}, protocol="activitynet")


def test_subsets_and_files(tmp_path):
    truth, found = make_run(3)
    database = {
        name: entry | {"subset": "Test" if number else "train"} for number, (name, entry) in enumerate(truth.items())
    }
    report = evaluate_detector(
        {"database": database}, {"results": {n: f for n, f in found.items() if n != "v0"}}, subset="test"
    )
    assert report.data.videos == ["v1", "v2", "v3"]
    with pytest.raises(DetectionError, match="Test, train"):
        evaluate_detector(database, found, subset="validation")
    with pytest.raises(DetectionError, match="not a readable JSON"):
        evaluate_detector(tmp_path / "absent.json", found)


@pytest.mark.parametrize(
    ("truth", "found", "message"),
    [
        ([], {}, "expected"),
        ({"v": []}, {}, "annotations"),
        ({"v": {"annotations": []}}, {}, "no annotation"),
        ({"v": {"annotations": [{"label": "a", "segment": [0]}]}}, {}, "segment"),
        ({"v": {"annotations": [{"label": "a", "segment": [0, float("nan")]}]}}, {}, "finite"),
        (
            {"v": {"annotations": [{"label": "a", "segment": [0, 1]}]}},
            {"v": [{"label": "a", "segment": [0, 1]}]},
            "score",
        ),
        ({"v": {"annotations": [{"label": "a", "segment": [0, 1]}]}}, {"v": {}}, "a list"),
    ],
)
def test_what_cannot_be_read(truth, found, message):
    with pytest.raises(DetectionError, match=message):
        evaluate_detector(truth, found)


def test_options_that_do_not_exist():
    truth, found = make_run(0)
    with pytest.raises(ValueError, match="mmaction2"):
        evaluate_detector(truth, found, protocol="coco")
    with pytest.raises(ValueError, match="tious"):
        evaluate_detector(truth, found, [0.0, 0.5])
    with pytest.raises(ValueError, match="tie_order"):
        DetectionProtocol(tie_order="random")


def test_weights_are_repetitions():
    generator = np.random.default_rng(0)
    hits, weights = generator.random((30, 2)) < 0.4, generator.integers(0, 3, 30)
    repeated = average_precision(np.repeat(hits, weights, axis=0), 25)
    np.testing.assert_allclose(average_precision(hits, 25, weights.astype(float)), repeated)


def test_interval_and_results_entry():
    truth, found = make_run(1, videos=12, annotations=40, predictions=120)
    report = evaluate_detector(truth, found, THUMOS_TIOUS, model_name="m", dataset_name="d")
    entry = report.to_result_entry(num_resamples=50)
    average = entry.metrics[0]
    assert average.name == "average_mAP" and average.n == 12 and entry.task == "temporal-action-detection"
    assert average.interval[0] < report.average_mAP < average.interval[1]
    assert average.interval == report.interval(50)
    assert [metric.name for metric in entry.metrics[1:]] == ["mAP@0.3", "mAP@0.4", "mAP@0.5", "mAP@0.6", "mAP@0.7"]
    # one video: every resample is the set itself
    alone = evaluate_detector({"v0": truth["v0"]}, {"v0": found["v0"]})
    assert alone.interval(5) == pytest.approx((alone.average_mAP,) * 2)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), limit=st.sampled_from([1, 2, None]))
def test_kinds_of_error_are_a_partition_and_removing_errors_never_costs(seed, limit):
    truth, found = make_run(seed)
    report = evaluate_detector(truth, found, (0.3, 0.6))
    errors = analyze_detections(report, limit_factor=limit)
    np.testing.assert_allclose(errors.shares.sum(1), 1)
    assert ((errors.kinds == 0) == report.matches.true_positives()).all()
    assert (errors.gains >= -1e-12).all() and errors.gains.shape == (2, len(KINDS) - 1)
    for bins in errors.by_characteristic.values():
        assert sum(one.num_annotations for one in bins) == len(report.data.truth)
        missed = sum(one.num_annotations * one.missed for one in bins if one.num_annotations)
        np.testing.assert_allclose(missed, len(report.data.truth) - errors._found.sum(0))


def test_one_prediction_of_every_kind():
    truth = {
        "v": {
            "duration": 100,
            "annotations": [{"label": "a", "segment": [0, 10]}, {"label": "b", "segment": [50, 60]}],
        }
    }
    segments = [([0, 10], "a"), ([0, 9], "a"), ([0, 9], "b"), ([0, 3], "a"), ([0, 3], "b"), ([80, 90], "a")]
    found = {"v": [{"label": label, "segment": s, "score": 1 - i / 10} for i, (s, label) in enumerate(segments)]}
    errors = analyze_detections(evaluate_detector(truth, found, [0.5]))
    assert errors.shares[0].tolist() == [1 / 6] * 6
    text = errors.to_text()
    assert all(kind in text for kind in KINDS) and errors.to_dict()["num_predictions"] == 6
    unknown_duration = analyze_detections(
        evaluate_detector({"v": {"annotations": truth["v"]["annotations"]}}, found, [0.5])
    )
    assert set(unknown_duration.by_characteristic) == {"length", "instances"}
    with pytest.raises(ValueError, match="thumos14"):
        analyze_detections(evaluate_detector(truth, found), "coco")


def test_evaluate_module_needs_a_path_and_no_network(tmp_path):
    evaluate = pytest.importorskip("evaluate")
    metric = evaluate.load(metric_path("detection_map"), cache_dir=str(tmp_path))
    truth, found = make_run(5)
    for name in truth:
        metric.add(
            prediction={key + "s": [one[key] for one in found[name]] for key in ("segment", "label", "score")},
            reference={key + "s": [one[key] for one in truth[name]["annotations"]] for key in ("segment", "label")},
        )
    result = metric.compute(tious=THUMOS_TIOUS)
    report = evaluate_detector(truth, found, THUMOS_TIOUS)
    assert result["average_mAP"] == pytest.approx(report.average_mAP, abs=1e-12)
    assert result["mAP"] == pytest.approx(report.to_dict()["mAP"])


@pytest.mark.parametrize("empty", [False, True])
def test_pictures(tmp_path, empty):
    pytest.importorskip("matplotlib")
    truth, found = make_run(2)
    report = evaluate_detector(truth, {} if empty else found, THUMOS_TIOUS, model_name="cost in $", dataset_name="d")
    files = plot_errors(analyze_detections(report, "thumos14"), tmp_path)
    assert sorted(path.name for path in files) == [
        f"{name}.{suffix}" for name in ("false_positives", "misses", "sensitivity") for suffix in ("png", "svg")
    ]
    assert (
        "missed" in (tmp_path / "misses.svg").read_text()
        and "double detection" in (tmp_path / "false_positives.svg").read_text()
    )
    again = plot_errors(analyze_detections(report, "thumos14"), tmp_path / "again")
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]
