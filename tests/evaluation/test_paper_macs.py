"""Costs of end-to-end detectors: what really runs, and what the published tables print."""

import pytest
import torch
from transformers import VideoMAEConfig

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection
from hf_effvid.compression.block_drop import drop_blocks
from hf_effvid.evaluation.macs import MacsError, count_macs
from hf_effvid.evaluation.paper_macs import count_paper_macs


SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096}
THUMOS = {"hidden_size": 512, "num_labels": 20, "max_sequence_length": 768}
ACTIVITYNET = {
    "hidden_size": 256,
    "num_labels": 1,
    "max_sequence_length": 192,
    "frames_per_step": 4,
    "use_absolute_positions": True,
}


def make_detector(width, head, blocks, **fields):
    with torch.device("meta"):
        trunk = VideoMAEConfig(**width, num_hidden_layers=blocks)
        config = ActionFormerConfig(**head, attention_window=-1, backbone_config=trunk, **fields)
        return ActionFormerForTemporalActionDetection(config).eval()


PIXELS = {"pixel_values": torch.empty(1, 768, 3, 160, 160, device="meta")}


# blocks that are left, published G, G that run (None: not worked out independently)
SLOW = [
    (SMALL, THUMOS, 11, 263.5, 1135.6 - 91.5),
    (SMALL, THUMOS, 9, 218.0, 1135.6 - 3 * 91.5407),
    (SMALL, ACTIVITYNET, 8, 183.0, None),
    (LARGE, THUMOS, 24, 3886.9, 13182.0),
    (LARGE, THUMOS, 18, 2918.6, None),
]
ROWS = [
    (SMALL, THUMOS, 12, 286.3, 1135.6),
    (SMALL, ACTIVITYNET, 12, 274.1, 1122.0),
    *(pytest.param(*row, marks=pytest.mark.slow) for row in SLOW),
]


@pytest.mark.parametrize(("width", "head", "blocks", "published", "true"), ROWS)
def test_published_and_true_totals(width, head, blocks, published, true):
    detector = make_detector(width, head, blocks)
    assert count_paper_macs(detector, PIXELS) / 1e9 == pytest.approx(published, abs=0.06)
    if true is not None:
        counted = count_macs(detector, PIXELS)
        assert counted.on_meta and not counted.uncounted
        assert counted.gmacs == pytest.approx(true, abs=0.06)


def test_the_head_alone():
    detector = make_detector(SMALL, THUMOS, 12)
    features = {"input_features": torch.empty(1, 768, 384, device="meta")}
    assert count_macs(detector, features).gmacs == pytest.approx(14.456254464, abs=1e-9)


@pytest.mark.slow
def test_table_4_adatad_without_two_blocks():
    detector = make_detector(SMALL, THUMOS, 12, temporal_adapters=True)
    published, true = count_paper_macs(detector, PIXELS) / 1e9, count_macs(detector, PIXELS).gmacs
    assert published == pytest.approx(324.6, abs=0.06)
    drop_blocks(detector, [7, 10])  # their adapters go with them
    assert f"{count_paper_macs(detector, PIXELS) / 1e9 / published:.1%}" == "84.0%"
    assert count_macs(detector, PIXELS).gmacs / true == pytest.approx(0.8386, abs=5e-5)


def test_table_4_actionformer_on_features():
    with torch.device("meta"):
        detector = ActionFormerForTemporalActionDetection(ActionFormerConfig(num_labels=20)).eval()
    features = {"input_features": torch.empty(1, 2304, 2048, device="meta")}
    published, true = count_paper_macs(detector, features), count_macs(detector, features).total
    drop_blocks(
        detector, [0, 1, 2]
    )  # both of the stem, and the first that halves the length: its max pool has to stay
    assert f"{count_paper_macs(detector, features) / published:.1%}" == "59.7%"
    assert count_macs(detector, features).total / true == pytest.approx(0.5916, abs=5e-5)


def test_other_trunks_have_no_published_numbers():
    with pytest.raises(MacsError, match="without one"):
        count_paper_macs(torch.nn.Linear(2, 2), {})
