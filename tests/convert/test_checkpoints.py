"""Research checkpoints are read without running what is in them."""

import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hf_effvid.convert import CheckpointError, UnsafeCheckpointError
from hf_effvid.convert.checkpoints import read_weights, sha256_of


WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.tensor([0.5, -1.0])}


@pytest.fixture
def yacs_node(monkeypatch):
    """A class as pickles of the original training code name it, gone again before anything is read."""

    class CfgNode(dict):
        def __init__(self, *args):
            super().__init__(*args)
            self.__dict__.update(
                {"__immutable__": True, "__deprecated_keys__": set(), "__renamed_keys__": {}, "__new_allowed__": False}
            )

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, "yacs", package)
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    yield CfgNode
    monkeypatch.undo()


def save_as_training_script(path, node_class, **options):
    data = node_class({"BATCH_SIZE": 8, "ROOT": "/data", "SIZES": [224, 224], "INNER": node_class({"FLIP": False})})
    torch.save(
        {
            "model": WEIGHTS,
            "optimizer": {
                "state": {0: {"momentum_buffer": torch.ones(2)}},
                "param_groups": [{"lr": 0.1, "params": [0]}],
            },
            "lr_scheduler": {"t_initial": 120},
            "max_accuracy": np.float64(79.8),
            "epoch": 119,
            "config": node_class({"DATA": data, "AMP_OPT_LEVEL": "O1"}),
        },
        path,
        **options,
    )


def assert_same(found):
    assert found.keys() == WEIGHTS.keys()
    for name, value in WEIGHTS.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False])
def test_training_checkpoint_with_its_configuration(tmp_path, yacs_node, monkeypatch, zipped):
    path = tmp_path / "checkpoint.pth"
    save_as_training_script(path, yacs_node, _use_new_zipfile_serialization=zipped)
    assert b"yacs.config" in path.read_bytes() or zipped
    monkeypatch.delitem(sys.modules, "yacs.config")
    monkeypatch.delitem(sys.modules, "yacs")
    assert_same(read_weights(path))
    assert "yacs" not in sys.modules


def test_the_stand_ins_do_not_stay_registered(tmp_path, yacs_node):
    path = tmp_path / "checkpoint.pth"
    save_as_training_script(path, yacs_node)
    before = set(torch.serialization.get_safe_globals())
    read_weights(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"model": w, "epoch": 3}])
def test_where_weights_are_found(tmp_path, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt"))


def test_the_prefix_of_data_parallel_training_is_removed(tmp_path):
    torch.save({"model": {f"module.{name}": value for name, value in WEIGHTS.items()}}, tmp_path / "weights.pt")
    assert_same(read_weights(tmp_path / "weights.pt"))


def test_safetensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "weights.safetensors")
    assert_same(read_weights(tmp_path / "weights.safetensors"))


class Exploit:
    """What a hostile pickle does: asks for a function to be called with its arguments."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def exploits(marker):
    yield Exploit(Path.touch, marker)
    yield Exploit(eval, f"open({str(marker)!r}, 'w')")
    yield Exploit(exec, f"open({str(marker)!r}, 'w')")
    yield Exploit(__import__("os").system, f"touch {marker}")
    yield Exploit(__import__("subprocess").call, ["touch", str(marker)])
    # through the list of harmless names: their attributes must not be a way out
    yield Exploit(getattr, "", "join")


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, number, zipped):
    marker = tmp_path / "executed"
    path = tmp_path / "hostile.pth"
    exploit = list(exploits(marker))[number]
    torch.save({"model": WEIGHTS, "config": exploit}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UnsafeCheckpointError, match="Nothing in it was run"):
        read_weights(path)
    assert not marker.exists()


def test_the_exploits_would_work(tmp_path):
    """Otherwise the test above would prove nothing."""
    marker = tmp_path / "executed"
    for exploit in list(exploits(marker))[:5]:
        pickle.loads(pickle.dumps(exploit))
        assert marker.exists()
        marker.unlink()


def test_arguments_of_stand_ins_are_not_called_either(tmp_path, yacs_node):
    """An exploit inside the configuration node, which itself is allowed."""
    marker = tmp_path / "executed"
    path = tmp_path / "hostile.pth"
    torch.save({"model": WEIGHTS, "config": yacs_node({"DATA": Exploit(Path.touch, marker)})}, path)
    with pytest.raises(UnsafeCheckpointError):
        read_weights(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x02garbage", bytes(range(256)) * 40])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("zipped", [True, False])
def test_truncated_checkpoints_are_named(tmp_path, zipped):
    path = tmp_path / "weights.pth"
    torch.save({"model": WEIGHTS}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(len(whole) // 25, 1)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="weights.pth"):
            read_weights(path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"model": {}}, {"model": {"a": "text"}}])
def test_files_without_weights_are_named(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="no weights"):
        read_weights(tmp_path / "weights.pth")


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="Give the checkpoint file itself"):
        read_weights(tmp_path)


def test_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
