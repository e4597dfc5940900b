import json

import pytest
from typer.testing import CliRunner

from hf_effvid import VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.cli.application import app
from hf_effvid.compression.teachers import Teacher
from hf_effvid.data import DistillationClipDataset, TeacherOutputStore
from hf_effvid.data.loading import label_names, load_video_dataset
from hf_effvid.data.synthetic import tiny_motion_dataset
from hf_effvid.models.video_processing_effvid import EffVidVideoProcessor


@pytest.fixture(scope="module")
def motion_folder(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("motion"))


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory, motion_folder):
    """A tiny random classifier of the same classes, turned around."""
    folder = tmp_path_factory.mktemp("teacher")
    names = label_names(load_video_dataset(motion_folder, split="train"))[::-1]
    config = VideoFocalNetConfig(
        image_size=32,
        num_frames=4,
        embed_dim=8,
        depths=[1, 1],
        focal_levels=[1, 1],
        focal_windows=[3, 3],
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    VideoFocalNetForVideoClassification(config).save_pretrained(folder)
    EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 32}, crop_size=32).save_pretrained(folder)
    return folder


def effvid(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_answers_of_a_teacher_serve_a_training(motion_folder, teacher_folder, tmp_path):
    arguments = ["cache", motion_folder, "--teacher", "--role", "vit", "--model", teacher_folder, "--views", 2]
    arguments += ["--output", tmp_path / "vit", "--stored-as", "float32", "--json", "--quiet"]
    result = effvid(*arguments)
    assert result.exit_code == 0, result.output
    rows = load_video_dataset(motion_folder, split="train")
    told = json.loads(result.stdout)
    assert told == {"folder": str(tmp_path / "vit"), "answers": 16, "views": 2, "failed": 0, "errors": {}}

    names = label_names(rows)
    teacher = Teacher.open(teacher_folder, "vit", names)
    student = EffVidVideoProcessor(num_frames=4, size={"shortest_edge": 24}, crop_size=24)
    options = {"train": True, "augmentation": "light", "views": 2, "decode_size": 37}
    live = DistillationClipDataset(rows, {"student": student, "vit": teacher.processor}, **options)
    store = TeacherOutputStore.open(tmp_path / "vit")
    read = DistillationClipDataset(rows, {"student": student}, teacher_outputs={"vit": store}, **options)
    for index in (0, 7):
        answer = teacher(live[index]["vit_pixel_values"][None])
        for name in ("logits", "features", "embeddings"):
            expected = getattr(answer, name)[0]
            assert (read[index][f"vit_{name}"] - expected).abs().max() < 1e-5 and expected.std() > 0
    assert effvid(*arguments).exit_code == 0
    changed = effvid(*arguments, "--view-seed", 3)
    assert changed.exit_code == 1 and "view_seed: 0, now 3" in str(changed.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--features or --teacher"),
        (["--features", "--teacher"], "--features or --teacher"),
        (["--teacher"], "--role"),
        (["--teacher", "--role", "rnn"], "neither 'vit' nor 'cnn'"),
        (["--teacher", "--role", "vit", "--fps", "3"], "--fps"),
        (["--features", "--views", "3"], "--views"),
        (["--features", "--dtype", "int8"], "int8"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments, said, tmp_path):
    result = effvid("cache", tmp_path, "--model", "m", "--output", tmp_path / "out", *arguments)
    assert result.exit_code == 2 and said in " ".join(result.output.replace("│", " ").split())
