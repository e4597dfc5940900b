"""Features on disk: what was written is read, whoever died in between, and public folders open as they come."""

import json
import os
import pickle
import signal
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from hf_effvid.data.feature_store import FeatureStore, FeatureStoreError, FeatureStoreWriter, StoredFeatures


def made(number, steps=5, channels=3):
    values = torch.randn(steps, channels, generator=torch.Generator().manual_seed(number))
    return StoredFeatures(values, stride=4, num_frames=16, fps=30.0, duration=steps * 4 / 30)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("format", ["safetensors", "parquet"])
def test_what_was_written_is_read(tmp_path, format):
    if format == "parquet":
        pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    videos = {f"a/video {number}.mp4": made(number, steps=3 + number) for number in range(5)}
    with FeatureStoreWriter(tmp_path / "f", {"model": "m"}, format=format, shard_bytes=100) as writer:
        for name, video in videos.items():
            writer.add(name, video)
        writer.add_error("broken.mp4", OSError("no moov atom"))
    store = pickle.loads(pickle.dumps(FeatureStore.open(tmp_path / "f")))
    assert store.names == list(videos) and len(store) == 5 and store.channels == 3
    assert len(list((tmp_path / "f").glob(f"features-*.{format}"))) > 1
    assert store.recipe == {"model": "m"} and store.errors == {"broken.mp4": "OSError: no moov atom"}
    for name, video in videos.items():
        assert torch.equal(store[name].features, video.features)
        assert store[name].info == video.info == store.info(name)
    assert "broken.mp4" not in store
    with pytest.raises(KeyError, match="no moov atom"):
        store["broken.mp4"]


def test_parquet_opens_as_a_data_set(tmp_path):
    datasets = pytest.importorskip("datasets")
    with FeatureStoreWriter(tmp_path / "f", format="parquet") as writer:
        writer.add("v", made(0))
    files = [str(path) for path in (tmp_path / "f").glob("*.parquet")]
    row = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert row["video"] == "v" and row["stride"] == 4 and row["fps"] == 30
    assert torch.equal(torch.tensor(row["features"]), made(0).features)


def test_half_precision_halves_the_shard_and_refuses_what_does_not_fit(tmp_path):
    with FeatureStoreWriter(tmp_path / "f", dtype="float16") as writer:
        writer.add("v", made(0, steps=400))
        too_large = StoredFeatures(torch.full((2, 3), 1e5), 4, 16)
        with pytest.raises(FeatureStoreError, match="not finite"):
            writer.add("w", too_large)
    (shard,) = (tmp_path / "f").glob("*.safetensors")
    assert shard.stat().st_size < 400 * 3 * 2 + 1000
    found = FeatureStore.open(tmp_path / "f")["v"].features
    assert found.dtype == torch.float32 and torch.equal(found, made(0, steps=400).features.half().float())


RUN = textwrap.dedent(
    """
    import os, signal, sys
    import torch
    from hf_effvid.data.feature_store import FeatureStoreWriter, StoredFeatures

    folder, at = sys.argv[1], int(sys.argv[2])
    calls = 0

    def counted(function):
        def call(*arguments, **keywords):
            global calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **keywords)
        return call

    for name in ("replace", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    with FeatureStoreWriter(folder, {"seed": 0}, shard_bytes=120) as writer:
        for number in range(4):
            name = f"v{number}"
            if name in writer:
                continue
            if number == 1:
                writer.add_error(name, OSError("broken"))
                continue
            values = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
            writer.add(name, StoredFeatures(values, 4, 16, 30.0, 1.0))
    """
)


def in_child(folder, at):
    """`RUN` in a fork, killed at the `at`-th system call that makes something durable; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            sys.argv = ["run", str(folder), str(at)]
            exec(compile(RUN, "run", "exec"), {"__name__": "child"})
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_moment_and_started_again_is_as_if_never_killed(tmp_path):
    assert in_child(tmp_path / "whole", 0) == 0
    expected = contents(tmp_path / "whole")
    assert [name for name in expected if name.startswith("features-")] != []
    killed = 0
    for at in range(1, 60):
        folder = tmp_path / f"at{at}"
        status = in_child(folder, at)
        if os.WIFEXITED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        killed += 1
        if (folder / "index.json").is_file():
            FeatureStore.open(folder)  # half done, it can be read
        assert in_child(folder, 0) == 0
        assert contents(folder) == expected
    assert killed > 12


def test_an_unfinished_store_is_readable_and_goes_on(tmp_path):
    writer = FeatureStoreWriter(tmp_path, {"a": 1})
    writer.add("v0", made(0))
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert torch.equal(FeatureStore.open(tmp_path)["v0"].features, made(0).features)
    with FeatureStoreWriter(tmp_path, {"a": 1}) as writer:
        assert "v0" in writer and "v1" not in writer
        writer.add("v1", made(1))
        with pytest.raises(FeatureStoreError, match="already"):
            writer.add("v1", made(1))
    assert FeatureStore.open(tmp_path).names == ["v0", "v1"]


def test_a_failed_video_is_tried_again(tmp_path):
    with FeatureStoreWriter(tmp_path) as writer:
        writer.add_error("v", OSError("disk"))
    with FeatureStoreWriter(tmp_path) as writer:
        assert "v" not in writer and writer.errors == {"v": "OSError: disk"}
        writer.add("v", made(0))
    store = FeatureStore.open(tmp_path)
    assert store.names == ["v"] and store.errors == {}


def test_a_writer_refuses_what_it_would_spoil(tmp_path):
    with FeatureStoreWriter(tmp_path / "f", {"model": "a", "fps": 5}):
        with pytest.raises(FeatureStoreError, match="another process"):
            FeatureStoreWriter(tmp_path / "f", {"model": "a", "fps": 5})
    with pytest.raises(FeatureStoreError, match="model: 'a', now 'b'"):
        FeatureStoreWriter(tmp_path / "f", {"model": "b", "fps": 5})
    with pytest.raises(FeatureStoreError, match="shard_format"):
        FeatureStoreWriter(tmp_path / "f", {"model": "a", "fps": 5}, format="parquet")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("words")
    with pytest.raises(FeatureStoreError, match="neither empty nor"):
        FeatureStoreWriter(tmp_path / "notes")
    with FeatureStoreWriter(tmp_path / "g") as writer:
        for features in (torch.zeros(3), torch.zeros(0, 3), torch.zeros(2, 3, dtype=torch.int64)):
            with pytest.raises(FeatureStoreError, match="expected features"):
                writer.add("v", StoredFeatures(features, 4, 16))
        with pytest.raises(FeatureStoreError, match="valid text"):
            writer.add("v\udcff", made(0))


def test_damage_is_named(tmp_path):
    with FeatureStoreWriter(tmp_path) as writer:
        writer.add("v", made(0))
    (shard,) = tmp_path.glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-5])
    with pytest.raises(FeatureStoreError, match="extract the features again"):
        FeatureStore.open(tmp_path)["v"]
    shard.unlink()
    with pytest.raises(FeatureStoreError, match="missing"):
        FeatureStore.open(tmp_path)["v"]
    (tmp_path / "index.json").write_text('{"format": "effvid-fea')
    with pytest.raises(FeatureStoreError, match="damaged"):
        FeatureStore.open(tmp_path)
    with pytest.raises(FeatureStoreError, match="is no folder"):
        FeatureStore.open(tmp_path / "nowhere")


def test_public_files(tmp_path):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(tmp_path / "v_one.npy", values)
    np.savez(tmp_path / "two.npz", feats=values, note=np.array("I3D"))
    save_file({"x": torch.from_numpy(values)}, tmp_path / "three.safetensors")
    torch.save(torch.from_numpy(values)[None].half(), tmp_path / "four.pt")
    (tmp_path / "deep").mkdir()
    torch.save({"rgb": torch.zeros(1, 2), "both": torch.from_numpy(values)}, tmp_path / "deep" / "five.pth")
    store = FeatureStore.open(tmp_path, stride=8, num_frames=16, fps={"one": 25.0, "two": 30.0}, key=None)
    assert store.names == ["deep/five", "four", "three", "two", "v_one"]
    for name in ("one", "v_two", "three.mp4", "four"):
        assert store.info(name).num_steps == 4
        assert np.array_equal(store[name].features, values) and store[name].features.dtype == torch.float32
    assert store["one"].fps == 25.0 and store["two"].fps == 30.0 and store["four"].fps is None
    assert store["one"].grid().to_seconds(1) == pytest.approx((8 + 8) / 25)
    assert store["four"].grid(fps=10).start == pytest.approx(0.8)
    with pytest.raises(FeatureStoreError, match="pass the video's `fps`"):
        store["four"].grid()
    with pytest.raises(FeatureStoreError, match="pass `key`"):
        store["five"]
    keyed = FeatureStore.open(tmp_path / "deep", stride=8, num_frames=16, key="both", channels_first=True)
    assert np.array_equal(keyed["five"].features, values.T)
    with pytest.raises(FeatureStoreError, match="no 'flow'"):
        FeatureStore.open(tmp_path / "deep", stride=8, num_frames=16, key="flow")["five"]


def test_files_that_would_run_code_or_hold_nothing_are_refused(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    store = FeatureStore.open(tmp_path, stride=1, num_frames=1)
    for name in store.names:
        with pytest.raises(FeatureStoreError, match=name):
            store[name]
    with pytest.raises(FeatureStoreError, match="pass `stride` and `num_frames`"):
        FeatureStore.open(tmp_path)
    np.savez(tmp_path / "flat.npz", np.zeros((2, 2)))
    with pytest.raises(FeatureStoreError, match="both features of 'flat'"):
        FeatureStore.open(tmp_path, stride=1, num_frames=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FeatureStoreError, match=r"index\.json"):
        FeatureStore.open(tmp_path / "empty", stride=1, num_frames=1)


def test_a_short_name_that_two_videos_share_finds_neither(tmp_path):
    with FeatureStoreWriter(tmp_path) as writer:
        for name in ("a/one.mp4", "b/one.mp4", "b/two.mp4"):
            writer.add(name, made(0))
    store = FeatureStore.open(tmp_path)
    assert "one" not in store and store.find("two") == "b/two.mp4" and store.find("a/one") == "a/one.mp4"
    with pytest.raises(FeatureStoreError, match="leave them out"):
        FeatureStore.open(tmp_path, stride=4)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_order_of_shards_does_not_depend_on_interruptions(tmp_path_factory, data):
    """However a run is cut into pieces, the folder is the same in the end."""
    number = data.draw(st.integers(1, 8))
    steps = data.draw(st.lists(st.integers(1, 9), min_size=number, max_size=number))
    shard_bytes = data.draw(st.sampled_from([1, 60, 150, 10**6]))
    cuts = data.draw(st.sets(st.integers(0, number)))
    results = []
    for stops in (set(), cuts):
        folder = tmp_path_factory.mktemp("store")
        done = 0
        for stop in [*sorted(stops), None]:
            writer = FeatureStoreWriter(folder, shard_bytes=shard_bytes)
            while done < (number if stop is None else stop):
                writer.add(f"v{done}", made(done, steps[done]))
                done += 1
            writer.__exit__(*((None, None, None) if stop is None else (KeyboardInterrupt, None, None)))
        results.append(contents(folder))
    assert results[0] == results[1]
    assert json.loads(results[0]["index.json"])["videos"].keys() == {f"v{n}" for n in range(number)}
