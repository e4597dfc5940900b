import json
import shutil

import pytest
import torch
from torch.utils.data import DataLoader

from hf_effvid.data import ClipCollator, DistillationClipDataset, TeacherCacheError, TeacherOutputStore
from hf_effvid.data.distillation_clips import StreamingDistillationClipDataset
from hf_effvid.data.loading import load_video_dataset
from hf_effvid.data.row_keys import row_key
from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.data.teacher_output_writer import TeacherOutputWriter
from hf_effvid.models.video_errors import VideoError
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor
from hf_effvid.training.teacher_cache import cache_teacher_outputs

from .small_teacher import SmallTeacher


STUDENT = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 24}, crop_size=24)
NAMES = ("logits", "features", "embeddings")


@pytest.fixture(scope="module")
def motion_folder(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("motion"))


@pytest.fixture(scope="module")
def rows(motion_folder):
    return load_video_dataset(motion_folder, split="train")


def answer(teacher, rows, folder, **options):
    options = {
        "role": "vit",
        "views": 2,
        "progress": False,
        "dtype": "float32",
        "batch_size": 3,
        "decode_size": 28,
        **options,
    }
    return cache_teacher_outputs(teacher, rows, folder, **options)


def stored_clips(rows, stores, processors=None, **options):
    options = {"train": True, "augmentation": "light", "views": 2, **options}
    return DistillationClipDataset(rows, processors or {"student": STUDENT}, teacher_outputs=stores, **options)


@pytest.fixture(scope="module")
def stored(rows, tmp_path_factory):
    return answer(SmallTeacher(), rows, tmp_path_factory.mktemp("answers") / "vit")


def test_stored_answers_are_those_that_the_teacher_gives_live(rows, stored):
    teacher, cnn = SmallTeacher(), SmallTeacher(seed=1, crop=20)
    live = DistillationClipDataset(
        rows,
        {"student": STUDENT, "vit": teacher.processor, "cnn": cnn.processor},
        train=True,
        augmentation="light",
        views=2,
        seed=5,
        decode_size=28,
    )
    read = stored_clips(rows, {"vit": stored}, {"student": STUDENT, "cnn": cnn.processor})
    assert len(stored) == 2 * len(rows)
    for epoch in range(3):
        live.set_epoch(epoch)
        read.set_epoch(epoch)
        items = [live[index] for index in range(len(rows))], [read[index] for index in range(len(rows))]
        expected, found = (ClipCollator(keep_index=True)(some) for some in items)
        assert "vit_pixel_values" not in found
        for name in ("pixel_values", "cnn_pixel_values", "labels", "index"):
            assert torch.equal(found[name], expected[name])
        answers = teacher(expected["vit_pixel_values"])
        for name in NAMES:
            torch.testing.assert_close(found[f"vit_{name}"], getattr(answers, name))
        assert found["vit_logits"].std() > 1e-3  # the views differ, and so do the answers


def test_it_is_asked_once_and_never_again(rows, tmp_path):
    teacher = SmallTeacher()
    answer(teacher, rows, tmp_path / "vit")
    assert teacher.asked == 2 * len(rows)
    answer(teacher, rows, tmp_path / "vit")
    assert teacher.asked == 2 * len(rows)
    answer(teacher, rows, tmp_path / "vit", views=3)
    assert teacher.asked == 3 * len(rows)
    twice = [rows[0], dict(rows[0])]
    answer(teacher, twice, tmp_path / "other", class_names=["a", "b", "c", "d"])
    assert teacher.asked == 3 * len(rows) + 2


def test_an_interrupted_run_goes_on_and_ends_with_the_same_answers(rows, stored, tmp_path):
    teacher = SmallTeacher()

    class Stopped(SmallTeacher):
        def __call__(self, pixel_values):
            if self.asked >= 6:
                raise KeyboardInterrupt
            return super().__call__(pixel_values)

    stopped = Stopped()
    with pytest.raises(KeyboardInterrupt):
        answer(stopped, rows, tmp_path / "vit")
    part = TeacherOutputStore.open(tmp_path / "vit")
    assert len(part) == 6
    with pytest.raises(TeacherCacheError, match=r"lacks 10 of 16 answers"):
        stored_clips(rows, {"vit": part})
    (tmp_path / "vit" / ".answers-00001.safetensors.part").write_bytes(b"half a shard")
    whole = answer(teacher, rows, tmp_path / "vit")
    assert teacher.asked == 10 and len(whole) == 16
    assert not list((tmp_path / "vit").glob(".*"))
    for row in rows:
        for view in range(2):
            one, other = (store.answers(row_key(row), view) for store in (whole, stored))
            assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in NAMES)


def test_workers_change_nothing(rows, stored, tmp_path):
    parallel = answer(SmallTeacher(), rows, tmp_path / "vit", num_workers=2)
    key = row_key(rows[5])
    assert torch.allclose(parallel.answers(key, 1)["features"], stored.answers(key, 1)["features"], atol=1e-6)
    clips = stored_clips(rows, {"vit": stored})
    batches = DataLoader(clips, batch_size=4, num_workers=2, collate_fn=ClipCollator())
    loaded = torch.cat([batch["vit_logits"] for batch in batches])
    assert torch.equal(loaded, torch.stack([clips[index]["vit_logits"] for index in range(len(rows))]))


def test_shards_are_closed_in_time_and_read_from_the_right_place(tmp_path):
    recipe = {"outputs": ["logits"], "dtype": "float32", "views": {}, "role": "vit", "class_names": []}
    with TeacherOutputWriter(tmp_path / "a", recipe, shard_answers=3) as writer:
        for number in range(8):
            length = 2 if number < 7 else 4  # another shape begins another shard
            writer.add([(f"clip{number}", 0)], {"logits": torch.full((1, length), float(number))})
            assert (f"clip{number}", 0) in writer
    assert len(list((tmp_path / "a").glob("answers-*.safetensors"))) == 4
    store = TeacherOutputStore.open(tmp_path / "a")
    for number in range(8):
        found = store.answers(f"clip{number}", 0)["logits"]
        assert torch.equal(found, torch.full((2 if number < 7 else 4,), float(number)))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"augmentation": "recipe"}, "augmentation.scale"),
        ({"view_seed": 1}, "view_seed: 0, now 1"),
        ({"decode_size": 64}, "decode_size: 28, now 64"),
        ({"horizontal_flips": True}, "horizontal_flips: False, now True"),
        ({"class_names": ["a", "b", "c", "d"]}, "class_names"),
    ],
)
def test_training_on_other_views_or_classes_is_refused(rows, stored, changed, named):
    if changed.get("augmentation") == "recipe":
        from hf_effvid.data import AugmentationConfig

        changed = {"augmentation": AugmentationConfig.from_preset("recipe", mixup_alpha=0.0, cutmix_alpha=0.0)}
    with pytest.raises(TeacherCacheError, match=named):
        stored_clips(rows, {"vit": stored}, **changed)


@pytest.mark.parametrize(
    ("teacher", "changed", "named"),
    [
        (SmallTeacher(seed=1), {}, "teacher.fingerprint"),
        (SmallTeacher(crop=20), {}, "processor.crop_size"),
        (SmallTeacher(num_frames=5), {}, "processor.num_frames: 3, now 5"),
        (SmallTeacher(sampling="dense"), {}, "processor.sampling: 'uniform', now 'dense'"),
        (SmallTeacher(), {"augmentation": "none"}, "views.augmentation.scale"),
        (SmallTeacher(), {"view_seed": 3}, "views.view_seed: 0, now 3"),
        (SmallTeacher(), {"role": "cnn"}, "role: 'vit', now 'cnn'"),
        (SmallTeacher(), {"dtype": "float16"}, "dtype: 'float32', now 'float16'"),
        (SmallTeacher(), {"outputs": ["logits"]}, "outputs"),
        (SmallTeacher(), {"grid": (1, 2, 2)}, "grid"),
    ],
)
def test_a_folder_of_other_answers_is_refused(rows, stored, teacher, changed, named):
    before = json.loads((stored.folder / "recipe.json").read_text())
    with pytest.raises(TeacherCacheError, match=named):
        answer(teacher, rows, stored.folder, **changed)
    assert teacher.asked == 0 and json.loads((stored.folder / "recipe.json").read_text()) == before


def test_the_teacher_at_hand_can_be_compared(stored):
    from hf_effvid.training.teacher_cache import processor_identity, teacher_identity

    same, other = SmallTeacher(name="moved"), SmallTeacher(seed=3)
    stored.check_teacher(teacher_identity(same), processor_identity(same.processor))
    with pytest.raises(TeacherCacheError, match="teacher.fingerprint"):
        stored.check_teacher(teacher_identity(other))
    with pytest.raises(TeacherCacheError, match="processor.num_frames: 3, now 4"):
        stored.check_teacher(teacher_identity(same), processor_identity(STUDENT))


def test_mixing_and_endless_views_are_refused_with_stored_answers(rows, stored, tmp_path):
    with pytest.raises(ValueError, match="mixup"):
        stored_clips(rows, {"vit": stored}, augmentation="recipe")
    with pytest.raises(ValueError, match="mixup"):
        answer(SmallTeacher(), rows, tmp_path / "vit", augmentation="recipe")
    with pytest.raises(ValueError, match="views"):
        stored_clips(rows, {"vit": stored}, views=None)
    with pytest.raises(ValueError, match="vit"):
        stored_clips(rows, {"vit": stored}, {"student": STUDENT, "vit": STUDENT})
    with pytest.raises(ValueError, match="outputs"):
        answer(SmallTeacher(), rows, tmp_path / "vit", outputs=["heads"])


def test_a_teacher_without_what_is_needed_is_refused(rows, tmp_path):
    class WithoutMap(SmallTeacher):
        def __call__(self, pixel_values):
            found = super().__call__(pixel_values)
            found.features = found.embeddings = None
            return found

    with pytest.raises(ValueError, match="no features and no embeddings.*FeatureSpec"):
        answer(WithoutMap(), rows, tmp_path / "vit")
    assert len(answer(WithoutMap(), rows, tmp_path / "logits", outputs=["logits"])) == 16
    with pytest.raises(ValueError, match="`views`"):
        answer(SmallTeacher(), rows, tmp_path / "vit", views=None)
    teacher = SmallTeacher()
    teacher.processor = None
    with pytest.raises(ValueError, match="processor="):
        answer(teacher, rows, tmp_path / "vit")


def test_another_order_of_classes_is_another_teacher(rows, stored):
    turned = SmallTeacher()
    turned.class_order = torch.tensor([1, 0, 2, 3])
    with pytest.raises(TeacherCacheError, match="class_order: None, now"):
        answer(turned, rows, stored.folder)


def test_more_views_than_were_stored_are_missing(rows, stored):
    with pytest.raises(TeacherCacheError, match="lacks 8 of 24 answers"):
        stored_clips(rows, {"vit": stored}, views=3)
    assert len(stored_clips(rows, {"vit": stored}, views=1)) == len(rows)
    tested = stored_clips(rows, {"vit": stored}, train=False)[0]
    assert set(tested) == {"pixel_values", "labels", "index", "epoch"}


def test_features_are_averaged_to_a_grid_and_half_precision_is_close(rows, stored, tmp_path):
    small = answer(SmallTeacher(), rows, tmp_path / "vit", grid=(1, 2, 2), dtype="float16")
    key = row_key(rows[0])
    one, whole = small.answers(key, 0), stored.answers(key, 0)
    assert one["features"].shape == (5, 1, 2, 2) and one["features"].dtype == torch.float32
    pooled = torch.nn.functional.adaptive_avg_pool3d(whole["features"], (1, 2, 2))
    torch.testing.assert_close(one["features"], pooled, rtol=2e-3, atol=2e-3)
    assert small.about == {"name": "small", "license": "apache-2.0"}


def test_some_outputs_can_be_read_alone(stored):
    logits = TeacherOutputStore.open(stored.folder, outputs=["logits"])
    assert set(next(iter([logits.answers(key, view) for key, view in [next(iter(logits._places))]]))) == {"logits"}


def test_outputs_that_were_not_stored_are_named(rows, tmp_path):
    answer(SmallTeacher(), rows, tmp_path / "vit", outputs=["logits"])
    with pytest.raises(TeacherCacheError, match="no features"):
        TeacherOutputStore.open(tmp_path / "vit", outputs=["logits", "features"])


def test_videos_that_cannot_be_read_are_left_out_and_tried_again(motion_folder, tmp_path):
    folder = shutil.copytree(motion_folder, tmp_path / "data")
    rows = load_video_dataset(folder, split="train")
    path = rows[1]["video"]["path"]
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(b"no video")
    with pytest.raises(VideoError):
        answer(SmallTeacher(), rows, tmp_path / "raised", on_error="raise")
    store = answer(SmallTeacher(), rows, tmp_path / "vit")
    assert len(store) == 14 and list(store.errors) == [row_key(rows[1])]
    clips = stored_clips(rows, {"vit": store}, on_error="skip")
    assert clips[1]["index"] == 2 and [one.index for one in clips.skipped] == [1]
    with open(path, "wb") as file:
        file.write(content)
    with pytest.raises(TeacherCacheError, match="lacks 2 of 16"):
        stored_clips(rows, {"vit": store})
    assert len(answer(SmallTeacher(), rows, tmp_path / "vit")) == 16


def test_a_stream_reads_answers_and_cannot_be_asked_about(motion_folder, rows, stored, tmp_path):
    stream = load_video_dataset(motion_folder, split="train", streaming=True)
    with pytest.raises(ValueError, match="streaming=False"):
        answer(SmallTeacher(), stream, tmp_path / "vit")
    clips = StreamingDistillationClipDataset(
        stream, {"student": STUDENT}, train=True, augmentation="light", views=2, teacher_outputs={"vit": stored}
    )
    clips.set_epoch(1)
    items = list(clips)  # which sets the epoch of the stream, and with it the order
    for row, item in zip(stream, items, strict=True):
        assert torch.equal(item["vit_logits"], stored.answers(row_key(row), 1)["logits"])


def test_damage_and_other_folders_are_named(stored, tmp_path):
    folder = shutil.copytree(stored.folder, tmp_path / "vit")
    (shard,) = folder.glob("answers-*.safetensors")
    store = TeacherOutputStore.open(folder)
    key, view = next(iter(store._places))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    with pytest.raises(TeacherCacheError, match="damaged"):
        store.answers(key, view)
    with pytest.raises(TeacherCacheError, match="damaged"):
        TeacherOutputStore.open(folder)
    shard.unlink()
    with pytest.raises(TeacherCacheError, match="missing"):
        store.answers(key, view)
    with pytest.raises(TeacherCacheError, match="no answer.*view 9"):
        stored.answers(key, 9)
    with pytest.raises(TeacherCacheError, match="holds no answers"):
        TeacherOutputStore.open(tmp_path)
    recipe = {"outputs": ["logits"], "dtype": "float32"}
    with pytest.raises(TeacherCacheError, match="neither empty"):
        TeacherOutputWriter(tmp_path, recipe)
    with TeacherOutputWriter(tmp_path / "new", recipe) as writer:
        with pytest.raises(TeacherCacheError, match="another process"):
            TeacherOutputWriter(tmp_path / "new", recipe)
        with pytest.raises(TeacherCacheError, match="not finite"):
            writer.add([("a", 0)], {"logits": torch.tensor([[float("inf")]])})
