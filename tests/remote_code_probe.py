"""Run in a process of its own, without the package: opens folders with their own code and records what comes out.

    python remote_code_probe.py jobs.json

`jobs.json` lists jobs, each `{"folder", "action", ...}`; the results go beside it as `results.safetensors` and `results.json`.
"""

import importlib.abc
import json
import sys
from pathlib import Path


class PackageIsAbsent(importlib.abc.MetaPathFinder):
    """Makes `import hf_effvid` fail as if it were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_effvid":
            raise ModuleNotFoundError(f"No module named {name!r} (blocked by the test)", name=name)
        return None


sys.meta_path.insert(0, PackageIsAbsent())

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoConfig, AutoModel, AutoModelForVideoClassification, AutoVideoProcessor  # noqa: E402
from transformers.dynamic_module_utils import get_class_from_dynamic_module  # noqa: E402


def logits_of(folder, inputs, job):
    model = AutoModelForVideoClassification.from_pretrained(folder, trust_remote_code=True)
    if "adapter" in job:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, job["adapter"]).eval()
    if "save_to" in job:
        model.save_pretrained(job["save_to"])
    buffers = {f"buffer.{name}": value.contiguous() for name, value in model.named_buffers()}
    return {"logits": model(**inputs).logits, **buffers}


def stock_logits_of(folder, inputs, job):
    """A class of transformers by name, and none of the code in the folder."""
    model, info = getattr(transformers, job["class"]).from_pretrained(
        folder, trust_remote_code=False, output_loading_info=True
    )
    assert type(model).__module__.startswith("transformers.models."), type(model)
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    if "save_to" in job:
        model.save_pretrained(job["save_to"])
    return {"logits": model(**inputs).logits}


def hidden_states_of(folder, inputs, job):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    if "save_to" in job:
        model.save_pretrained(job["save_to"])
    return {"last_hidden_state": model(**inputs).last_hidden_state.contiguous()}


def detections_of(folder, inputs, job):
    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    if "save_to" in job:
        model.save_pretrained(job["save_to"])
    buffers = {f"buffer.{name}": value.contiguous() for name, value in model.named_buffers()}
    outputs = model(**inputs)
    return {"logits": outputs.logits, "offsets": outputs.offsets, **buffers}


def feature_maps_of(folder, inputs, job):
    # AutoBackbone.from_pretrained takes Hub ids only; this is what it does once it has the files
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    backbone_class = get_class_from_dynamic_module(config.auto_map["AutoBackbone"], folder)
    feature_maps = backbone_class.from_pretrained(folder)(**inputs).feature_maps
    return {f"feature_map.{index}": value.contiguous() for index, value in enumerate(feature_maps)}


def pixel_values_of(folder, inputs, job):
    processor = AutoVideoProcessor.from_pretrained(folder, trust_remote_code=True)
    if "save_to" in job:
        processor.save_pretrained(job["save_to"])
    return {"pixel_values": processor(load_file(job["video"])["video"])["pixel_values"]}


ACTIONS = {
    action.__name__: action
    for action in (logits_of, stock_logits_of, hidden_states_of, detections_of, feature_maps_of, pixel_values_of)
}


def main(jobs_path):
    results = {}
    for number, job in enumerate(json.loads(jobs_path.read_text())):
        inputs = load_file(job["inputs"]) if "inputs" in job else {}
        with torch.no_grad():
            for name, value in ACTIONS[job["action"]](job["folder"], inputs, job).items():
                results[f"{number}.{name}"] = value.clone()
    save_file(results, jobs_path.with_name("results.safetensors"))
    modules = sorted({name.split(".")[0] for name in sys.modules})
    jobs_path.with_name("results.json").write_text(json.dumps({"modules": modules}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
