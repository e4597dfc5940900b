"""The recipes of Video-FocalNet: what they state is what a run does, with the accidents of the original and without them."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback
from typer.testing import CliRunner

from hf_effvid import read_video
from hf_effvid.cli import app
from hf_effvid.data import ClipCollator, ClipDataset, load_video_dataset
from hf_effvid.data.annotations import AnnotationError
from hf_effvid.data.clip_reader import sample_by_recipe
from hf_effvid.data.randomness import derive_seed
from hf_effvid.data.synthetic import make_motion_dataset
from hf_effvid.evaluation.protocol import describe_protocol
from hf_effvid.models.clip_sampling import sample_clips, sample_train_clip
from hf_effvid.models.configuration_video_focalnet import PRESETS
from hf_effvid.models.modeling_video_focalnet import VideoFocalNetForVideoClassification
from hf_effvid.models.video_processing_effvid import aggregate_views
from hf_effvid.pipelines.video_classification import VideoClassificationPipeline
from hf_effvid.training import EffVidTrainingArguments
from hf_effvid.training.classification import train_classifier
from hf_effvid.training.recipe import load_recipe
from hf_effvid.training.schedule import make_schedule
from tests.video_corpus.encode import encode


ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "configs" / "video_focalnet"
# data set -> the layout of its annotations, the size published first, GPUs of the released scripts by size, 8 clips on each
RECIPES = {
    "kinetics400": ("kinetics", "tiny", {"tiny": 4, "small": 8, "base": 4}),
    "kinetics600": ("kinetics", "base", {"base": 4}),
    "something_something_v2": ("ssv2", "base", {"base": 16}),
    "diving48": ("diving48", "base", {"base": 4}),
    "activitynet": ("activitynet", "base", {"base": 4}),
}
SHRUNK = [
    "model.embed_dim=8",
    "model.depths=[1, 1, 1, 1]",
    "model.image_size=32",
    "processor.size={shortest_edge: 36}",
    "processor.crop_size={height: 32, width: 32}",
    "processor.multi_view_size={shortest_edge: 32}",
    "training.max_steps=2",
    "training.per_device_train_batch_size=2",
]
QUIET = ["training.use_cpu=true", "training.report_to=none", "training.save_strategy=no"]


def recipe(name, *overrides, size=None, procedure="faithful"):
    chosen = [f"choose.procedure={procedure}", *([f"choose.size={size}"] if size else [])]
    return load_recipe(FOLDER / f"{name}.yaml", [*chosen, *overrides])


def arguments(loaded, tmp_path, **fields):
    return EffVidTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **loaded.training | fields)


# ---- what the files say -------------------------------------------------------------------------------------------------


def test_there_is_one_file_per_data_set_and_nothing_else():
    assert sorted(path.stem for path in FOLDER.iterdir()) == sorted([*RECIPES, "published"])


@pytest.mark.parametrize("procedure", ["faithful", "intended"])
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_size_and_procedure_of_every_data_set(tmp_path, name, size, procedure):
    loaded = recipe(name, size=size, procedure=procedure)
    config, processor, augmentation = (
        loaded.build_model_source(),
        loaded.build_processor(),
        loaded.build_augmentation(),
    )
    assert {field: getattr(config, field) for field in PRESETS[size]} == PRESETS[size]
    assert (config.focal_levels, config.focal_windows, config.initialization) == ([2] * 4, [3] * 4, "published")
    assert (processor.num_frames, processor.sampling, processor.frame_stride) == (8, "segment", 4)
    assert (processor.num_clips, processor.num_crops, processor.aggregation) == (4, 3, "softmax_mean")
    assert loaded.data["format"] == RECIPES[name][0]
    args = arguments(loaded, tmp_path)
    assert (args.num_train_epochs, args.warmup_epochs, args.max_grad_norm, args.label_smoothing) == (120, 20, 5.0, 0.1)
    flips = (augmentation.flip_probability, processor.horizontal_flip_safe)
    assert flips == ((0.0, False) if name == "something_something_v2" else (0.5, True))
    assert (augmentation.mixup_alpha, augmentation.cutmix_alpha) == (0.8, 1.0)


def test_the_default_size_is_one_that_was_published():
    for name, (_, size, _) in RECIPES.items():
        assert load_recipe(FOLDER / f"{name}.yaml").choose == {"size": size, "procedure": "faithful"}


def test_faithful_and_intended_differ_in_the_accidents_and_in_nothing_else():
    faithful, intended = (recipe("kinetics400", procedure=name) for name in ("faithful", "intended"))
    changed = {
        section: {
            key: (getattr(faithful, section).get(key), getattr(intended, section).get(key))
            for key in getattr(faithful, section).keys() | getattr(intended, section).keys()
            if getattr(faithful, section).get(key) != getattr(intended, section).get(key)
        }
        for section in ("model", "data", "processor", "augmentation", "training")
    }
    assert changed == {
        "model": {},
        "data": {},
        "processor": {
            "clip_draw": ("random", "even"),
            "clip_seed": (0, None),
            "crop_order": (["left", "right", "center"], None),
            "view_order": ("crop_first", None),
        },
        "augmentation": {
            "color_per_frame": (True, False),
            "mix_probability": (1.0, 0.5),
            "randaugment_operations": (0, 2),
            "randaugment_magnitude": (None, 9.0),
            "randaugment_std": (None, 0.5),
            "randaugment_probability": (None, 0.5),
            "erasing_probability": (0.0, 0.25),
            "erasing_fill": (None, "noise"),
        },
        "training": {"weight_decay": (0.0, 1e-4), "lr_schedule": ("cosine_timm", "cosine")},
    }


def test_the_documentation_names_every_file_and_the_shrunk_run():
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for name in RECIPES:
        assert f"{name}.yaml" in text
    for override in SHRUNK:
        assert f"--set '{override}'" in text or f"--set {override}" in text, override


# ---- learning rates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "gpus"), [(name, size, gpus) for name, row in RECIPES.items() for size, gpus in row[2].items()]
)
@pytest.mark.parametrize("procedure", ["faithful", "intended"])
def test_learning_rates_of_the_published_runs(tmp_path, monkeypatch, name, size, gpus, procedure):
    monkeypatch.setattr(EffVidTrainingArguments, "world_size", gpus)
    args = arguments(recipe(name, size=size, procedure=procedure), tmp_path)
    scale = 8 * gpus / 512
    assert args.learning_rate_scale == scale
    steps_per_epoch = 50
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=args.learning_rate * scale)
    scheduler = make_schedule(optimizer, args, 120 * steps_per_epoch)
    rates = []
    for _ in range(120 * steps_per_epoch):
        rates.append(optimizer.param_groups[0]["lr"] / scale)
        optimizer.step()
        scheduler.step()
    warm = 20 * steps_per_epoch
    assert rates[0] == pytest.approx(0.001)
    if procedure == "faithful":
        assert rates[1] == pytest.approx(0.001)  # one step late
        assert rates[warm] == pytest.approx(0.1 - 0.099 / warm)
        assert rates[warm + 1] == pytest.approx(0.001 + 0.099 / 2 * (1 + math.cos(math.pi / 6)))  # 0.0934: the drop
    else:
        assert rates[1] == pytest.approx(0.001 + 0.099 / warm)
        assert rates[warm] == pytest.approx(0.1)
        assert rates[warm + 1] == pytest.approx(0.1, rel=1e-5)
        assert rates[warm + 50 * steps_per_epoch] == pytest.approx(0.0505)
    assert max(rates) == pytest.approx(0.1, rel=1e-3) and rates[-1] == pytest.approx(0.001, abs=1e-6)


# ---- frames and views -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Twelve clips of two classes."""
    folder = tmp_path_factory.mktemp("motion")
    counts = {"train": 4, "validation": 2}
    return make_motion_dataset(folder, counts, size=40, num_frames=24, classes=["moves_left", "grows"], progress=False)


def test_training_clips_are_drawn_from_eight_segments_with_interval_four(videos):
    loaded = recipe("kinetics400", *SHRUNK)
    rows = load_video_dataset(videos, split="train")
    dataset = ClipDataset(rows, loaded.build_processor(), train=True, augmentation=loaded.build_augmentation(), seed=3)
    info = SimpleNamespace(num_frames=300, fps=25.0)
    drawn = sample_by_recipe(dataset.reader.processor, info, 11)
    assert drawn == sample_train_clip(300, 8, sampling="segment", frame_stride=4, seed=11)
    assert all(37 * i <= frame < 37 * (i + 1) for i, frame in enumerate(drawn))
    clip = dataset[0]["pixel_values"]
    assert clip.shape == (8, 3, 32, 32)
    # the whole clip again, by hand: frames of the seed, then the augmentation of the seed
    seed = derive_seed(3, 0, 0)
    indices = sample_train_clip(24, 8, sampling="segment", frame_stride=4, seed=derive_seed(seed, "frames"))
    frames = read_video(rows[0]["video"]["path"], indices=indices, size=dataset.reader.transform.decode_size).frames
    assert torch.equal(clip, dataset.reader.transform(frames, derive_seed(seed, "transform")))


def test_frames_are_decoded_at_a_short_side_of_256_before_the_random_crop(videos):
    loaded = recipe("kinetics400")
    rows = load_video_dataset(videos, split="train")
    dataset = ClipDataset(rows, loaded.build_processor(), train=True, augmentation=loaded.build_augmentation())
    assert dataset.reader.transform.decode_size == 256


@pytest.mark.parametrize("procedure", ["faithful", "intended"])
def test_twelve_test_views_in_the_stated_order(tmp_path, procedure):
    processor = recipe("kinetics400", *SHRUNK, procedure=procedure).build_processor()
    path = tmp_path / "wide.mp4"
    path.write_bytes(encode(size=(96, 48), num_frames=48))
    rows = processor(path, multi_view=True)["pixel_values"]
    if procedure == "faithful":
        clips = sample_clips(48, 8, sampling="segment", num_clips=4, clip_draw="random", seed=f"0/{path.name}")
        assert all(6 * i <= frame < 6 * (i + 1) for clip in clips for i, frame in enumerate(clip))  # interval 1
        order = [(clip, crop) for crop in ("left", "right", "center") for clip in clips]
    else:
        clips = [[(8 * i + 2 * k + 1) * 48 // 64 for i in range(8)] for k in range(4)]
        order = [(clip, crop) for clip in clips for crop in ("left", "center", "right")]
    assert rows.shape == (12, 8, 3, 32, 32)
    assert len({row.numpy().tobytes() for row in rows}) == 12
    for row, (clip, crop) in zip(rows, order, strict=True):
        frames = read_video(path, indices=clip).frames
        assert torch.equal(row, processor.transform_clip(frames, crop, multi_view=True))
    drawn = {"clip_draw": "random", "clip_seed": 0} if procedure == "faithful" else {}
    protocol = describe_protocol(processor)
    assert {name: protocol[name] for name in ("clip_draw", "clip_seed") if name in protocol} == drawn
    assert not {"clip_draw", "clip_seed"} & describe_protocol(processor, multi_view=False).keys()
    # one view, as in the evaluations during training: the middles of the segments of n - 3 frames, short side 36 (256)
    (single,) = processor(path)["pixel_values"]
    frames = read_video(path, indices=[(2 * i + 1) * 45 // 16 for i in range(8)]).frames
    assert torch.equal(single, processor.transform_clip(frames))


@pytest.mark.parametrize("procedure", ["faithful", "intended"])
def test_the_pipeline_averages_the_same_views(tmp_path, procedure):
    loaded = recipe("kinetics400", *SHRUNK, procedure=procedure)
    processor, config = loaded.build_processor(), loaded.build_model_source()
    config.num_labels, config.use_layerscale, config.initialization = 3, True, "fan_in"
    torch.manual_seed(0)
    model = VideoFocalNetForVideoClassification(config).eval()
    path = tmp_path / "wide.mp4"
    path.write_bytes(encode(size=(96, 48), num_frames=48))
    with torch.no_grad():
        wanted = aggregate_views(model(**processor(path, multi_view=True)).logits)
    pipe = VideoClassificationPipeline(model=model, video_processor=processor)
    scores = {item["label"]: item["score"] for item in pipe(path, multi_view=True, top_k=3)}
    assert [scores[config.id2label[index]] for index in range(3)] == pytest.approx(wanted.tolist(), abs=1e-6)


# ---- two steps of training ------------------------------------------------------------------------------------------------


def official(layout, videos, folder):
    """The generated clips under the names, and in the annotation files, of a public data set."""
    names = {"moves_left": "Pushing [something] from right to left", "grows": "Lifting [something], then dropping it"}
    (folder / "videos").mkdir(parents=True)
    notes, database = {"train": [], "validation": []}, {}
    clips = [(split, clip) for split in notes for clip in sorted((videos / split).rglob("*.mp4"))]
    for number, (split, clip) in enumerate(clips):
        label, stem = clip.parent.name, f"{split}{number:07d}"
        name = {"kinetics": f"{stem}_000003_000013", "activitynet": f"v_{stem}"}.get(layout, stem)
        shutil.copy(clip, folder / "videos" / f"{name}.mp4")
        segment = {"segment": [0.1, 0.8], "label": label}
        subset = "training" if split == "train" else split
        database[stem] = {"subset": subset, "duration": 0.96, "annotations": [segment]}
        notes[split].append(
            {
                "kinetics": f"{label},{stem},3,13,{split}\n",
                "ssv2": {"id": stem, "template": names[label], "label": label, "placeholders": []},
                "diving48": {"vid_name": stem, "label": label == "grows", "start_frame": 0, "end_frame": 24},
            }.get(layout)
        )
    if layout == "activitynet":
        (folder / "activity_net.v1-3.min.json").write_text(json.dumps({"version": "1.3", "database": database}))
        return folder
    for split, entries in notes.items():
        if layout == "kinetics":
            (folder / f"{split}.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "".join(entries))
        else:
            entries = [entry | ({"label": int(entry["label"])} if layout == "diving48" else {}) for entry in entries]
            stem = {"ssv2": split, "diving48": "Diving48_V2_" + split.replace("validation", "test")}[layout]
            (folder / f"{stem}.json").write_text(json.dumps(entries))
    return folder


def call(*arguments):
    """Runs a command of `effvid`; bad input is an exception here, which the command turns into one line and exit code 1."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Record(TrainerCallback):
    """What the optimiser really did: rates and decay of its groups at every step, and the names of its tensors."""

    def __init__(self):
        self.steps, self.optimizer = [], None

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, model=None, **kwargs):
        self.optimizer = getattr(optimizer, "optimizer", optimizer)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.steps.append([(group["lr"], group["weight_decay"]) for group in optimizer.param_groups])
        self.decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        self.shapes = {name: parameter.ndim for name, parameter in model.named_parameters()}


# each data set once and each procedure twice by default, the other pairs with the slow tests
QUICK = [
    ("kinetics400", "faithful"),
    ("activitynet", "faithful"),
    ("something_something_v2", "intended"),
    ("diving48", "intended"),
]
PAIRS = [(name, procedure) for name in RECIPES for procedure in ("faithful", "intended")]


@pytest.mark.parametrize(
    ("name", "procedure"), [pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow) for pair in PAIRS]
)
def test_two_optimisation_steps_on_official_annotations(tmp_path, videos, name, procedure):
    loaded = recipe(name, *SHRUNK, *QUIET, procedure=procedure)
    data = official(RECIPES[name][0], videos, tmp_path / "data")
    record = Record()
    outcome = train_classifier(
        loaded.build_model_source(),
        data,
        output_dir=tmp_path / "run",
        processor=loaded.build_processor(),
        augmentation=loaded.build_augmentation(),
        validation_share=loaded.validation_share,
        args=loaded.training,
        callbacks=[record],
        progress=False,
        root=data / "videos",
        **loaded.data,
    )
    assert outcome.steps == 2 and math.isfinite(outcome.train_loss) and not outcome.skipped
    assert (outcome.num_train, outcome.num_validation) == (8, 0 if name == "diving48" else 4)
    saved = json.loads((Path(outcome.model_dir) / "video_preprocessor_config.json").read_text())
    assert saved["clip_draw"] == ("random" if procedure == "faithful" else "even")
    assert saved["horizontal_flip_safe"] is (name != "something_something_v2")

    decay = 0.0 if procedure == "faithful" else 1e-4
    assert record.decay == {tensor: decay if record.shapes[tensor] > 1 else 0.0 for tensor in record.decay}
    assert len(record.decay) == len(record.shapes) and {1, 2, 4} <= set(record.shapes.values())
    assert record.optimizer.defaults["momentum"] == 0.9 and record.optimizer.defaults["nesterov"] is True
    # two clips per step on one device: 0.1 * 2 / 512; two steps of 120 epochs have no warm-up
    second = 0.1 if procedure == "faithful" else 0.001 + 0.099 / 2
    rates = [rate for step in record.steps for rate, _ in step]
    assert rates == pytest.approx([0.1 * 2 / 512] * 2 + [second * 2 / 512] * 2)


def test_from_the_command_line(tmp_path, videos):
    """Official annotations and a recipe: train, then evaluate on a list of which a video is missing."""
    data = official("kinetics", videos, tmp_path / "data")
    (data / "validation.csv").open("a").write("grows,not_there,3,13,validation\n")
    where = ["--root", str(data / "videos"), "--skip-missing", "--quiet"]
    overrides = [part for override in [*SHRUNK, *QUIET, "choose.procedure=intended"] for part in ("--set", override)]
    config = str(FOLDER / "kinetics400.yaml")
    trained = call("train", str(data), "-o", str(tmp_path / "run"), "--config", config, *where, *overrides)
    assert trained.exit_code == 0, trained.output
    options = ["--split", "validation", "--format", "kinetics", "--num-clips", "2", "--json"]
    evaluated = call("evaluate", str(tmp_path / "run" / "model"), str(data), *options, *where)
    assert evaluated.exit_code == 0, evaluated.output
    assert json.loads(evaluated.stdout)["n"] == 4
    failed = call("evaluate", str(tmp_path / "run" / "model"), str(data), *options, "--root", str(data / "videos"))
    assert isinstance(failed.exception, AnnotationError)
    assert "1 of 5 listed files do not exist" in str(failed.exception)


def test_batches_of_faithful_are_always_mixed_and_of_intended_every_other_time(videos):
    items = [
        {"pixel_values": torch.full((8, 3, 32, 32), float(i)), "labels": torch.tensor(i), "index": i} for i in range(4)
    ]
    for procedure, low, high in (("faithful", 0.9, 1.0), ("intended", 0.38, 0.6)):
        collate = ClipCollator(recipe("kinetics400", procedure=procedure).build_augmentation(), num_labels=4)
        batches = [collate([item | {"epoch": epoch} for item in items])["labels"] for epoch in range(200)]
        mixed = sum(bool((labels.max(1).values < 1).any()) for labels in batches) / 200
        assert low <= mixed <= high, procedure  # a permutation of four may leave every clip alone
        assert all(torch.allclose(labels.sum(1), torch.ones(4)) for labels in batches)
