"""A data set on a Hub: class folders of mp4 files in a data set repository, loaded, streamed, and loaded again offline."""

import os
import subprocess
import sys
import textwrap

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants

from ..hub.server import TOKEN, HubServer


pytestmark = pytest.mark.hub

PROGRAM = """
    import hashlib, sys
    sys.modules["torchcodec"] = None
    from hf_effvid.data import ClipDataset, StreamingClipDataset, label_names, load_video_dataset
    from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor

    processor = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 24}, crop_size=24)
    streaming = sys.argv[1] == "stream"
    rows = load_video_dataset("org/motion", split="val", streaming=streaming)
    clips = StreamingClipDataset(rows, processor) if streaming else ClipDataset(rows, processor)
    items = list(clips) if streaming else [clips[i] for i in range(len(clips))]
    print(label_names(rows))
    print([int(item["labels"]) for item in items])
    print([hashlib.sha256(item["pixel_values"].numpy().tobytes()).hexdigest()[:12] for item in items])
"""


@pytest.fixture
def hub(monkeypatch, motion_folder):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with HubServer() as server:
        api = HfApi(server.endpoint, token=TOKEN)
        api.create_repo("org/motion", repo_type="dataset")
        clips = sorted(motion_folder.rglob("*.mp4"))
        operations = [CommitOperationAdd(path.relative_to(motion_folder).as_posix(), path) for path in clips]
        api.create_commit("org/motion", operations, commit_message="clips", repo_type="dataset")
        yield server


def run(mode, **environment):
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1", "HF_TOKEN": TOKEN} | environment
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_a_repository_is_loaded_streamed_and_loaded_offline(hub, tmp_path):
    online = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    loaded = run("load", **online)
    assert loaded[0] == "['moves_left', 'moves_right', 'turns_clockwise', 'turns_counter_clockwise']"
    assert loaded[1] == "[0, 1, 2, 3]"
    assert run("stream", **online) == loaded
    requests = len(hub.log)
    assert run("load", **online | {"HF_HUB_OFFLINE": "1"}) == loaded
    assert len(hub.log) == requests
