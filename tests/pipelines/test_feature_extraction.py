"""Features of videos: the same as those that a detector makes of pixels, whatever the batch, the trunk and the length."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pytest
import torch
from transformers import VideoMAEConfig
from typer.testing import CliRunner

from hf_effvid import (
    ActionFormerConfig,
    ActionFormerForTemporalActionDetection,
    ActionFormerProcessor,
    EffVidVideoProcessor,
    VideoFocalNetConfig,
    read_video,
)
from hf_effvid.cli import app
from hf_effvid.data.feature_store import FeatureStore, FeatureStoreWriter
from hf_effvid.models.clip_trunks import run_trunk
from hf_effvid.pipelines.feature_extraction import FeatureExtractor, FeatureModelError, cut_clips, extract_features
from tests.pipelines import hosts


VIT = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12, "patch_size": 8}
TRUNKS = {
    "videomae": VideoMAEConfig(**VIT, image_size=32, num_frames=4, tubelet_size=2),
    "video_focalnet": VideoFocalNetConfig(
        embed_dim=8, depths=[1], focal_levels=[1], focal_windows=[3], num_frames=4, initialization="fan_in"
    ),
}
SPATIAL = {"size": {"shortest_edge": 18}, "crop_size": 16}


def make_detector(trunk="videomae", **options):
    size = {"hidden_size": 8, "num_attention_heads": 2, "num_stem_layers": 1, "num_branch_layers": 1}
    fields = {**size, "attention_window": 3, "num_labels": 3, **options}
    if trunk is not None:
        fields["backbone_config"] = TRUNKS[trunk].to_dict()
    torch.manual_seed(0)
    model = ActionFormerForTemporalActionDetection(ActionFormerConfig(**fields)).eval()
    for parameter in model.parameters():  # non-zero biases everywhere, those of VideoMAE's attention above all
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model


def processor_of(model, fps=None):
    step = model.config.frames_per_step
    return ActionFormerProcessor(feature_stride=step, feature_num_frames=step, feature_fps=fps, **SPATIAL)


@pytest.mark.parametrize(
    ("trunk", "frames_per_step", "fps", "video"),
    [
        ("videomae", 1, None, "clip_webm"),
        ("videomae", 2, 4, "twelve_mp4"),
        ("videomae", 3, None, "twelve_mp4"),
        ("video_focalnet", 4, 5.0, "twelve_mp4"),
        ("video_focalnet", 2, None, "short_mp4"),
        ("videomae", 1, None, "single_mp4"),
    ],
)
def test_stored_features_give_what_pixels_give(videos, tmp_path, trunk, frames_per_step, fps, video):
    source = getattr(videos, video)
    model = make_detector(trunk, frames_per_step=frames_per_step)
    processor = processor_of(model, fps)
    with FeatureStoreWriter(tmp_path) as store:
        extract_features(FeatureExtractor(model, processor, batch_size=3), {"v": source}, store)
    stored = FeatureStore.open(tmp_path)["v"]

    read = read_video(source, target_fps=fps or 10)
    pixels = processor.transform_clip(read.frames)[None]
    windows = processor.plan_windows([len(stored.features)], stored.fps)
    with torch.no_grad():
        expected = model(pixel_values=pixels)
        found = model(**processor.encode_features([stored.features], windows))
    assert stored.stride == stored.num_frames == frames_per_step and stored.fps == (fps or 10)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.offsets, expected.offsets, rtol=1e-5, atol=1e-5)
    ours, theirs = (
        processor.post_process_temporal_action_detection(outputs, windows, durations=[stored.duration])[0]
        for outputs in (found, expected)
    )
    assert len(ours["scores"]) > 0 or video == "single_mp4"  # nothing of a length fits into one frame
    torch.testing.assert_close(ours["segments"], theirs["segments"], rtol=1e-4, atol=1e-4)
    assert stored.duration == pytest.approx(len(read.frames) / (fps or 10), abs=0.11)


@pytest.mark.parametrize("host", ["videomae", "timesformer", "vivit", "vjepa2", "video_focalnet"])
def test_a_clip_feature_is_the_mean_of_the_clips_tokens(videos, host):
    """Stock processors as well as ours; the frames, places and seconds of every feature are those that the grid says."""
    model, processor = getattr(hosts, host)()
    extract = FeatureExtractor(model, processor, clip_stride=3, batch_size=4)
    found = extract(videos.other_mp4)
    frames = read_video(videos.other_mp4).frames  # 31: clips begin at 0, 3, ... 27, the last one is cut by nothing
    assert len(frames) == 31 and len(found.features) == 10
    assert (found.stride, found.num_frames, found.fps) == (3, 4, 10)
    assert found.duration == pytest.approx(3.1)
    for number in (0, 4, 9):
        clip = frames[3 * number : 3 * number + 4]
        pixels = extract.trunk.inputs().rows([extract.trunk.inputs().prepare(clip, 1)], 1)
        with torch.no_grad():
            tokens = run_trunk(model.base_model, pixels).tokens
        torch.testing.assert_close(found.features[number], tokens[0].mean(dim=0), rtol=1e-4, atol=1e-5)
    other = FeatureExtractor(model, processor, clip_stride=3, batch_size=7)(videos.other_mp4)
    torch.testing.assert_close(found.features, other.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("length", [1, 3, 4])
@pytest.mark.parametrize("stride", [1, 3, 4, 6])
@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 6, 7, 8, 13])
def test_clips_cover_a_video_and_show_nothing_twice_in_vain(number, length, stride):
    clips = [clip.tolist() for clip in cut_clips(torch.arange(number), length, stride)]
    for index, clip in enumerate(clips):
        assert clip == [min(index * stride + place, number - 1) for place in range(length)]
    shown = {frame for clip in clips for frame in clip}
    expected = {frame for frame in range(number) if frame % stride < length or stride < length}
    assert shown == expected
    if len(clips) > 1:  # the last one is needed
        assert max(clips[-1]) > max(clips[-2])


def test_memory_does_not_grow_with_the_video():
    alive, most = set(), 0

    def frames(number):
        nonlocal most
        for index in range(number):
            frame = np.zeros((24, 24, 3), dtype=np.uint8)
            weakref.finalize(frame, alive.discard, index)
            alive.add(index)
            most = max(most, len(alive))
            yield frame

    extract = FeatureExtractor(make_detector(frames_per_step=2), processor_of(make_detector(frames_per_step=2), 10))
    found = extract({"frames": frames(1000), "fps": 10})
    assert len(found.features) == 500 and most <= extract.batch_size * extract.clip_frames + 16


def test_half_precision_is_close_and_arguments_are_checked(videos):
    model = make_detector(frames_per_step=2)
    processor = processor_of(model)
    full = FeatureExtractor(model, processor)(videos.twelve_mp4).features
    halved = FeatureExtractor(model, processor, dtype="bfloat16")
    assert halved.recipe()["dtype"] == "bfloat16"
    found = halved(videos.twelve_mp4).features
    assert found.dtype == torch.float32 and 0 < (found - full).abs().max() < 0.1 * full.abs().max()
    for options, reason in (
        ({"frames_per_step": 2, "clip_stride": 2}, "not both"),
        ({"clip_stride": 0}, "at least 1"),
        ({"fps": -1.0}, "greater than 0"),
        ({"dtype": "int8"}, "dtype"),
    ):
        with pytest.raises(ValueError, match=reason):
            FeatureExtractor(make_detector(), processor, **options)


def test_what_a_store_is_resumed_by(videos):
    model, processor = hosts.videomae()
    recipe = FeatureExtractor(model, processor).recipe()
    assert recipe == json.loads(json.dumps(recipe)) and recipe["clip_stride"] == recipe["clip_frames"] == 4
    assert FeatureExtractor(model, processor, batch_size=2).recipe() == recipe
    assert FeatureExtractor(model, processor, fps=5).recipe() != recipe
    model.base_model.encoder.layer[0].output.dense.bias.data[0] += 1
    assert FeatureExtractor(model, processor).recipe() != recipe
    trained = EffVidVideoProcessor(num_frames=4, frame_stride=2, target_fps=10, sampling="dense", **SPATIAL)
    assert FeatureExtractor(model, trained).fps == 5


def test_models_without_features_of_clips(tmp_path):
    processor = ActionFormerProcessor()
    with pytest.raises(FeatureModelError, match="takes features itself"):
        FeatureExtractor(make_detector(None, input_size=4), processor)
    with pytest.raises(FeatureModelError, match="temporal adapters"):
        FeatureExtractor(make_detector(temporal_adapters=True), processor)
    with pytest.raises(FeatureModelError, match="pass its processor"):
        FeatureExtractor(make_detector())
    model, processor = hosts.videoprism()
    with pytest.raises(FeatureModelError, match="model_type"):
        FeatureExtractor(model, processor)
    make_detector().save_pretrained(tmp_path)
    with pytest.raises(FeatureModelError, match="holds no processor"):
        FeatureExtractor(tmp_path)


# ---- the command -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    model = make_detector(frames_per_step=2)
    model.save_pretrained(folder)
    processor_of(model, 5).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(videos, tmp_path_factory):
    """Three videos, one of them below a folder, and one that is none."""
    folder = tmp_path_factory.mktemp("some")
    (folder / "deep").mkdir()
    for name in ("broken.mp4", "clip.webm", "long.mp4"):
        shutil.copy(videos.folder / name, folder)
    shutil.copy(videos.twelve_mp4, folder / "deep")
    return folder


def run_cache(*arguments, code=0):
    result = CliRunner().invoke(app, ["cache", *map(str, arguments), "--features", "-q"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_a_folder_of_videos(folder, detector_folder, tmp_path):
    told = json.loads(run_cache(folder, "-m", detector_folder, "-o", tmp_path / "f", "--json"))
    assert list(told["errors"]) == ["broken.mp4"] and (told["added"], told["failed"]) == (3, 1)
    store = FeatureStore.open(tmp_path / "f")
    assert sorted(store.names) == ["clip.webm", "deep/twelve.mp4", "long.mp4"]
    assert store.info("twelve").num_steps == 30 and store.info("twelve").fps == 5
    assert store.recipe["frames_per_step"] == 2 and store.recipe["model"] == detector_folder.name
    told = json.loads(run_cache(folder, "-m", detector_folder, "-o", tmp_path / "f", "--json"))
    assert (told["added"], told["kept"], told["failed"]) == (0, 3, 1)
    with pytest.raises(ValueError, match="fps: 5, now 4"):
        run_cache(folder, "-m", detector_folder, "-o", tmp_path / "f", "--fps", 4)
    output = run_cache(folder / "broken.mp4", "-m", detector_folder, "-o", tmp_path / "g", code=1)
    assert "1 failed" in output and "broken.mp4: " in output


def test_annotations_lists_and_data_sets(videos, detector_folder, tmp_path):
    listed = tmp_path / "actions.csv"
    rows = ["file,start,end,label,split", "long.mp4,0,1,a,train", "long.mp4,1,2,b,train", "clip.mkv,0,1,a,test"]
    listed.write_text("\n".join([*rows, "gone.mp4,0,1,a,test"]) + "\n")
    options = ("-m", detector_folder, "--root", videos.folder)
    run_cache(listed, "-o", tmp_path / "a", *options)
    store = FeatureStore.open(tmp_path / "a")
    assert store.names == ["long.mp4", "clip.mkv"] and list(store.errors) == ["gone.mp4"]
    run_cache(listed, "-o", tmp_path / "b", *options, "--split", "test", "--skip-missing", "--shards", "parquet")
    store = FeatureStore.open(tmp_path / "b")
    assert store.names == ["clip.mkv"] and not store.errors and store["clip"].features.shape == (4, 8)

    plain = videos.folder / "list.txt"
    plain.write_text("long.mp4\nother.mp4\n")
    try:
        run_cache(plain, "-o", tmp_path / "c", "-m", detector_folder)
    finally:
        plain.unlink()
    assert FeatureStore.open(tmp_path / "c").names == ["long.mp4", "other.mp4"]
    with pytest.raises(ValueError, match="no annotations of actions"):
        run_cache(videos.folder, "-o", tmp_path / "d", "-m", detector_folder, "--split", "test")


def test_rows_of_a_data_set_are_named(videos):
    datasets = pytest.importorskip("datasets")
    from hf_effvid.data.hub_datasets import named_videos

    paths = [str(videos.long_mp4), str(videos.other_mp4), str(videos.long_mp4)]
    rows = [*({"path": path, "bytes": None} for path in paths), {"path": None, "bytes": videos.long_mp4.read_bytes()}]
    loaded = datasets.Dataset.from_dict({"clip": rows, "text": list("abcd")}).cast_column("clip", datasets.Video())
    for data in (loaded, loaded.to_iterable_dataset()):
        found = dict(named_videos(data))
        assert list(found) == ["long.mp4", "other.mp4", "row/000002", "row/000003"]
        assert all(len(read_video(video).frames) for video in found.values())
    assert list(dict(named_videos(datasets.DatasetDict(test=loaded)))) == [
        *list(found)[:2],
        "test/000002",
        "test/000003",
    ]


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from hf_effvid.cli import app
    from hf_effvid.pipelines import feature_extraction as module

    encode, calls = module.FeatureExtractor._encode, 0

    def counted(self, clips):
        global calls
        calls += 1
        if calls == 7:  # in the middle of a video, others are done
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(self, clips)

    module.FeatureExtractor._encode = counted
    app(sys.argv[1:])
    """
)


@pytest.mark.slow
def test_killed_and_started_again_is_as_if_never_killed(folder, detector_folder, tmp_path):
    arguments = [folder, "-m", detector_folder, "--batch-size", 1]
    run_cache(*arguments, "-o", tmp_path / "whole")
    command = [
        sys.executable,
        "-c",
        KILLED,
        "cache",
        *map(str, arguments),
        "--features",
        "-q",
        "-o",
        tmp_path / "killed",
    ]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == -signal.SIGKILL
    before = FeatureStore.open(tmp_path / "killed")
    assert 0 < len(before) < 3
    told = json.loads(run_cache(*arguments, "-o", tmp_path / "killed", "--json"))
    assert told["kept"] == len(before) and told["added"] == 3 - len(before)
    left, right = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "killed")
    )
    assert left == right
