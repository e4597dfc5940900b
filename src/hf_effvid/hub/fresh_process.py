"""Opens a checkpoint the way a stranger does: in a new interpreter in which hf_effvid cannot be imported.

This file is run by path, as a program (`python fresh_process.py REQUEST ANSWER`), and imports nothing of the package. It
does what `REQUEST`, a JSON file, asks and writes what happened to `ANSWER`.
"""

import importlib.abc
import inspect
import json
import sys
import tempfile
import traceback
from pathlib import Path


class PackageBlocker(importlib.abc.MetaPathFinder):
    """Makes a package unimportable, whether it is installed, editable or in the current folder."""

    def __init__(self, name: str):
        self.name = name

    def find_spec(self, fullname, path=None, target=None):
        """Raises for the blocked package, passes on everything else."""
        if fullname == self.name or fullname.startswith(f"{self.name}."):
            raise ModuleNotFoundError(
                f"No module named {fullname!r} (blocked: a stranger does not have it)", name=fullname
            )
        return None


def main(request_path: str, answer_path: str) -> None:
    """Runs every requested step; a step that fails is recorded and does not stop the others."""
    request = json.loads(Path(request_path).read_text(encoding="utf-8"))
    answer = {"steps": {}}
    state = {}
    for name, step in STEPS.items():
        if name not in request["steps"]:
            continue
        try:
            answer["steps"][name] = {"ok": True, **(step(request, state) or {})}
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            answer["steps"][name] = {"ok": False, "error": reason, "traceback": traceback.format_exc(limit=-4)}
        # written after every step: a crash of the interpreter loses only the step that crashed
        Path(answer_path).write_text(json.dumps(answer), encoding="utf-8")


def _package_is_absent(request, state):
    sys.meta_path.insert(0, PackageBlocker("hf_effvid"))
    try:
        import hf_effvid  # noqa: F401
    except ModuleNotFoundError:
        return
    raise RuntimeError("hf_effvid could be imported: this process proves nothing")


def _load(request, state):
    import torch
    import transformers

    options = {"trust_remote_code": request["trust_remote_code"], "revision": request["revision"]}
    model, info = getattr(transformers, request["auto_class"]).from_pretrained(
        request["source"], dtype=torch.float32, output_loading_info=True, **options
    )
    state["model"] = model.eval()
    wrong = {
        key: sorted(map(str, info.get(key) or ())) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
    }
    if any(wrong.values()):
        raise RuntimeError(f"the weights do not fit the model: {wrong}")
    return {
        "class": type(model).__name__,
        "module": type(model).__module__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def _load_base(request, state):
    import torch
    from transformers import AutoModel

    base = AutoModel.from_pretrained(
        request["source"],
        dtype=torch.float32,
        trust_remote_code=request["trust_remote_code"],
        revision=request["revision"],
    )
    return {"class": type(base).__name__}


def _logits(request, state):
    import torch
    from safetensors.torch import load_file

    model = state["model"]
    values = load_file(request["reference"])["input"]
    with torch.inference_mode():
        answer = model(**{request["input_name"] or model.main_input_name: values})
    rows = torch.cat([getattr(answer, name) for name in request["outputs"]], dim=-1).flatten(0, -2)
    return {"logits": rows.tolist()}


def _processor(request, state):
    from transformers import AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained(
        request["source"], trust_remote_code=request["trust_remote_code"], revision=request["revision"]
    )
    output = processor(request["probes"][0], return_tensors="pt", **_frames(processor, state["model"]))
    # some models take pixels under more than one name
    taken = inspect.signature(state["model"].forward).parameters
    names = [name for name in (state["model"].main_input_name, "pixel_values") if name in output and name in taken]
    if not names:
        raise RuntimeError(f"the processor gives {sorted(output)}, the model takes {state['model'].main_input_name!r}")
    state["processor"] = processor
    return {"class": type(processor).__name__, "shape": list(output[names[0]].shape)}


def _feature_processor(request, state):
    import numpy as np
    from transformers import AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained(
        request["source"], trust_remote_code=request["trust_remote_code"], revision=request["revision"]
    )
    output = processor.encode_features([np.load(request["probes"][0])])
    state["processor"] = processor
    return {"class": type(processor).__name__, "shape": list(output["input_features"].shape)}


def _frames(processor, model) -> dict:
    """A processor with a recipe knows how many frames to take, a stock one has to be told."""
    if hasattr(processor, "frame_indices"):
        return {}
    config = model.config
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    return {"num_frames": frames, "do_sample_frames": True}


def _classify(request, state):
    from transformers import pipeline

    classify = pipeline(
        "video-classification",
        model=request["source"],
        trust_remote_code=request["trust_remote_code"],
        revision=request["revision"],
    )
    options = {k: v for k, v in _frames(classify.video_processor, classify.model).items() if k == "num_frames"}
    single = [classify(clip, **options) for clip in request["probes"]]
    labels = set(classify.model.config.id2label.values())
    for answers in single:
        if not answers or any(a["label"] not in labels or not 0 <= a["score"] <= 1 for a in answers):
            raise RuntimeError(f"the pipeline answered {answers!r}")
    if classify.image_processor is None:  # the stock pipeline batches only with one
        return {"answers": single, "batched": False}
    batched = classify(request["probes"], batch_size=2, **options)
    for one, other in zip(single, batched, strict=True):
        scores = {answer["label"]: answer["score"] for answer in other}
        if any(abs(answer["score"] - scores.get(answer["label"], -1)) > 1e-3 for answer in one):
            raise RuntimeError(f"alone the pipeline answers {one!r}, in a batch {other!r}")
    return {"answers": single, "batched": True}


def _detect(request, state):
    from transformers import pipeline

    detect = pipeline(
        "temporal-action-detection",
        model=request["source"],
        trust_remote_code=request["trust_remote_code"],
        revision=request["revision"],
    )
    options = {"threshold": 0.0, "top_k": request["top_k"], "progress": False, **request["probe_options"]}
    single = [detect(probe, **options) for probe in request["probes"]]
    labels = set(detect.model.config.id2label.values())
    for found in (found for answers in single for found in answers):
        if found["label"] not in labels or not 0 <= found["score"] <= 1 or not 0 <= found["start"] <= found["end"]:
            raise RuntimeError(f"the pipeline answered {found!r}")
    for one, other in zip(single, detect(request["probes"], batch_size=2, **options), strict=True):
        if [found["label"] for found in one] != [found["label"] for found in other]:
            raise RuntimeError(f"alone the pipeline answers {one[:3]!r}, in a batch {other[:3]!r}")
    state["model"] = detect.model  # saved again below: a pipeline leaves its traces in the configuration
    return {"answers": single}


def _resave(request, state):
    """Somebody fine-tunes the model and saves it: what they get must be self-contained again."""
    with tempfile.TemporaryDirectory() as folder:
        state["model"].save_pretrained(folder)
        state["processor"].save_pretrained(folder)
        return {"files": sorted(path.name for path in Path(folder).iterdir())}


STEPS = {
    "package_is_absent": _package_is_absent,
    "load": _load,
    "load_base": _load_base,
    "logits": _logits,
    "processor": _processor,
    "feature_processor": _feature_processor,
    "classify": _classify,
    "detect": _detect,
    "resave": _resave,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
