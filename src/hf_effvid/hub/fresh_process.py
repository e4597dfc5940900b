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
    from transformers import AutoModelForVideoClassification

    options = {"trust_remote_code": request["trust_remote_code"], "revision": request["revision"]}
    model, info = AutoModelForVideoClassification.from_pretrained(
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
    pixels = load_file(request["pixels"])["pixel_values"]
    with torch.inference_mode():
        logits = model(**{model.main_input_name: pixels}).logits
    return {"logits": logits.tolist()}


def _processor(request, state):
    from transformers import AutoVideoProcessor

    processor = AutoVideoProcessor.from_pretrained(
        request["source"], trust_remote_code=request["trust_remote_code"], revision=request["revision"]
    )
    output = processor(request["clips"][0], return_tensors="pt", **_frames(processor, state["model"]))
    # some models take pixels under more than one name
    taken = inspect.signature(state["model"].forward).parameters
    names = [name for name in (state["model"].main_input_name, "pixel_values") if name in output and name in taken]
    if not names:
        raise RuntimeError(f"the processor gives {sorted(output)}, the model takes {state['model'].main_input_name!r}")
    state["processor"] = processor
    return {"class": type(processor).__name__, "shape": list(output[names[0]].shape)}


def _frames(processor, model) -> dict:
    """A processor with a recipe knows how many frames to take, a stock one has to be told."""
    if hasattr(processor, "frame_indices"):
        return {}
    config = model.config
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", None)
    return {"num_frames": frames, "do_sample_frames": True}


def _pipeline(request, state):
    from transformers import pipeline

    classify = pipeline(
        "video-classification",
        model=request["source"],
        trust_remote_code=request["trust_remote_code"],
        revision=request["revision"],
    )
    options = {k: v for k, v in _frames(classify.video_processor, classify.model).items() if k == "num_frames"}
    single = [classify(clip, **options) for clip in request["clips"]]
    labels = set(classify.model.config.id2label.values())
    for answers in single:
        if not answers or any(a["label"] not in labels or not 0 <= a["score"] <= 1 for a in answers):
            raise RuntimeError(f"the pipeline answered {answers!r}")
    if classify.image_processor is None:  # the stock pipeline batches only with one
        return {"answers": single, "batched": False}
    batched = classify(request["clips"], batch_size=2, **options)
    for one, other in zip(single, batched, strict=True):
        scores = {answer["label"]: answer["score"] for answer in other}
        if any(abs(answer["score"] - scores.get(answer["label"], -1)) > 1e-3 for answer in one):
            raise RuntimeError(f"alone the pipeline answers {one!r}, in a batch {other!r}")
    return {"answers": single, "batched": True}


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
    "pipeline": _pipeline,
    "resave": _resave,
}


if __name__ == "__main__":
    main(*sys.argv[1:])
