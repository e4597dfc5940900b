"""Teachers: frozen, in the student's class order, with their processor, map and licence; and what cannot teach."""

import pytest
import torch
from transformers import AutoModelForVideoClassification

from hf_effvid import EffVidVideoProcessor, TorchvisionVideoConfig, TorchvisionVideoForVideoClassification
from hf_effvid.compression.feature_taps import FeatureError, FeatureSpec
from hf_effvid.compression.teachers import Teacher, TeacherError, TeacherLabelError
from hf_effvid.host_loading import CheckpointNotFound

from ..models.tiny_videomae import fill_biases, tiny_clips, tiny_videomae
from ..pipelines import hosts


NAMES = ["serve", "forehand", "backhand", "smash", "volley"]


def vit_of(names=NAMES, **options):
    model = tiny_videomae(num_labels=len(names), **options)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    return model


@pytest.fixture
def folder(tmp_path):
    vit_of().save_pretrained(tmp_path)
    EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32, image_mean=[0.3] * 3).save_pretrained(
        tmp_path
    )
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\ntags: [a]\n---\n# A model\n")
    return tmp_path


def test_a_folder(folder):
    teacher, clips = Teacher.open(folder, "vit", NAMES), tiny_clips()
    with torch.no_grad():
        expected = AutoModelForVideoClassification.from_pretrained(folder)(clips).logits
    answer = teacher(clips)
    assert torch.equal(answer.logits, expected)
    assert answer.features.shape == (2, teacher.channels, 2, 4, 4) and answer.embeddings.shape == (2, 32)
    torch.testing.assert_close(answer.embeddings, answer.features.mean(dim=(2, 3, 4)))
    assert (teacher.role, teacher.name, teacher.license) == ("vit", str(folder), "cc-by-nc-4.0")
    assert list(teacher.processor.image_mean) == [0.3] * 3


def test_it_is_frozen_and_whoever_trains_it_does_not_change_its_answers(folder):
    teacher, clips = Teacher.open(folder, "vit", NAMES), tiny_clips()
    before = teacher(clips)
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not any(value.requires_grad for value in (before.logits, before.features, before.embeddings))
    teacher.model.config.hidden_dropout_prob = 0.5
    teacher.model.train()
    assert torch.equal(teacher(clips).logits, before.logits) and not teacher.model.training
    assert not isinstance(teacher, torch.nn.Module)


def test_classes_in_another_order_are_put_into_the_students(folder):
    clips = tiny_clips()
    as_saved = Teacher.open(folder, "vit", NAMES)(clips).logits
    backwards = Teacher.open(folder, "vit", NAMES[::-1])(clips).logits
    assert torch.equal(backwards, as_saved.flip(1))
    shuffled = ["volley", "serve", "smash", "forehand", "backhand"]
    answer = Teacher.open(folder, "vit", shuffled)(clips).logits
    for place, name in enumerate(shuffled):
        assert torch.equal(answer[:, place], as_saved[:, NAMES.index(name)])


def test_renamed_classes(folder):
    clips = tiny_clips()
    ours = ["SERVE", "volley", "backhand", "smash", "forehand"]
    label_map = {"serve": "SERVE", "name that another teacher has": "SERVE"}
    answer = Teacher.open(folder, "vit", ours, label_map=label_map)(clips).logits
    as_saved = Teacher.open(folder, "vit", NAMES)(clips).logits
    assert torch.equal(answer[:, 0], as_saved[:, 0]) and torch.equal(answer[:, 1], as_saved[:, 4])


@pytest.mark.parametrize(
    ("names", "label_map", "message"),
    [
        (NAMES[:4], None, r"5 classes, the student 4: it has besides 'volley'.*effvid train.*label_map="),
        ([*NAMES, "lob"], None, "lacks 'lob'"),
        ([*NAMES[:4], "lob"], None, "lacks 'lob'; it has besides 'volley'"),
        ([f"a{i}" for i in range(5)], None, "lacks 'a0', 'a1', 'a2', 'a3', 'a4'"),
        ([*NAMES[:4], "lob"], {"volei": "lob"}, "label_map names 'volei', which it does not have"),
        (NAMES, {"serve": "volley"}, "more than one 'volley'"),
        (["serve", "serve"], None, "different names"),
    ],
)
def test_other_classes_are_refused(names, label_map, message):
    with pytest.raises(TeacherLabelError, match=message):
        Teacher.open(vit_of(), "vit", names, label_map=label_map)


def test_many_classes_make_a_short_message():
    with pytest.raises(TeacherLabelError, match="and 45 more") as error:
        Teacher.open(vit_of(), "vit", [f"class {index}" for index in range(50)])
    assert len(str(error.value)) < 700


def test_a_model_that_is_at_hand_is_not_copied():
    model = vit_of()
    teacher = Teacher.open(model, "vit", NAMES)
    assert teacher.model is model and teacher.processor is None and teacher.license is None


def test_the_processor_of_a_stock_checkpoint_becomes_a_recipe(tmp_path):
    model, processor = hosts.vivit()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    names = list(hosts.CLASSES["id2label"].values())
    teacher = Teacher.open(tmp_path, "vit", names)
    assert teacher.processor.num_frames == hosts.FRAMES and teacher.license is None
    frames = torch.randint(0, 256, (hosts.FRAMES, 3, 36, 48), dtype=torch.uint8)  # no resizing
    ours = teacher.processor(frames, do_sample_frames=False)["pixel_values"]
    torch.testing.assert_close(ours, processor(frames, do_sample_frames=False, return_tensors="pt")["pixel_values"])


def test_pixels_under_another_name_and_other_inputs():
    model, _ = hosts.vjepa2()
    teacher = Teacher.open(model, "vit", list(hosts.CLASSES["id2label"].values()))
    clips = tiny_clips()
    with torch.no_grad():
        assert torch.equal(teacher(clips).logits, model(pixel_values_videos=clips).logits)


def test_half_precision_answers_in_single_precision(folder):
    half, full = (Teacher.open(folder, "vit", NAMES, dtype=dtype) for dtype in (torch.bfloat16, None))
    clips = tiny_clips()
    answer, expected = half(clips), full(clips)
    assert next(half.model.parameters()).dtype == torch.bfloat16
    assert {answer.logits.dtype, answer.features.dtype, answer.embeddings.dtype} == {torch.float32}
    torch.testing.assert_close(answer.logits, expected.logits, atol=0.05 * expected.logits.abs().max().item(), rtol=0)


def test_torchvisions_networks_teach():
    torch.manual_seed(0)
    fields = {"network": "mvit_v2_s", "stem_size": 8, "depths": [1, 1], "num_frames": 4, "image_size": 32}
    config = TorchvisionVideoConfig(**fields, id2label=dict(enumerate(NAMES)))
    teacher = Teacher.open(fill_biases(TorchvisionVideoForVideoClassification(config)), "vit", NAMES)
    assert teacher(tiny_clips()).features.shape == (2, teacher.channels, 2, 4, 4)


def test_a_family_without_a_known_map_gives_logits_alone():
    model, _ = hosts.videoprism()
    names = list(hosts.CLASSES["id2label"].values())
    teacher = Teacher.open(model, "vit", names)
    answer = teacher(tiny_clips())
    assert answer.logits.shape == (2, 7) and answer.features is None and answer.embeddings is None
    with pytest.raises(FeatureError, match="FeatureSpec"):
        _ = teacher.channels


def test_a_map_that_the_user_knows():
    teacher = Teacher.open(
        vit_of(), "vit", NAMES, spec=FeatureSpec("videomae.encoder.layer.0", "BLC", grid=(2, 4, 4), channels=32)
    )
    assert teacher.channels == 32 and teacher(tiny_clips()).features.shape == (2, 32, 2, 4, 4)


def test_what_is_no_teacher(tmp_path):
    with pytest.raises(TeacherError, match="'vit', 'cnn', got 'cnv'"):
        Teacher.open(vit_of(), "cnv", NAMES)
    with pytest.raises(CheckpointNotFound):
        Teacher.open(tmp_path / "nothing", "vit", NAMES)
    vit_of().save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match="without a processor"):
        Teacher.open(tmp_path, "vit", NAMES)
