"""mAP of temporal action detection as an `evaluate` module; one example is one video. Load it by path, no network needed:

>>> import evaluate
>>> from hf_effvid.evaluation.metrics import metric_path
>>> metric = evaluate.load(metric_path("detection_map"))
>>> found = {"segments": [[1.0, 4.0]], "labels": ["jump"], "scores": [0.9]}
>>> metric.compute(predictions=[found], references=[{"segments": [[1.0, 4.2]], "labels": ["jump"]}], tious=[0.5])["average_mAP"]
1.0
"""

import datasets
import evaluate

from hf_effvid.evaluation.detection import ACTIVITYNET_TIOUS, evaluate_detector


_DESCRIPTION = (
    "Mean average precision of temporal action detection at several overlaps (tIoU), in the ActivityNet protocol."
)
_INPUTS = """
Args:
    predictions: per video {"segments": [[start, end], ...], "labels": [...], "scores": [...]}, seconds.
    references: per video {"segments": [[start, end], ...], "labels": [...]}.
    tious: overlaps at which a prediction counts as right; default .5 to .95 in steps of .05.
    protocol: treatment of duplicate or empty annotations and of 0/0: "default", "activitynet", "actionformer", "opentad",
        "mmaction2" or "detad".
Returns:
    average_mAP; mAP per threshold; ap per class, one value per threshold; how many videos, annotations and predictions counted.
"""


class DetectionMAP(evaluate.Metric):
    """mAP at several overlaps."""

    def _info(self):
        text, number = datasets.Value("string"), datasets.Value("float64")
        reference = {"segments": datasets.Sequence(datasets.Sequence(number)), "labels": datasets.Sequence(text)}
        prediction = {**reference, "scores": datasets.Sequence(number)}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": prediction, "references": reference}),
        )

    def _compute(self, predictions, references, tious=ACTIVITYNET_TIOUS, protocol="default"):
        truth = {
            str(number): {"annotations": _entries(video, ("segments", "labels"))}
            for number, video in enumerate(references)
        }
        found = {
            str(number): _entries(video, ("segments", "labels", "scores")) for number, video in enumerate(predictions)
        }
        return evaluate_detector(truth, found, tious, protocol=protocol).to_dict()


def _entries(video, names):
    keys = [name.removesuffix("s") for name in names]
    return [dict(zip(keys, values, strict=True)) for values in zip(*(video[name] for name in names), strict=True)]
