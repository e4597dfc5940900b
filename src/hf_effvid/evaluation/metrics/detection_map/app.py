"""The metric as a Space: annotations and predictions as JSON, mAP per overlap as a table.

`evaluate.utils.launch_gradio_widget` is written for a gradio of years ago, and a table of strings is no place for segments.
"""

import json
from pathlib import Path

import evaluate
import gradio as gr


HERE = Path(__file__).resolve().parent
PROTOCOLS = ["default", "activitynet", "actionformer", "opentad", "mmaction2", "detad"]
TRUTH = """[
  {"segments": [[2.0, 6.0], [9.0, 20.0]], "labels": ["jump", "run"]},
  {"segments": [], "labels": []}
]"""
FOUND = """[
  {"segments": [[2.2, 6.1], [10.0, 20.0], [9.5, 21.0]], "labels": ["jump", "jump", "run"], "scores": [0.9, 0.4, 0.8]},
  {"segments": [[0.0, 1.0]], "labels": ["run"], "scores": [0.1]}
]"""


def evaluate_detections(truth: str, found: str, tious: str, protocol: str):
    """Average mAP as text, mAP per overlap and AP per class as rows.

    Args:
        truth: JSON list, per video {"segments", "labels"}.
        found: JSON list, per video {"segments", "labels", "scores"}.
        tious: overlaps, separated by commas.
        protocol: treatment of unclean data.
    """
    try:
        overlaps = [float(part) for part in tious.split(",")]
        metric = evaluate.load(str(HERE))
        result = metric.compute(
            predictions=json.loads(found), references=json.loads(truth), tious=overlaps, protocol=protocol
        )
    except (ValueError, KeyError, TypeError) as error:
        raise gr.Error(f"These are no annotations and predictions of the same videos: {error}") from error
    rows = [["mAP", *(f"{value:.4f}" for value in result["mAP"].values())]]
    rows += [[name, *(f"{value:.4f}" for value in values)] for name, values in result["ap"].items()]
    counts = f"{result['num_videos']} videos, {result['num_annotations']} annotations, {result['num_predictions']} predictions"
    return f"average mAP {result['average_mAP']:.4f}  ({counts})", {
        "headers": ["", *(f"tIoU {value:g}" for value in overlaps)],
        "data": rows,
    }


def build() -> gr.Blocks:
    """The page."""
    with gr.Blocks(title="Temporal action detection mAP") as page:
        gr.Markdown("# Temporal action detection mAP\nAnnotations and predictions, one entry per video, in seconds.")
        with gr.Row():
            truth = gr.Code(TRUTH, language="json", label="annotations")
            found = gr.Code(FOUND, language="json", label="predictions")
        with gr.Row():
            tious = gr.Textbox("0.3, 0.4, 0.5, 0.6, 0.7", label="overlaps (tIoU)")
            protocol = gr.Dropdown(PROTOCOLS, value="default", label="protocol")
        button = gr.Button("Evaluate", variant="primary")
        average = gr.Textbox(label="result", interactive=False)
        table = gr.Dataframe(label="per overlap and class", interactive=False)
        button.click(evaluate_detections, [truth, found, tious, protocol], [average, table])
        gr.Markdown((HERE / "README.md").read_text(encoding="utf-8").split("---", 2)[-1])
    return page


demo = build()

if __name__ == "__main__":
    demo.launch()
