"""The recipes of LITE: what they state, the paper's views, and two steps of training on official annotations."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import VideoMAEConfig, VideoMAEForVideoClassification

from hf_effvid import LiteVideoMAEForVideoClassification
from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.evaluation.protocol import describe_protocol
from hf_effvid.models.clip_sampling import sample_clips
from hf_effvid.models.token_budget import PUBLISHED_EASY_KEEP_RATIOS
from hf_effvid.models.video_processing_effvid import aggregate_views
from hf_effvid.pipelines.video_classification import VideoClassificationPipeline
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.recipe import RecipeFileError, load_recipe
from tests.training.test_recipe_video_focalnet import call, official
from tests.video_corpus.encode import encode


ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "configs" / "token_selection"
# data set -> layout of its annotations, clips x crops of the paper, the host's classes in the generated data
RECIPES = {
    "kinetics400": ("kinetics", (5, 3), ["grows", "moves_left"]),
    "something_something_v2": (
        "ssv2",
        (2, 3),
        ["Lifting something, then dropping it", "Pushing something from right to left"],
    ),
}
SHRUNK = [
    "processor.num_frames=4",
    "processor.size={shortest_edge: 20}",
    "processor.crop_size={height: 16, width: 16}",
    "training.max_steps=2",
    "training.per_device_train_batch_size=2",
    "training.use_cpu=true",
    "training.report_to=none",
    "training.load_best_model_at_end=false",
]


@pytest.mark.parametrize("name", RECIPES)
def test_what_the_paper_states(tmp_path, name):
    loaded = load_recipe(FOLDER / f"{name}.yaml")
    processor = loaded.build_processor()
    assert (processor.num_frames, processor.sampling) == (16, "uniform")
    assert (processor.num_clips, processor.num_crops) == RECIPES[name][1]
    assert (processor.crop_layout, processor.aggregation) == ("diagonal", "softmax_mean")
    assert {name: processor.crop_size[name] for name in ("height", "width")} == {"height": 224, "width": 224}
    assert processor.horizontal_flip_safe is (name == "kinetics400")
    assert loaded.selection["keep_ratio"] == 0.5 and loaded.selection["label_source"] == "true"
    assert loaded.data["format"] == RECIPES[name][0] and loaded.model is None and loaded.build_augmentation() == "none"
    EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **loaded.training)
    protocol = describe_protocol(processor)
    assert protocol["crop_layout"] == "diagonal" and protocol["num_clips"] == RECIPES[name][1][0]
    assert "crop_layout" not in describe_protocol(processor, multi_view=False)


def test_the_sampling_that_the_released_host_was_trained_with():
    processor = load_recipe(FOLDER / "kinetics400.yaml", ["choose.sampling=host"]).build_processor()
    assert (processor.sampling, processor.frame_stride) == ("dense", 4)


def test_what_is_not_stated_is_said_to_be_ours():
    text = (FOLDER / "lite.yaml").read_text()
    for value in ("hidden_sizes", "augmentation", "size:", "training:"):
        (line,) = [line for line in text.splitlines() if line.strip().startswith(value) and "#" in line]
        assert "ours" in line
    assert PUBLISHED_EASY_KEEP_RATIOS == {0.9: 0.3, 0.7: 0.3, 0.5: 0.3, 0.3: 0.2}


@pytest.mark.parametrize("size", [(64, 40), (40, 64)], ids=["landscape", "portrait"])
@pytest.mark.parametrize("name", RECIPES)
def test_the_views_of_the_paper(tmp_path, name, size):
    """Golden: which frames, which corners, in which order; and the pipeline averages just these."""
    processor = load_recipe(FOLDER / f"{name}.yaml", SHRUNK).build_processor()
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode(size=size, num_frames=30))
    rows = processor(path, multi_view=True)["pixel_values"]
    num_clips, num_crops = RECIPES[name][1]
    indices = [
        [((2 * num_clips * i + 2 * k + 1) * 30) // (2 * num_clips * 4) for i in range(4)] for k in range(num_clips)
    ]
    assert processor.frame_indices(SimpleNamespace(num_frames=30, fps=10.0), num_clips=num_clips) == indices
    assert indices == sample_clips(30, 4, num_clips=num_clips)
    whole = load_recipe(FOLDER / f"{name}.yaml", [*SHRUNK, "processor.do_center_crop=false", "processor.num_crops=1"])
    frames = whole.build_processor()(path, num_clips=num_clips)["pixel_values"]
    height, width = frames.shape[-2:]
    assert sorted((height, width)) == [20, 32]
    corners = [(0, 0), ((height - 16) // 2, (width - 16) // 2), (height - 16, width - 16)]
    wanted = torch.stack([clip[..., top : top + 16, left : left + 16] for clip in frames for top, left in corners])
    assert rows.shape[0] == num_clips * num_crops
    torch.testing.assert_close(rows, wanted)
    model = tiny_host(["a", "b"])
    pipe = VideoClassificationPipeline(model=model, video_processor=processor)
    with torch.no_grad():
        scores = aggregate_views(model(rows).logits)
    found = {item["label"]: item["score"] for item in pipe(path, multi_view=True, top_k=2)}
    assert [found["a"], found["b"]] == pytest.approx(scores.tolist(), abs=1e-6)


def tiny_host(classes):
    torch.manual_seed(0)
    config = VideoMAEConfig(
        image_size=16, patch_size=8, num_frames=4, tubelet_size=2, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, id2label=dict(enumerate(classes)), label2id={name: i for i, name in enumerate(classes)},
    )  # fmt: skip
    model = VideoMAEForVideoClassification(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    counts = {"train": 4, "validation": 2}
    folder = tmp_path_factory.mktemp("motion")
    return make_motion_dataset(folder, counts, size=24, num_frames=12, classes=["moves_left", "grows"], progress=False)


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_on_official_annotations(tmp_path, videos, name):
    layout, views, classes = RECIPES[name]
    data = official(layout, videos, tmp_path / "data")
    host = tiny_host(classes)
    host.save_pretrained(tmp_path / "host")
    overrides = [part for override in [*SHRUNK, "selection.hidden_sizes=[8, 4]"] for part in ("--set", override)]
    done = call(
        "select", "train", "--model", tmp_path / "host", "--data", data, "--root", data / "videos", "--output-dir", tmp_path / "run",
        "--config", FOLDER / f"{name}.yaml", "--keep-ratio", "0.7", "--no-gate", "--json", "--quiet", *overrides,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["training"]["steps"] == 2
    model, info = LiteVideoMAEForVideoClassification.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not info["missing_keys"] and model.config.selector_trained
    # the flag wins over the recipe's .5, the override over its hidden sizes
    assert (model.config.keep_ratio, list(model.config.selector_hidden_sizes)) == (0.7, [8, 4])
    saved = json.loads((tmp_path / "run" / "model" / "video_preprocessor_config.json").read_text())
    assert (saved["num_clips"], saved["num_crops"], saved["crop_layout"]) == (*views, "diagonal")
    for key, value in host.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


def test_a_selection_that_nobody_knows(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("selection: {keep: 0.5}\n")
    with pytest.raises(RecipeFileError, match=r"selection: unknown keys \['keep'\]"):
        load_recipe(path)
