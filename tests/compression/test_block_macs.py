"""What a dropped block saves, as it runs and as the paper's tables count it."""

import pytest
import torch
from transformers import VideoMAEConfig

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, drop_blocks
from hf_effvid.compression import kept_blocks
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.evaluation.paper_macs import count_paper_macs


SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_hidden_layers": 12}
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "intermediate_size": 4096, "num_hidden_layers": 24}
THUMOS = {"hidden_size": 512, "num_labels": 20, "max_sequence_length": 768}
ACTIVITYNET = {
    "hidden_size": 256,
    "num_labels": 1,
    "max_sequence_length": 192,
    "frames_per_step": 4,
    "use_absolute_positions": True,
}
PIXELS = {"pixel_values": torch.empty(1, 768, 3, 160, 160, device="meta")}

# tables 1 and 2 of the paper, the blocks of its table A
PUBLISHED = {
    "small_thumos14": (SMALL, THUMOS, [7, 10, 6, 3], [286.3, 263.5, 240.8, 218.0, 195.2], 91.54, 22.767),
    "small_activitynet": (SMALL, ACTIVITYNET, [6, 3, 8, 11], [274.1, 251.3, 228.5, 205.8, 183.0], 91.54, 22.767),
    "large_thumos14": (
        LARGE,
        THUMOS,
        [20, 1, 4, 7, 6, 2],
        [3886.9, 3725.5, 3564.1, 3402.7, 3241.4, 3080.0, 2918.6],
        546.10,
        161.38,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_the_tables(name):
    width, head, order, rows, true_block, published_block = PUBLISHED[name]
    with torch.device("meta"):
        config = ActionFormerConfig(**head, attention_window=-1, backbone_config=VideoMAEConfig(**width))
        detector = ActionFormerForTemporalActionDetection(config).eval()
    before, published = count_macs(detector, PIXELS).gmacs, [count_paper_macs(detector, PIXELS) / 1e9]
    for original in order:
        drop_blocks(detector, [kept_blocks(detector).index(original)])
        published.append(count_paper_macs(detector, PIXELS) / 1e9)
    assert published == pytest.approx(rows, abs=0.06)
    saved = (published[0] - published[-1]) / len(order)
    assert saved == pytest.approx(published_block, abs=0.005)
    assert (before - count_macs(detector, PIXELS).gmacs) / len(order) == pytest.approx(true_block, abs=0.005)
    assert kept_blocks(detector) == sorted(set(range(width["num_hidden_layers"])) - set(order))
