"""What `explain=True` adds to a prediction: modulators and gates of the clip that spoke for it, as numbers and as files."""

import json
import math
import re
from pathlib import Path

from ..explanation import explain_clip, require_modulators
from ..explanation.rendering import render_explanation, seen_frames


class Explainer:
    """Explains predictions of one run of a pipeline; costs one more forward pass of one clip for each.

    Args:
        model: a classifier with modulators.
        processor: its processor.
        folder: where pictures and videos go, one sub-folder per prediction; None for numbers alone.
        block: block that the maps come from, counted over all stages.

    Raises:
        NoModulatorsError: the model has none.
    """

    def __init__(self, model, processor, folder=None, block=-1):
        require_modulators(model.config)
        self.model, self.processor, self.block = model, processor, block
        self.folder = None if folder is None else Path(folder)
        self.used = set()

    def __call__(self, name, part, rows, times, logits, index, label, score):
        """Explains one prediction.

        Of several views the one is shown that speaks most clearly for the predicted label: an average over clips and crops would mix
        maps of different times and places.

        Args:
            name: the video, for titles and the name of its folder.
            part: (start, end) in seconds, None where the whole video was classified.
            rows: (V, T, C, H, W), the views that were classified, clips before crops.
            times: per clip, T times in seconds.
            logits: (V, K).
            index, label, score: the predicted class.

        Returns:
            A dict that JSON can hold, see `docs/explain.md`.
        """
        view = logits.softmax(-1)[:, index].argmax().item()
        crops = len(rows) // len(times)
        explanation = explain_clip(self.model, rows[view], block=self.block)
        seconds = [value if math.isfinite(value) else None for value in times[view // crops]]
        told = {
            "label": label,
            "score": score,
            "view": {"clip": view // crops, "crop": view % crops, "of": len(rows)},
            "seconds": seconds,
            **explanation.to_dict(),
        }
        if self.folder is not None:
            frames = seen_frames(self.processor, rows[view])
            folder = self.folder / self._unused(name, part)
            known = None if None in seconds else seconds
            title = f"{Path(name).name}: predicted {label} ({score:.0%}), maps of block {explanation.block}"
            told["files"] = render_explanation(explanation, frames, folder, title=title, seconds=known)
            told["files"]["numbers"] = str(folder / "explanation.json")
            (folder / "explanation.json").write_text(
                json.dumps({"source": name, **told}, indent=2) + "\n", encoding="utf-8"
            )
        return told

    def _unused(self, name, part):
        """A folder name made of the video's name and its part, and a number where two videos have the same name."""
        # a file name is a stranger's text: no separators, no leading dot
        stem = re.sub(r"[^\w.-]+", "_", Path(name).stem).strip("._") or "video"
        if part[0] is not None or part[1] is not None:
            stem += "_" + "-".join("" if value is None else f"{value:.2f}" for value in part) + "s"
        choice, number = stem, 1
        while choice in self.used:
            number += 1
            choice = f"{stem}_{number}"
        self.used.add(choice)
        return choice
