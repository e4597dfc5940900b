"""The committed needle hosts and clips drawn for them, in memory. Imported by tests and started by torchrun."""

import sys
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import VideoMAEForVideoClassification

from hf_effvid.compression.host_selection import select_tokens


EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HOSTS = EXAMPLES / "checkpoints" / "needle"
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))

from make_needle_hosts import TASKS, draw  # noqa: E402


def needle_host(kind="needle"):
    """The stock VideoMAE that was trained on all tokens."""
    return VideoMAEForVideoClassification.from_pretrained(HOSTS / kind, dtype=torch.float32).eval()


def lite_host(kind="needle", keep_ratio=0.3, **fields):
    """The same with a new selector of 64 and 32 units."""
    torch.manual_seed(0)
    return select_tokens(
        needle_host(kind), keep_ratio=keep_ratio, scorer="lite", selector_hidden_sizes=(64, 32), **fields
    )


class DrawnClips(Dataset):
    """Clips of a needle task with their truth."""

    def __init__(self, kind="needle", count=64, seed=5):
        self.pixels, self.labels, self.truth = draw(TASKS[kind], count, seed)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"pixel_values": self.pixels[index], "labels": self.labels[index], "index": index}


def token_auc(scores, informative, among=None):
    """Mean over clips of the chance that an informative token scores higher than another (of `among`): 0.5 knows nothing."""
    areas = []
    for row, (values, true) in enumerate(zip(scores, torch.from_numpy(informative), strict=True)):
        others = values[torch.from_numpy(among[row])] if among is not None else values[~true]
        pairs = values[true][:, None] - others[None]
        areas.append(((pairs > 0).float() + (pairs == 0).float() / 2).mean())
    return torch.stack(areas).mean().item()
