# /// script
# dependencies = ["hf_effvid[train,export]"]
# ///
"""Ways to 8 bits, side by side: those of `effvid export` and those that it leaves out. Accuracy on the same clips, and time.

    python examples/int8_trials.py quickstart_work/run/model quickstart_work/motion --results int8.json

One clip per video. A way that fails is printed with its reason; torchao is tried where it is installed. Times are interleaved: the ratio to
PyTorch holds on a busy machine, the milliseconds do not.
"""

import argparse
import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import onnx
import torch
from onnxruntime.quantization import quantize_dynamic
from torch import nn

import hf_effvid
from hf_effvid.evaluation.benchmark_timing import WallTimer, paired_ratio, time_interleaved, warm_up
from hf_effvid.evaluation.intervals import paired_bootstrap_difference
from hf_effvid.evaluation.results import Metric, ResultEntry, add_results, current_provenance
from hf_effvid.export.opening import open_subject
from hf_effvid.export.runtime import ExportedClassifier
from hf_effvid.export.tracing import LogitsOnly, trace


DIFFERENCE, ROUNDS = "top1 difference, A minus B", 11


@dataclass(frozen=True)
class Trial:
    """A way to run the model."""

    name: str
    run: Callable[[torch.Tensor], torch.Tensor]
    bytes: int


def onnx_trials(model, processor, work: Path) -> Iterator[tuple[str, Callable[[], Trial]]]:
    """What `effvid export` writes, then other settings of onnxruntime."""
    report = hf_effvid.export_model(
        model, work / "exported", processor, int8=("dynamic", "weight-only"), rounds=1, progress=False
    )
    source = work / "exported" / report.files[0].file

    def opened(name: str, path: Path) -> Trial:
        classifier = ExportedClassifier(path, model.config)
        return Trial(name, lambda pixels: classifier(pixels).logits, path.stat().st_size)

    for row in report.files:
        yield row.variant, partial(opened, row.variant, work / "exported" / row.file)

    def dynamic(name: str, **options) -> Trial:
        path = work / f"{abs(hash(name))}.onnx"
        quantize_dynamic(source, path, **options)
        return opened(name, path)

    def n_bits(name: str) -> Trial:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=8, block_size=32, is_symmetric=True)
        quantizer.process()
        quantizer.model.save_model_to_file(str(work / "n_bits.onnx"))
        return opened(name, work / "n_bits.onnx")

    products = {"op_types_to_quantize": ["MatMul"], "per_channel": True}
    for name, options in (("convolutions too", {}), ("one scale per channel", products)):
        name = f"onnxruntime dynamic, {name}"
        yield name, partial(dynamic, name, **options)
    yield "onnxruntime MatMulNBits, 8 bits", partial(n_bits, "onnxruntime MatMulNBits, 8 bits")


def torch_trials(model, shape) -> Iterator[tuple[str, Callable[[], Trial]]]:
    """torch's own quantisation and torchao's, in eager torch and as torch.export programs."""

    def eager(name: str, change) -> Trial:
        module, stored = LogitsOnly(change(copy.deepcopy(model))), io.BytesIO()
        torch.save(module.state_dict(), stored)
        return Trial(name, module, stored.tell())

    def program(name: str, change) -> Trial:
        exported, stored = trace(LogitsOnly(change(copy.deepcopy(model))), shape, ("batch",)), io.BytesIO()
        torch.export.save(exported, stored)
        return Trial(name, exported.module(), len(stored.getbuffer()))

    def torch_dynamic(network):
        return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)

    def torchao(config_name: str):
        def change(network):
            import torchao.quantization

            torchao.quantization.quantize_(network, getattr(torchao.quantization, config_name)())
            return network

        return change

    for title, change in (
        ("torch.ao dynamic", torch_dynamic),
        ("torchao weight-only", torchao("Int8WeightOnlyConfig")),
        ("torchao dynamic", torchao("Int8DynamicActivationInt8WeightConfig")),
    ):
        yield f"{title}, eager", partial(eager, f"{title}, eager", change)
        yield f"{title}, torch.export", partial(program, f"{title}, torch.export", change)


def clips_and_labels(processor, config, data: str, split: str):
    """One clip of every video, and the number of its class."""
    rows = hf_effvid.load_video_dataset(data, split=split)
    names, numbers = rows.features["label"].names, {name: number for number, name in config.id2label.items()}
    clips = [processor([row["video"]], return_tensors="pt")["pixel_values"][:1] for row in rows]
    return torch.cat(clips), torch.tensor([int(numbers[names[label]]) for label in rows["label"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of a video classifier")
    parser.add_argument("data", help="folder of class folders, list or data set id")
    parser.add_argument("--split", default="test")
    parser.add_argument("--name", default="unnamed", help="name of the data set in the results")
    parser.add_argument("--model-name", help="name of the checkpoint in the results")
    parser.add_argument("--results", type=Path, help="results file (JSON) to extend")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # both libraries advise at length

    subject = open_subject(args.model)
    clips, labels = clips_and_labels(subject.processor, subject.model.config, args.data, args.split)
    original = LogitsOnly(subject.model)
    trials = [Trial("PyTorch float32", original, sum(p.numel() * 4 for p in original.parameters()))]
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ways = [
            *onnx_trials(subject.model, subject.own_processor, Path(folder)),
            *torch_trials(subject.model, clips.shape[1:]),
        ]
        for name, make in ways:
            try:
                trial = make()
                trial.run(clips[:1])
                trials.append(trial)
            except Exception as error:  # that is what is being tried
                print(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:160]}")
        answers = {t.name: torch.cat([t.run(batch) for batch in clips.split(16)]) for t in trials}
        steps = {t.name: (lambda t=t: t.run(clips[:1])) for t in trials}
        timer = WallTimer()
        times = time_interleaved(steps, timer, ROUNDS, {name: warm_up(step, timer) for name, step in steps.items()})

    report(args, subject.name, trials, answers, labels, times)


def report(args, name: str, trials: list[Trial], answers: dict, labels: torch.Tensor, times: dict) -> None:
    """Prints one line per trial, and records accuracies and, against PyTorch, differences."""
    entries = []
    right = {trial: (logits.argmax(-1) == labels).tolist() for trial, logits in answers.items()}
    baseline = trials[0].name
    for trial in trials:
        paired = paired_bootstrap_difference(right[trial.name], right[baseline])
        same = int((answers[trial.name].argmax(-1) == answers[baseline].argmax(-1)).sum())
        ratio = paired_ratio(times[baseline], times[trial.name])
        top1 = Metric.proportion("top1", sum(right[trial.name]), len(labels))
        distance = (answers[trial.name] - answers[baseline]).abs().max().item()
        summary = (
            f"max logit difference {distance:.1e}; {trial.bytes / 1e6:.2f} MB; {ratio.median:.2f} "
            f"[{ratio.interval[0]:.2f}, {ratio.interval[1]:.2f}] x as fast as {baseline}"
        )
        change = f"{100 * paired['difference']:+5.1f} points, same answer on {same} of {len(labels)}"
        print(f"{trial.name:<44}{top1.value:7.1%} ({change}); {summary}")
        metrics = [top1]
        if trial.name != baseline:
            method = "paired bootstrap over videos 95%"
            metrics.append(Metric(DIFFERENCE, paired["difference"], paired["n"], tuple(paired["interval"]), method))
            metrics.append(Metric.proportion("same_answer", same, len(labels)))
        entry = ResultEntry(
            task="video-classification",
            model=args.model_name or name,
            dataset=args.name,
            split=args.split,
            metrics=tuple(metrics),
            variant=trial.name,
            provenance=current_provenance(),
            protocol={"num_clips": 1, "num_crops": 1},
            notes=(f"{summary} ({ratio.method})",),
        )
        entries.append(entry)
    if args.results:
        add_results(args.results, entries)


if __name__ == "__main__":
    main()
