import pickle
import shutil

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from hf_effvid.data import clip_reader
from hf_effvid.data.clips import ClipDataset
from hf_effvid.data.collator import ClipCollator
from hf_effvid.data.distillation_clips import DistillationClipDataset, StreamingDistillationClipDataset
from hf_effvid.data.loading import load_video_dataset
from hf_effvid.data.row_keys import row_key
from hf_effvid.data.shared_views import SharedPhase, ViewSettings
from hf_effvid.data.transforms import AugmentationConfig, ClipOrigin, TrainTransform
from hf_effvid.models.clip_sampling import sample_train_clip
from hf_effvid.models.video_errors import VideoError
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


STRONG = AugmentationConfig.from_preset("strong", mixup_alpha=0.0, cutmix_alpha=0.0)


def recipe(num_frames=4, crop=24, **fields):
    fields = {"size": {"shortest_edge": crop}, "crop_size": crop, **fields}
    return EffVidVideoProcessor(num_frames=num_frames, **fields)


def plain(num_frames=4, crop=24, **fields):
    """Without mean and deviation: pixels from 0 to 1."""
    return recipe(num_frames, crop, image_mean=[0.0] * 3, image_std=[1.0] * 3, **fields)


def make(rows, processors=None, **options):
    processors = processors or {"student": recipe(), "vit": recipe(6, 32), "cnn": recipe(4, 16, sampling="dense")}
    return DistillationClipDataset(rows, processors, **{"train": True, "augmentation": STRONG, **options})


def same(one, other, names=None):
    names = names or [name for name in one if name != "epoch"]
    return all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])) for name in names)


def write_frames(path, frames):
    """Grey levels as they are: lossless, and in RGB."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=8)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        stream.options = {"qp": "0"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.fixture(scope="module")
def marked(tmp_path_factory):
    """16 frames of 60x80: red grows from left to right, green from top to bottom, blue with time."""
    frames = np.zeros((16, 60, 80, 3), np.uint8)
    frames[..., 0] = np.linspace(20, 230, 80)
    frames[..., 1] = np.linspace(20, 230, 60)[:, None]
    frames[..., 2] = np.linspace(15, 240, 16)[:, None, None]
    return write_frames(tmp_path_factory.mktemp("marked") / "marked.mp4", frames)


def test_each_model_gets_its_own_frames_and_size_under_flat_names(train_rows):
    item = make(train_rows)[2]
    assert item["pixel_values"].shape == (4, 3, 24, 24)
    assert item["vit_pixel_values"].shape == (6, 3, 32, 32)
    assert item["cnn_pixel_values"].shape == (4, 3, 16, 16)
    assert item["index"] == 2 and item["labels"].item() == train_rows[2]["label"]


@pytest.mark.parametrize("augmentation", [None, "light", STRONG])
def test_a_sample_is_decoded_once_however_many_models_look_at_it(train_rows, augmentation, monkeypatch):
    calls = []
    read = clip_reader.read_video
    monkeypatch.setattr(clip_reader, "read_video", lambda *args, **kw: calls.append(1) or read(*args, **kw))
    clips = make(train_rows, augmentation=augmentation)
    for index in range(3):
        clips[index]
        assert len(calls) == index + 1


@pytest.mark.parametrize("augmentation", [None, "light", STRONG, AugmentationConfig(color_per_frame=True)])
def test_equal_processors_give_equal_pixels(train_rows, augmentation):
    clips = make(train_rows, dict.fromkeys(("student", "vit", "cnn"), recipe()), augmentation=augmentation)
    for index in range(4):
        item = clips[index]
        assert torch.equal(item["pixel_values"], item["vit_pixel_values"])
        assert torch.equal(item["pixel_values"], item["cnn_pixel_values"])


def test_what_a_model_gets_does_not_depend_on_the_others(train_rows):
    together = make(train_rows)
    alone = make(train_rows, {"student": recipe(6, 32)}, decode_size=together.view_settings.decode_size)
    assert torch.equal(together[1]["vit_pixel_values"], alone[1]["pixel_values"])


def test_models_of_different_sizes_see_the_same_part_of_the_picture(marked):
    """The marks say where a pixel comes from: crops and flips must agree to within the pixels of the smaller model."""
    augmentation = AugmentationConfig.from_preset("none", scale=(0.2, 0.6), flip_probability=0.5)
    clips = make(
        [{"video": marked, "label": 0}],
        {"student": plain(4, 24), "vit": plain(8, 48), "cnn": plain(8, 64, size={"height": 64, "width": 64})},
        augmentation=augmentation,
    )
    lefts, flipped = set(), set()
    for epoch in range(12):
        clips.set_epoch(epoch)
        item = clips[0]
        student = item["pixel_values"][0, :2]
        for name in ("vit_pixel_values", "cnn_pixel_values"):
            larger = item[name][0, :2]
            small = torch.nn.functional.adaptive_avg_pool2d(larger, 24)
            assert (small - student).abs().max() < 0.02
        lefts.add(round(student[0, 0, 0].item(), 2))
        flipped.add((student[0, 0, -1] < student[0, 0, 0]).item())
    assert len(lefts) > 6 and flipped == {False, True}


def test_models_see_the_same_moments_of_the_video(marked):
    """Blue is the time. A shorter dense clip lies inside the longer one; frames of uniform clips keep to their bins."""
    clips = make(
        [{"video": marked, "label": 0}],
        {"student": plain(3, sampling="dense"), "vit": plain(5, sampling="dense", frame_stride=2), "cnn": plain(8)},
        augmentation=None,
    )
    starts = set()
    for epoch in range(12):
        clips.set_epoch(epoch)
        item = clips[0]
        student, vit, cnn = (
            torch.round(item[name][:, 2].mean((1, 2)) * 255).sub(15).div(15).round().int().tolist()
            for name in ("pixel_values", "vit_pixel_values", "cnn_pixel_values")
        )
        assert vit[0] <= student[0] and student[-1] <= vit[-1]
        assert [moment // 2 for moment in cnn] == list(range(8))
        starts.add(student[0])
    assert len(starts) > 4


def test_colours_and_erased_boxes_are_the_same_for_all(marked):
    augmentation = AugmentationConfig.from_preset(
        "none", color_jitter_probability=1.0, brightness=0.6, color_per_frame=True, erasing_probability=1.0
    )
    clips = make(
        [{"video": marked, "label": 0}], {"student": plain(16, 32), "vit": plain(16, 64)}, augmentation=augmentation
    )
    for epoch in range(4):
        clips.set_epoch(epoch)
        item = clips[0]
        student, vit = item["pixel_values"], item["vit_pixel_values"]
        erased = torch.nn.functional.avg_pool2d((vit == 0).all(1).float(), 2)
        assert ((student == 0).all(1).float() - erased).abs().mean() < 0.06 and erased.mean() > 0.01
        kept = ((student != 0).all(1) & (erased == 0))[:, None].expand_as(student)
        small = torch.nn.functional.avg_pool2d(vit, 2)
        assert (small - student)[kept].abs().max() < 0.06
        brightness = student.sum((1, 2, 3)) / student[0].sum()
        assert brightness.std() > 0.1  # it flickers


@pytest.mark.parametrize("moments", [[0, 3, 7], [5], [2, 2, 6]])
def test_what_is_drawn_for_a_frame_follows_its_moment(moments):
    augmentation = AugmentationConfig.from_preset(
        "none", color_jitter_probability=1.0, brightness=0.6, color_per_frame=True, grayscale_probability=0.5
    )
    transform = TrainTransform(plain(), augmentation)
    frames = torch.randint(0, 256, (8, 3, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for seed in range(6):
        whole = transform(frames, seed, ClipOrigin(range(8), (24, 24)))
        assert torch.equal(transform(frames[moments], seed, ClipOrigin(moments, (24, 24))), whole[moments])


@given(st.integers(1, 400), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32))
def test_the_shorter_dense_clip_lies_inside_the_longer_one(total, short, long, stride, seed):
    short, long = sorted((short, long))
    clips = [
        sample_train_clip(total, length, sampling="dense", frame_stride=stride, seed=SharedPhase(seed))
        for length in (short, long)
    ]
    if total > (long - 1) * stride:
        assert clips[1][0] <= clips[0][0] and clips[0][-1] <= clips[1][-1]
    assert all(0 <= index < total for clip in clips for index in clip)


@given(
    st.integers(1, 200), st.integers(1, 20), st.sampled_from(["uniform", "dense", "segment"]), st.integers(0, 2**32)
)
def test_equal_recipes_draw_equal_frames_from_equal_phases(total, length, sampling, seed):
    one, other = (sample_train_clip(total, length, sampling=sampling, seed=SharedPhase(seed)) for _ in range(2))
    assert one == other and len(one) == length and all(0 <= index < total for index in one)


def test_views_repeat_and_do_not_depend_on_the_run(train_rows):
    clips = make(train_rows, views=2, seed=1)
    seen = []
    for epoch in range(4):
        clips.set_epoch(epoch)
        seen.append([clips[index] for index in range(4)])
    assert all(same(one, other) for one, other in zip(seen[0], seen[2], strict=True))
    assert all(same(one, other) for one, other in zip(seen[1], seen[3], strict=True))
    assert not any(same(one, other, ["pixel_values"]) for one, other in zip(seen[0], seen[1], strict=True))
    another_run = make(train_rows, views=3, seed=99)
    assert all(same(seen[0][index], another_run[index]) for index in range(4))
    assert not same(seen[0][0], make(train_rows, views=2, view_seed=7)[0], ["pixel_values"])


def test_views_belong_to_the_video_not_to_its_place(train_rows, tmp_path):
    clips = make(train_rows, views=2)
    other_order = train_rows.select([3, 0])
    assert same(make(other_order, views=2)[0], clips[3], ["pixel_values", "vit_pixel_values"])
    moved = shutil.copy(train_rows[3]["video"]["path"], tmp_path / "moved.mp4")
    elsewhere = make([{"video": moved, "label": 0}], views=2, class_names=clips.class_names)
    assert same(elsewhere[0], clips[3], ["pixel_values", "vit_pixel_values"])


def test_views_of_different_clips_are_unrelated():
    settings = ViewSettings.make([recipe()], views=2)
    assert len({settings.seed_of_view(clip, view) for clip in "abc" for view in range(2)}) == 6


def test_without_views_a_clip_is_a_function_of_seed_epoch_and_index(train_rows):
    first = make(train_rows, seed=1)
    assert same(first[3], make(train_rows, seed=1)[3])
    assert not same(first[3], make(train_rows, seed=2)[3], ["pixel_values"])
    again = make(train_rows, seed=1)
    again.set_epoch(1)
    assert not same(first[3], again[3], ["pixel_values"])


@pytest.mark.parametrize("views", [None, 2])
def test_workers_change_nothing(train_rows, views):
    clips = make(train_rows, views=views)
    clips.set_epoch(3)
    alone = [clips[index] for index in range(4)]
    loader = DataLoader(
        pickle.loads(pickle.dumps(clips)), batch_size=2, num_workers=2, collate_fn=ClipCollator(keep_index=True)
    )
    batches = list(loader)[:2]
    for name in ("pixel_values", "vit_pixel_values", "cnn_pixel_values"):
        loaded = torch.cat([batch[name] for batch in batches])
        assert torch.equal(loaded, torch.stack([item[name] for item in alone]))


@pytest.mark.parametrize("augmentation", [None, STRONG])
def test_the_cache_changes_nothing(train_rows, augmentation):
    processors = {"student": recipe(), "vit": recipe(6, 24)}
    plain, cached = (make(train_rows, processors, augmentation=augmentation, cache=how) for how in (None, "ram"))
    for epoch in range(2):
        plain.set_epoch(epoch)
        cached.set_epoch(epoch)
        assert all(same(plain[index], cached[index]) for index in range(3))
    assert len(cached.cache) == 3


def test_for_testing_the_students_recipe_alone_counts(train_rows):
    clips = make(train_rows, train=False)
    assert set(clips[0]) == {"pixel_values", "labels", "index", "epoch"}
    assert same(clips[1], ClipDataset(train_rows, recipe())[1])


def test_without_augmentation_every_model_sees_what_its_recipe_shows(train_rows):
    whole = recipe(8, 32, size={"height": 32, "width": 32})
    item = make(train_rows, {"student": recipe(), "vit": whole}, augmentation=None)[0]
    expected = whole(train_rows[0]["video"]["path"])["pixel_values"][0]
    assert torch.equal(item["vit_pixel_values"], expected)  # all 8 frames of the video


def test_flips_are_off_when_one_of_the_models_forbids_them(train_rows, caplog):
    processors = {"student": recipe(), "vit": recipe(horizontal_flip_safe=False)}
    with caplog.at_level("INFO"):
        clips = make(train_rows, processors, augmentation="light", class_names=["a", "b", "c", "d"])
    assert not clips.view_settings.horizontal_flips and "vit" in caplog.text
    assert make(train_rows, processors, augmentation="light", horizontal_flips=True).view_settings.horizontal_flips


def test_a_broken_file_is_skipped_or_raised(motion_folder, tmp_path):
    folder = shutil.copytree(motion_folder, tmp_path / "data")
    rows = load_video_dataset(folder, split="train")
    for index, content in ((0, b"no video"), (2, None)):
        path = rows[index]["video"]["path"]
        if content is None:
            shutil.os.remove(path)
        else:
            with open(path, "wb") as file:
                file.write(content)
    clips = make(rows, views=2, on_error="skip")
    assert clips[0]["index"] == 1 and clips[2]["index"] == 3
    assert {one.index for one in clips.skipped} == {0, 2}
    with pytest.raises((VideoError, OSError)):
        make(rows, views=2)[2]


def test_streams_give_the_same_views(motion_folder, train_rows):
    stream = load_video_dataset(motion_folder, split="train", streaming=True)
    processors = {"student": recipe(), "vit": recipe(6, 32)}
    clips = StreamingDistillationClipDataset(stream, processors, train=True, augmentation=STRONG, views=2)
    by_key = {row_key(row): make(train_rows, processors, views=2)[index] for index, row in enumerate(train_rows)}
    count = 0
    for row, item in zip(load_video_dataset(motion_folder, split="train", streaming=True), clips, strict=True):
        assert same(item, by_key[row_key(row)], ["pixel_values", "vit_pixel_values", "labels"])
        count += 1
    assert count == len(train_rows)
    tested = next(iter(StreamingDistillationClipDataset(stream, processors)))
    assert set(tested) == {"pixel_values", "labels", "index", "epoch"}


def test_row_keys_follow_content_and_part(train_rows, tmp_path):
    path = train_rows[0]["video"]["path"]
    with open(path, "rb") as file:
        content = file.read()
    key = row_key({"video": path})
    assert (
        key
        == row_key({"video": {"path": path, "bytes": None}})
        == row_key({"video": {"path": None, "bytes": content}})
    )
    assert key == row_key({"video": content, "start": None})
    different = {
        key,
        row_key({"video": path, "start": 0}),
        row_key({"video": path, "start": 0, "end": 1}),
        row_key({"video": path, "end": 1}),
        row_key({"video": content[:-1] + bytes([content[-1] ^ 1])}),
        row_key({"video": train_rows[1]["video"]}),
        row_key({"video": "hf://datasets/some/where.mp4"}),
    }
    assert len(different) == 7
    assert row_key({"video": path, "start": 0}) == row_key({"video": path, "start": 0.0})
    with pytest.raises(ValueError, match="paths"):
        row_key({"video": np.zeros((4, 8, 8, 3), np.uint8)})


def test_what_cannot_be_is_refused(train_rows):
    with pytest.raises(ValueError, match="student"):
        make(train_rows, {"vit": recipe()})
    with pytest.raises(ValueError, match="views"):
        make(train_rows, views=0)
    with pytest.raises(TypeError, match="'vit'.*EffVidVideoProcessor"):
        make(train_rows, {"student": recipe(), "vit": object()}, horizontal_flips=True, augmentation=None)


def test_frames_are_decoded_for_the_largest_model():
    assert ViewSettings.make([recipe(4, 24), recipe(4, 200)], "light").decode_size == 230
    assert ViewSettings.make([recipe(4, 24)], "light", decode_size=64).decode_size == 64
    assert ViewSettings.make([recipe(4, 24)]).decode_size is None


def test_the_size_of_decoded_frames_only_resamples_the_view(marked):
    augmentation = AugmentationConfig.from_preset("light", scale=(0.2, 0.6), erasing_probability=0.5)
    rows = [{"video": marked, "label": 0}]
    small, large = (
        make(rows, {"student": plain(4, 32)}, augmentation=augmentation, decode_size=size) for size in (48, 200)
    )
    for epoch in range(8):
        small.set_epoch(epoch)
        large.set_epoch(epoch)
        one, other = small[0]["pixel_values"], large[0]["pixel_values"]
        assert (one - other).abs().mean() < 0.02
