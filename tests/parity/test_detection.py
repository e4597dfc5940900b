"""Our evaluator and error analysis give the numbers of the public ones, recorded in fixtures/temporal_detection."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hf_effvid.evaluation.detection import evaluate_detector
from hf_effvid.evaluation.detection_errors import KINDS, analyze_detections
from hf_effvid.evaluation.detection_protocol import find_protocol


FOLDER = Path(__file__).parent / "fixtures" / "temporal_detection"
EVALUATORS = {
    "activitynet": "activitynet_official_py3",
    "actionformer": "actionformer",
    "opentad": "opentad",
    "mmaction2": "mmaction2",
}
DETAD_NAMES = {
    "true positive": "True Positive",
    "double detection": "Double Detection Err",
    "wrong label": "Wrong Label Err",
    "localization": "Localization Err",
    "confusion": "Confusion Err",
    "background": "Background Err",
}


def load(name):
    return json.loads((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def thumos():
    """(ground truth, predictions, record) of the synthetic run on THUMOS14."""
    record, columns = load("thumos14_synthetic.json"), load_file(FOLDER / "thumos14_synthetic.safetensors")
    truth, predictions = {}, {}
    for video, label, segment, duration in zip(
        *(columns[f"truth.{name}"] for name in ("video", "label", "segment", "duration")), strict=True
    ):
        entry = truth.setdefault(record["videos"][video], {"duration": float(duration), "annotations": []})
        entry["annotations"].append({"segment": segment.tolist(), "label": record["labels"][label]})
    for video, label, segment, score in zip(
        *(columns[f"prediction.{name}"] for name in ("video", "label", "segment", "score")), strict=True
    ):
        one = {"segment": segment.tolist(), "label": record["labels"][label], "score": float(score)}
        predictions.setdefault(record["videos"][video], []).append(one)
    return truth, predictions, record


@pytest.mark.parametrize("protocol", EVALUATORS)
@pytest.mark.parametrize("case", ["eval_small_unique", "mmaction2_eval_localization"])
def test_equals_each_evaluator_where_no_scores_are_equal(case, protocol):
    reference = load(f"{case}.reference.json")
    expected = reference[EVALUATORS[protocol]]
    found = evaluate_detector(
        FOLDER / f"{case}.gt.json", FOLDER / f"{case}.pred.json", reference["tiou"], protocol=protocol
    )
    np.testing.assert_allclose(found.mAP, expected["mAP"], rtol=0, atol=1e-12)
    assert found.average_mAP == pytest.approx(expected["avg"], abs=1e-12)
    for label, values in expected.get("ap_per_class", {}).items():
        np.testing.assert_allclose(found.ap[label], values, rtol=0, atol=1e-12)


def test_equal_scores_in_the_order_given_as_mmaction2_has_them(thumos):
    """It is the one public evaluator whose sort is stable; its overlaps are single precision."""
    truth, predictions, record = thumos
    found = evaluate_detector(truth, predictions, record["tiou"], protocol="mmaction2")
    np.testing.assert_allclose(found.mAP, record["evaluators"]["mmaction2"]["mAP"], rtol=0, atol=1e-12)
    double = evaluate_detector(truth, predictions, record["tiou"], protocol="activitynet")
    assert np.abs(double.mAP - found.mAP).max() > 1e-5  # or the comparison would not see the precision


@pytest.mark.parametrize("protocol", ["activitynet", "actionformer", "opentad"])
def test_equal_scores_of_the_unstable_sorts_are_near(thumos, protocol):
    """Their order is NumPy's business: the same on this machine as on the recording one, or not."""
    truth, predictions, record = thumos
    expected = record["evaluators"][EVALUATORS[protocol]]["mAP"]
    for order, tolerance in (("stable", 5e-5), ("numpy", 5e-5)):
        chosen = replace(find_protocol(protocol), tie_order=order)
        found = evaluate_detector(truth, predictions, record["tiou"], protocol=chosen)
        np.testing.assert_allclose(found.mAP, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", ["limit10_tiou0.5_normalised", "nolimit_tiou0.5_plain"])
def test_error_analysis_equals_detad(thumos, case):
    truth, predictions, record = thumos
    known = {name: entries for name, entries in predictions.items() if name in truth}
    expected = record["detad"][case]
    report = evaluate_detector(truth, known, [0.5], protocol="detad")
    errors = analyze_detections(
        report, "thumos14", limit_factor=expected["limit_factor"], normalize=expected["normalize_ap"]
    )
    assert (len(report.data.truth), int(errors.counted.sum())) == (expected["n_gt"], expected["n_pred"])
    shares = [expected["fp_percent"]["0.5"][DETAD_NAMES[kind]] for kind in KINDS]
    np.testing.assert_allclose(errors.shares[0], shares, rtol=0, atol=1e-12)
    # mAP depends on the order of equal scores, the kinds do not
    assert errors.mAP[0] == pytest.approx(expected["average_mAP"], abs=5e-5)
    gains = [expected["average_mAP_gain"][DETAD_NAMES[kind]] for kind in KINDS[1:]]
    np.testing.assert_allclose(errors.gains[0], gains, rtol=0, atol=5e-5)
    for name, recorded in (("coverage", "coverage"), ("length", "length"), ("instances", "num-instances")):
        bins = expected["false_negative_rate"][recorded]
        found = {one.name: one for one in errors.by_characteristic[name]}
        assert {size: one.num_annotations for size, one in found.items()} == {k: v["n_gt"] for k, v in bins.items()}
        for size, one in found.items():
            assert one.missed[0] == pytest.approx(bins[size]["missed"]["0.5"], abs=1e-12)
