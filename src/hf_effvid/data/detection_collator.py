"""Windows of a detection data set to a batch: inputs padded to one length, annotations as they are."""

import torch


INPUTS = {"input_features": "attention_mask", "pixel_values": "pixel_mask"}


class DetectionCollator:
    """Pads along time.

    Args:
        pad_length: fill up to this many steps even when all are shorter, for detectors that were trained to see padding; features only.
    """

    def __init__(self, pad_length: int | None = None):
        self.pad_length = pad_length

    def __call__(self, items: list[dict]) -> dict:
        """Make a batch.

        Args:
            items: what the data sets in `detection_datasets` give, all features or all pixels.

        Returns:
            `input_features` (B, T, C) and `attention_mask` (B, T), or `pixel_values` (B, T, C, H, W) and `pixel_mask` (B, T);
            `labels`, per window `grid_segments` (M, 2) and `class_labels` (M,); `index` (B,).
        """
        name = next(name for name in INPUTS if name in items[0])
        rows = [item[name] for item in items]
        longest = max(len(row) for row in rows)
        if name == "input_features":
            longest = max(longest, self.pad_length or 0)
        batch = rows[0].new_zeros(len(rows), longest, *rows[0].shape[1:])
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for number, row in enumerate(rows):
            batch[number, : len(row)] = row
            mask[number, : len(row)] = True
        labels = [{key: item[key] for key in ("grid_segments", "class_labels")} for item in items]
        return {
            name: batch,
            INPUTS[name]: mask,
            "labels": labels,
            "index": torch.tensor([item["index"] for item in items]),
        }
