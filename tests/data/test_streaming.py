import zipfile

import pytest
import torch
from torch.utils.data import DataLoader

from hf_effvid.data.clip_reader import open_value
from hf_effvid.data.clips import StreamingClipDataset
from hf_effvid.data.collator import ClipCollator
from hf_effvid.data.loading import load_video_dataset
from hf_effvid.models.video_errors import VideoError


@pytest.fixture(scope="module")
def stream(motion_folder):
    return load_video_dataset(motion_folder, split="train", streaming=True, num_shards=4)


def by_content(items):
    return sorted((int(item["labels"]), float(item["pixel_values"].double().sum())) for item in items)


def test_items_are_those_of_the_rows(stream, train_rows, processor):
    items = list(StreamingClipDataset(stream, processor))
    assert [int(item["labels"]) for item in items] == train_rows["label"][:]
    expected = processor(train_rows[5]["video"]["path"])["pixel_values"][0]
    assert torch.equal(items[5]["pixel_values"], expected)


def test_workers_share_the_stream_and_the_clips_do_not_depend_on_them(stream, processor):
    clips = StreamingClipDataset(stream, processor, train=True, augmentation="light", seed=3)
    clips.set_epoch(1)
    alone = list(clips)
    loader = DataLoader(clips, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    assert by_content(loader) == by_content(alone)
    clips.set_epoch(2)  # seen by the workers that live on
    second = by_content(loader)
    assert second != by_content(alone)
    assert second == by_content(clips)


def test_the_order_is_shuffled_anew_each_epoch(stream, processor):
    clips = StreamingClipDataset(stream, processor, shuffle_buffer=8, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        clips.set_epoch(epoch)
        orders.append([float(item["pixel_values"].sum()) for item in clips])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_bad_files_are_left_out_and_counted(motion_folder, processor, tmp_path):
    good = next((motion_folder / "train").rglob("*.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "good.mp4").write_bytes(good.read_bytes())
    (tmp_path / "train.csv").write_text("good.mp4,x\nbad.mp4,x\ngood.mp4,x\n")
    stream = load_video_dataset(tmp_path, split="train", streaming=True)
    clips = StreamingClipDataset(stream, processor, on_error="skip")
    assert len(list(clips)) == 2 and clips.num_skipped == 1
    with pytest.raises(VideoError):
        list(StreamingClipDataset(stream, processor))


def test_a_stream_goes_on_where_it_was_left(motion_folder, processor):
    def make():
        stream = load_video_dataset(motion_folder, split="train", streaming=True, num_shards=4)
        return StreamingClipDataset(stream, processor)

    whole = [float(item["pixel_values"].sum()) for item in make()]
    first, resumed = make(), make()
    iterator = iter(first)
    for _ in range(3):
        next(iterator)
    resumed.load_state_dict(first.state_dict())
    assert [float(item["pixel_values"].sum()) for item in resumed] == whole[3:]


def test_batches_of_a_stream(stream, processor):
    loader = DataLoader(StreamingClipDataset(stream, processor, train=True), batch_size=4, collate_fn=ClipCollator())
    assert [tuple(batch["pixel_values"].shape) for batch in loader] == [(4, 4, 3, 24, 24)] * 2


def test_files_inside_archives_are_fetched(motion_folder, tmp_path):
    path = next((motion_folder / "train").rglob("*.mp4"))
    with zipfile.ZipFile(tmp_path / "clips.zip", "w") as archive:
        archive.write(path, "clip.mp4")
    value = {"path": f"zip://clip.mp4::{tmp_path}/clips.zip", "bytes": None}
    assert open_value(value) == path.read_bytes()
    with pytest.raises(VideoError, match="cannot be fetched"):
        open_value({"path": f"zip://other.mp4::{tmp_path}/clips.zip", "bytes": None})
