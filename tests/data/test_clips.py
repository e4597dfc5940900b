import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_effvid.data.clips import ClipDataset
from hf_effvid.data.collator import ClipCollator
from hf_effvid.data.loading import load_video_dataset
from hf_effvid.data.transforms import AugmentationConfig
from hf_effvid.models.video_errors import VideoError, VideoNotReadable
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


def same(a, b):
    return torch.equal(a["pixel_values"], b["pixel_values"]) and torch.equal(a["labels"], b["labels"])


def test_test_clips_are_what_the_processor_gives(train_rows, processor):
    clips = ClipDataset(train_rows, processor)
    path = train_rows[3]["video"]["path"]
    assert torch.equal(clips[3]["pixel_values"], processor(path)["pixel_values"][0])
    assert clips[3]["labels"].item() == train_rows[3]["label"] and clips[3]["labels"].dtype == torch.int64
    views = EffVidVideoProcessor(
        num_frames=4, size={"shortest_edge": 24}, crop_size=20, num_clips=2, num_crops=3, sampling="dense"
    )
    several = ClipDataset(train_rows, views, multi_view=True)[3]["pixel_values"]
    assert several.shape == (6, 4, 3, 20, 20)
    assert torch.equal(several, views(path, multi_view=True)["pixel_values"])


def test_without_augmentation_training_only_draws_other_frames(train_rows, processor):
    clips = ClipDataset(train_rows, processor, train=True)
    whole = processor(train_rows[0]["video"]["path"], num_frames=8)["pixel_values"][0]
    drawn = set()
    for epoch in range(8):
        clips.set_epoch(epoch)
        frames = clips[0]["pixel_values"]
        index = tuple(next(i for i in range(8) if torch.equal(frame, whole[i])) for frame in frames)
        assert list(index) == sorted(index)
        drawn.add(index)
    assert len(drawn) > 3


@pytest.mark.parametrize("augmentation", ["none", "recipe", "strong"])
def test_a_clip_is_a_function_of_seed_epoch_and_index(train_rows, processor, augmentation):
    def make(seed=1, epoch=0):
        clips = ClipDataset(train_rows, processor, train=True, augmentation=augmentation, seed=seed)
        clips.set_epoch(epoch)
        return clips

    first = make()
    backwards = [first[i] for i in reversed(range(len(first)))][::-1]
    assert all(same(a, b) for a, b in zip(backwards, (make()[i] for i in range(len(first))), strict=True))
    assert not all(same(a, b) for a, b in zip(backwards, make(seed=2), strict=False))
    assert not all(same(a, b) for a, b in zip(backwards, make(epoch=1), strict=False))


def test_the_global_generators_are_not_touched(train_rows, processor):
    augmentation = AugmentationConfig.from_preset("strong", color_jitter_probability=1.0, grayscale_probability=0.5)
    clips = ClipDataset(train_rows, processor, train=True, augmentation=augmentation)
    collator = ClipCollator(augmentation, num_labels=4)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    collator([clips[i] for i in range(4)])
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


@pytest.mark.parametrize("augmentation", ["none", "recipe"])
def test_the_cache_changes_nothing_but_the_work(train_rows, processor, augmentation, monkeypatch):
    plain = ClipDataset(train_rows, processor, train=True, augmentation=augmentation)
    cached = ClipDataset(train_rows, processor, train=True, augmentation=augmentation, cache="ram")
    for epoch in range(2):
        plain.set_epoch(epoch)
        cached.set_epoch(epoch)
        assert all(same(plain[i], cached[i]) for i in range(len(plain)))
    monkeypatch.setattr("hf_effvid.data.clip_reader.read_video", None)  # from here on it must not be needed
    assert len(cached.cache) == len(cached) and cached[2]["pixel_values"].shape == (4, 3, 24, 24)


def test_the_cache_of_test_clips_and_its_bound(train_rows, processor):
    plain, cached = ClipDataset(train_rows, processor), ClipDataset(train_rows, processor, cache="ram")
    assert all(same(plain[i], cached[i]) and same(plain[i], cached[i]) for i in range(len(plain)))
    bytes_per_video = 8 * 3 * 24 * 24  # all 8 frames at model size
    bounded = ClipDataset(train_rows, processor, train=True, cache="ram", cache_bytes=3 * bytes_per_video)
    assert bounded.fill_cache(num_threads=2, progress=False) == 3
    assert bounded.cache.num_bytes == 3 * bytes_per_video
    assert all(same(bounded[i], ClipDataset(train_rows, processor, train=True)[i]) for i in range(len(bounded)))


def test_parts_of_a_video(motion_folder, processor, tmp_path):
    shutil.copy(motion_folder / "train/moves_left/moves_left_00000.mp4", tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("path,label,start,end\na.mp4,x,0.25,\na.mp4,x,,0.25\n")  # 8 frames at 16 fps
    rows = load_video_dataset(tmp_path, split="train")
    whole = processor(tmp_path / "a.mp4", num_frames=8)["pixel_values"][0]
    tests = ClipDataset(rows, processor)
    assert torch.equal(tests[0]["pixel_values"], whole[4:]) and torch.equal(tests[1]["pixel_values"], whole[:4])
    for cache in (None, "ram"):
        train = ClipDataset(rows, processor, train=True, cache=cache)
        for _ in range(2):
            assert torch.equal(train[0]["pixel_values"], whole[4:])
            assert torch.equal(train[1]["pixel_values"], whole[:4])


@pytest.fixture
def rows_with_bad_files(motion_folder, tmp_path):
    shutil.copytree(motion_folder / "train", tmp_path / "train")
    files = sorted((tmp_path / "train").rglob("*.mp4"))
    files[2].write_bytes(b"this is no video" * 50)
    files[3].write_bytes(b"")
    files[7].unlink()
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in files]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    return load_video_dataset(tmp_path, split="train", missing="keep")


def test_bad_files_raise_or_are_replaced_and_reported(rows_with_bad_files, processor):
    strict = ClipDataset(rows_with_bad_files, processor, train=True)
    with pytest.raises(VideoNotReadable):
        strict[2]
    clips = ClipDataset(rows_with_bad_files, processor, train=True, on_error="skip")
    assert [clips[i]["index"] for i in range(8)] == [0, 1, 4, 4, 4, 5, 6, 0]
    assert same(clips[2], clips[4])
    assert [(skipped.index, skipped.error) for skipped in clips.skipped] == [
        (2, "VideoNotReadable"),
        (3, "VideoEmpty"),
        (7, "VideoNotFound"),
    ]
    assert clips.skipped[2].source == rows_with_bad_files[7]["video"]["path"]
    nothing = ClipDataset(rows_with_bad_files.select([2, 3]), processor, on_error="skip")
    with pytest.raises(VideoError):
        nothing[0]
    with pytest.raises(VideoError, match="none of its 2 videos"):
        nothing[1]


def loader(clips, **kwargs):
    return DataLoader(clips, batch_size=2, collate_fn=ClipCollator(keep_index=True), **kwargs)


def test_forked_workers_persist_through_epochs_and_report_what_they_skipped(rows_with_bad_files, processor):
    clips = ClipDataset(rows_with_bad_files, processor, train=True, augmentation="recipe", on_error="skip")
    batches = loader(clips, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    for epoch in range(2):
        clips.set_epoch(epoch)
        found = list(batches)
        alone = ClipDataset(rows_with_bad_files, processor, train=True, augmentation="recipe", on_error="skip")
        alone.set_epoch(epoch)
        for batch, expected in zip(found, loader(alone), strict=True):
            assert torch.equal(batch["index"], expected["index"])
            assert torch.equal(batch["pixel_values"], expected["pixel_values"])
    assert [skipped.index for skipped in clips.skipped] == [2, 3, 7]


def test_spawned_workers_give_the_same_clips(train_rows, processor):
    clips = ClipDataset(train_rows, processor, train=True, augmentation="light", cache="ram")
    clips.set_epoch(3)
    expected = [batch["pixel_values"] for batch in loader(clips)]
    found = loader(clips, num_workers=1, multiprocessing_context="spawn")
    assert all(torch.equal(a["pixel_values"], b) for a, b in zip(found, expected, strict=True))


def test_pickled_clips_are_the_same_and_leave_the_cache_behind(train_rows, processor):
    clips = ClipDataset(train_rows, processor, train=True, augmentation="recipe", cache="ram")
    clips.set_epoch(2)
    clips[1]
    copy = pickle.loads(pickle.dumps(clips))
    assert same(copy[1], clips[1]) and copy.epoch == 2
    assert len(pickle.dumps(clips)) < 200_000


def test_several_labels_become_zeros_and_ones(motion_folder, processor, tmp_path):
    shutil.copy(motion_folder / "train/moves_left/moves_left_00000.mp4", tmp_path / "a.mp4")
    (tmp_path / "train.csv").write_text("path,label\na.mp4,run|sit\na.mp4,\na.mp4,jump\n")
    rows = load_video_dataset(tmp_path, split="train", multi_label=True)
    labels = ClipCollator()([ClipDataset(rows, processor)[i] for i in range(3)])["labels"]
    assert labels.tolist() == [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_embedded_videos(train_rows, processor):
    path = train_rows[0]["video"]["path"]
    rows = [{"video": {"bytes": open(path, "rb").read(), "path": None}, "label": 0}]
    clips = ClipDataset(rows, processor, train=True)
    assert torch.equal(clips[0]["pixel_values"], ClipDataset(train_rows, processor, train=True)[0]["pixel_values"])


def test_flips_are_off_when_labels_or_the_recipe_say_so(train_rows, processor):
    assert "moves_left" in ClipDataset(train_rows, processor, train=True).reader.flips_forbidden_by
    rows = train_rows.cast_column("label", train_rows.features["label"].__class__(names=["a", "b", "c", "d"]))
    assert not ClipDataset(rows, processor, train=True).reader.flips_forbidden_by
    unsafe = EffVidVideoProcessor(num_frames=4, crop_size=24, horizontal_flip_safe=False)
    assert "recipe" in ClipDataset(rows, unsafe, train=True).reader.flips_forbidden_by


@pytest.mark.parametrize("arguments", [{"on_error": "ignore"}, {"cache": "disk"}, {"train": True, "multi_view": True}])
def test_arguments_that_make_no_sense(train_rows, processor, arguments):
    with pytest.raises(ValueError):
        ClipDataset(train_rows, processor, **arguments)


def test_indices_beyond_the_end(train_rows, processor):
    clips = ClipDataset(train_rows, processor)
    assert same(clips[-1], clips[len(clips) - 1])
    with pytest.raises(IndexError):
        clips[len(clips)]
