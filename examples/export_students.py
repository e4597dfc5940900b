# /// script
# dependencies = ["hf_effvid[timm,export]"]
# ///
"""The small video CNNs as files: ONNX, 8 bits, torch.export; their sizes, and their times beside those of the model in PyTorch.

    python examples/export_students.py exports/ --results model_cards/results/students-export.json
    python examples/export_students.py exports/ --only "x3d s" --rounds 3

Random weights with numbers in every norm and scale. Every file is checked against the model before it is written (1e-4 of the largest logit
at most; 8-bit files are measured). Times are medians over interleaved rounds of one clip of the model's own shape: the model itself, then
each of its files.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console

from hf_effvid import export_model
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results
from hf_effvid.evaluation.student_speed import Subject, build
from hf_effvid.export.report import ExportedFile
from hf_effvid.training.model_setup import processor_for


SUBJECTS = (
    Subject("tsm", "mobilenetv4-small", 8, 224),
    Subject("tsm", "resnet18", 8, 224),
    Subject("movinet", "a0", 8, 224),
    Subject("movinet", "a0-stream", 8, 224),
    Subject("x3d", "s", 13, 160),
)
INT8 = ("dynamic", "weight-only")


def with_numbers_everywhere(model):
    """Statistics and scales that a trained model would have: at their initial values whole branches are zero or the identity."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.dtype.is_floating_point and value.dim() < 2:
            noise = torch.rand(value.shape, generator=generator)
            positive = name.endswith(("running_var", "alpha")) or ("norm" in name or "bn" in name) and "weight" in name
            value.data.copy_(0.75 + 0.5 * noise if positive else 0.2 * noise - 0.1)
    return model


def export(subject: Subject, folder: Path, format: str, rounds: int, threads: int) -> list[ResultEntry]:
    """Writes and times the files of one model in one format."""
    model = with_numbers_everywhere(build(subject))
    report = export_model(
        model, folder / subject.name.replace(", ", "-").replace(" ", "-") / format, processor_for(model.config), format=format,
        int8=INT8 if format == "onnx" else (), rounds=rounds, threads=threads, overwrite=True, progress=False,
    )  # fmt: skip
    Console(width=150).print(report.to_table())
    entries = zip(report.to_result_entries(subject.name), report.rows, strict=True)
    return [replace(entry, metrics=sizes(row)) for entry, row in entries if row.file or format == "onnx"]


def sizes(row: ExportedFile) -> list[Metric]:
    """Megabytes of the file, or of the model's weights, and how far its logits are from the model's."""
    megabytes = Metric("megabytes", round(row.bytes / 1e6, 3), 1)
    if row.parity is None:
        return [megabytes]
    return [
        megabytes,
        Metric("max_relative_logit_difference", float(f"{row.parity.max_relative:.3g}"), row.parity.num_clips),
        Metric("same_class", row.parity.same_top1 / row.parity.num_clips, row.parity.num_clips),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the files go, one folder per model and format")
    parser.add_argument("--only", nargs="+", help="beginnings of names, such as tsm or 'x3d s'")
    parser.add_argument("--formats", nargs="+", default=["onnx", "pt2"], choices=["onnx", "pt2"])
    parser.add_argument("--rounds", type=int, default=20, help="interleaved rounds of timing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    args = parser.parse_args()
    for subject in SUBJECTS:
        if args.only is not None and not subject.name.startswith(tuple(args.only)):
            continue
        for format in args.formats:
            entries = export(subject, args.folder, format, args.rounds, args.threads)
            if args.results is not None:
                add_results(args.results, entries)


if __name__ == "__main__":
    main()
