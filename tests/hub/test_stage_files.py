import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from hf_effvid.hub.stage_files import StageError, file_kind, list_staged_files


@pytest.fixture
def folder(staged, tmp_path):
    return shutil.copytree(staged, tmp_path / "checkpoint")


def edit_json(path, **changes):
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, **changes}))


def link(folder):
    (folder / "layers.py").unlink()
    (folder / "layers.py").symlink_to("focal_ops.py")


def poison(folder):
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def with_pipeline(implementation):
    entry = {"a-task": {"impl": implementation, "pt": ["AutoModel"]}}
    return lambda folder: edit_json(folder / "config.json", custom_pipelines=entry)


def lost_pipeline(folder):
    """The file is there, but no file that goes with the model imports it."""
    with_pipeline("pipeline_x.X")(folder)
    (folder / "pipeline_x.py").write_text("from .layers import nothing\n\nclass X:\n    pass\n")


OFFENCES = {
    "pickle": (lambda f: (f / "pytorch_model.bin").write_bytes(b""), r"pytorch_model\.bin: a pickle"),
    "optimizer": (lambda f: (f / "optimizer.safetensors").write_bytes(b""), "training state"),
    "training arguments": (lambda f: (f / "training_args.json").write_text("{}"), "training state"),
    "clip": (lambda f: (f / "holiday.mp4").write_bytes(b""), "media"),
    "hidden": (lambda f: (f / ".env").write_text("x"), "hidden"),
    "folder": (lambda f: (f / "runs").mkdir(), "folder or special file"),
    "other": (lambda f: (f / "notes.txt").write_text("x"), "notes.txt: not an allowed file"),
    "link": (link, "symbolic link"),
    "mode": (lambda f: (f / "model.safetensors").chmod(0o600), "mode 0600"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: missing"),
    "no card": (lambda f: (f / "README.md").unlink(), "README.md: missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: missing"),
    "two sets of weights": (
        lambda f: shutil.copy(f / "model.safetensors", f / "model-00001-of-00001.safetensors"),
        "keep one",
    ),
    "missing code": (lambda f: (f / "clip_sampling.py").unlink(), r"clip_sampling\.py.*missing"),
    "stray code": (lambda f: (f / "setup.py").write_text(""), r"setup\.py: code that nothing"),
    "broken code": (lambda f: (f / "modeling_video_focalnet.py").write_text("def ("), "not Python"),
    "wrong class": (
        lambda f: edit_json(f / "config.json", auto_map={"AutoConfig": "configuration_video_focalnet.Nope"}),
        "defines no class Nope",
    ),
    "code elsewhere": (
        lambda f: edit_json(f / "config.json", auto_map={"AutoConfig": "evil/repo--configuration_x.X"}),
        "another repository",
    ),
    "no json": (lambda f: (f / "config.json").write_text("{"), "not JSON"),
    "token": (
        lambda f: edit_json(f / "config.json", note="hf_" + "a1B2" * 9),
        "looks like an access token",
    ),
    "local path": (lambda f: edit_json(f / "config.json", _name_or_path="/home/me/secret"), "local path"),
    "pipeline without code": (with_pipeline("pipeline_x.X"), r"custom_pipelines\.a-task.*pipeline_x\.py is missing"),
    "pipeline that gets lost": (lost_pipeline, r"custom_pipelines\.a-task.*pipeline_x\.py.*lost when saved again"),
    "pipeline elsewhere": (with_pipeline("evil/repo--pipeline_x.X"), "another repository"),
    "pipeline of nothing": (with_pipeline(None), r"custom_pipelines\.a-task.*expected module\.Class"),
    "not finite": (poison, "not finite"),
    "truncated": (truncate, "not a safetensors file"),
}


@pytest.mark.parametrize("offence", OFFENCES)
def test_each_offence_is_named(folder, offence):
    change, message = OFFENCES[offence]
    change(folder)
    with pytest.raises(StageError, match=message):
        list_staged_files(folder)


def test_a_clean_folder_is_listed(folder):
    files = list_staged_files(folder)
    assert {file.kind for file in files} == {"config", "weights", "processor", "card", "code"}
    assert [file.path for file in files] == sorted(path.name for path in folder.iterdir())
    weights = next(file for file in files if file.kind == "weights")
    assert weights.size == (folder / "model.safetensors").stat().st_size and len(weights.sha256) == 64


def test_every_offence_is_listed_at_once(folder):
    (folder / "a.bin").write_bytes(b"")
    (folder / "b.mp4").write_bytes(b"")
    with pytest.raises(StageError) as caught:
        list_staged_files(folder)
    assert "a.bin" in str(caught.value) and "b.mp4" in str(caught.value)


def test_missing_folder(tmp_path):
    with pytest.raises(StageError, match="no such folder"):
        list_staged_files(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["../config.json", "config.json.bak", "model.safetensors\n", "x.py.txt", "README.MD"])
def test_lookalike_names_are_not_allowed(name):
    assert file_kind(name) is None
