"""Our suppression gives the numbers of ActionFormer's compiled one (recorded from happyharrycn/actionformer_release@61ea7eb, MIT)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_effvid.models.temporal_nms import nms_1d


FOLDER = Path(__file__).parent / "fixtures" / "temporal_detection"
RECORD = json.loads((FOLDER / "nms1d.json").read_text())
TENSORS = load_file(FOLDER / "nms1d.safetensors")


@pytest.mark.parametrize("case", RECORD["cases"])
def test_segments_scores_and_labels(case):
    options = RECORD["cases"][case]["kwargs"]
    given, expected = (
        {name: TENSORS[f"{case}.{side}.{name}"] for name in ("segments", "scores", "labels")} for side in ("in", "out")
    )
    found = nms_1d(
        **given,
        method="soft" if options["use_soft_nms"] else "hard",
        iou_threshold=options["iou_threshold"],
        sigma=options["sigma"],
        min_score=options["min_score"],
        max_segments=options["max_seg_num"],
        class_agnostic=not options["multiclass"],
        voting_threshold=options["voting_thresh"],
    )
    torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=1e-7)
    torch.testing.assert_close(found.segments, expected["segments"], rtol=1e-6, atol=1e-5)
    assert found.labels.tolist() == expected["labels"].tolist()
