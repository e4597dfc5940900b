"""Recipe files: what they mean, what they refuse, and that a refusal names the key."""

import pytest

from hf_effvid import VideoFocalNetConfig
from hf_effvid.data import AugmentationConfig
from hf_effvid.training.arguments import EffVidTrainingArguments
from hf_effvid.training.recipe import RecipeFileError, TrainRecipe, load_recipe


RECIPE = """
model: {model_type: video_focalnet, embed_dim: 24, depths: [1, 1], focal_levels: [2, 2], focal_windows: [3, 3]}
processor: {num_frames: 8, sampling: dense, frame_stride: 2}
augmentation: {flip_probability: 0.0, scale: [0.6, 1.0]}
cache: ram
training:
  learning_rate: 1e-3
  weight_decay: 5.0e-2
  eval_strategy: no
  num_train_epochs: 3
  report_to: none
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def test_every_section_builds_what_it_names(path):
    recipe = load_recipe(path)
    config, processor, augmentation = (
        recipe.build_model_source(),
        recipe.build_processor(),
        recipe.build_augmentation(),
    )
    assert isinstance(config, VideoFocalNetConfig) and (config.embed_dim, config.depths) == (24, [1, 1])
    assert (processor.num_frames, processor.sampling, processor.frame_stride) == (8, "dense", 2)
    assert isinstance(augmentation, AugmentationConfig) and augmentation.flip_probability == 0.0
    assert recipe.cache == "ram"


def test_an_empty_recipe_leaves_the_choice_to_others():
    recipe = load_recipe()
    assert recipe == TrainRecipe()
    assert recipe.build_processor() is None and recipe.build_augmentation() == "light"
    with pytest.raises(RecipeFileError, match="--model"):
        recipe.build_model_source()
    recipe.model = "org/name"
    assert recipe.build_model_source() == "org/name"


def test_numbers_and_words_are_what_people_mean(path, tmp_path):
    training = load_recipe(path).training
    assert training["learning_rate"] == 1e-3 and training["weight_decay"] == 0.05  # YAML 1.1 reads the first as text
    assert training["eval_strategy"] == "no"  # and this as false
    assert training["num_train_epochs"] == 3 and isinstance(training["num_train_epochs"], int)
    assert training["report_to"] == "none"
    arguments = EffVidTrainingArguments(output_dir=str(tmp_path / "run"), **training)
    assert arguments.learning_rate == 1e-3 and arguments.eval_strategy == "no"


@pytest.mark.parametrize(
    ("override", "section", "name", "value"),
    [
        ("training.learning_rate=2e-4", "training", "learning_rate", 2e-4),
        ("training.max_steps=7", "training", "max_steps", 7),
        ("training.save_strategy=no", "training", "save_strategy", "no"),
        ("training.bf16=no", "training", "bf16", False),
        ("model.temporal_encoding=none", "model", "temporal_encoding", "none"),
        ("model.depths=[2, 2]", "model", "depths", [2, 2]),
        ("processor.num_clips=5", "processor", "num_clips", 5),
        ("training.logging_dir=a=b", "training", "logging_dir", "a=b"),
    ],
)
def test_overrides(path, override, section, name, value):
    if name == "logging_dir" and name not in EffVidTrainingArguments.__dataclass_fields__:
        override, name = override.replace(name, "run_name"), "run_name"
    found = getattr(load_recipe(path, [override]), section)[name]
    assert found == value and type(found) is type(value)


def test_overrides_of_whole_sections_and_of_nothing_at_all(path):
    assert load_recipe(path, ["augmentation=none", "cache=null"]).build_augmentation() == "none"
    assert load_recipe(path, ["model=org/name"]).build_model_source() == "org/name"
    # a scalar becomes a section when one of its fields is set
    recipe = load_recipe(None, ["model=org/name", "model.model_type=video_focalnet", "model.embed_dim=32"])
    assert recipe.build_model_source().embed_dim == 32
    assert load_recipe(path, ["training.max_steps=1", "training.max_steps=2"]).training["max_steps"] == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["modle.embed_dim=3"], "modle"),
        (["training.no_such_field=1"], "no_such_field"),
        (["training.max_steps"], "section.key=value"),
        (["=3"], "section.key=value"),
    ],
)
def test_refused_when_loaded(path, overrides, said):
    with pytest.raises(RecipeFileError, match=said):
        load_recipe(path, overrides)


@pytest.mark.parametrize(
    ("override", "build", "said"),
    [
        ("model.emebd_dim=3", "build_model_source", "emebd_dim"),
        ("model.model_type=no_such_type", "build_model_source", "no_such_type"),
        ("model={embed_dim: 3}", "build_model_source", "model_type"),
        ("processor.num_frame=3", "build_processor", "num_frame"),
        ("augmentation.flip=1", "build_augmentation", "flip"),
    ],
)
def test_refused_when_built(path, override, build, said):
    with pytest.raises(RecipeFileError, match=said):
        getattr(load_recipe(path, [override]), build)()


@pytest.mark.parametrize("text", ["", "just words", "- a\n- list", "model: [unclosed"])
def test_files_that_are_no_recipe(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeFileError, match="recipe.yaml"):
        load_recipe(path)


@pytest.mark.parametrize("section", ["training", "processor", "model", "augmentation"])
def test_a_section_that_is_a_list_is_refused(tmp_path, section):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{section}: [1, 2]\n")
    with pytest.raises(RecipeFileError, match=section):
        load_recipe(path)


def test_an_override_is_yaml_too(path):
    with pytest.raises(RecipeFileError, match="model.depths"):
        load_recipe(path, ["model.depths=[1, 2"])


def test_nothing_is_executed(tmp_path):
    path, marker = tmp_path / "recipe.yaml", tmp_path / "ran"
    path.write_text(f"model: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(RecipeFileError):
        load_recipe(path)
    assert not marker.exists()


# ---- files that extend others, and choices ----------------------------------------------------------------------------------

BASE = """
choose: {size: small}
choices:
  size:
    small: {model: {embed_dim: 8}, training: {max_steps: 1, learning_rate: 1.0e-3}}
    large: {model: {embed_dim: 16}, augmentation: {flip_probability: 0.25}}
  speed:
    fast: {training: {max_steps: 2}}
    slow: {training: {max_steps: 9}}
model: {model_type: video_focalnet, depths: [1, 1], focal_levels: [1, 1], focal_windows: [3, 3]}
augmentation: recipe
training: {max_steps: 5, report_to: none}
"""
CHILD = """
extends: base.yaml
choose: {speed: fast}
data: {format: kinetics, missing: skip}
validation_share: 0
training: {weight_decay: 0.5}
"""


@pytest.fixture
def child(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "child.yaml").write_text(CHILD)
    return tmp_path / "child.yaml"


def test_choices_are_laid_over_the_files_in_their_order_and_overrides_over_everything(child):
    recipe = load_recipe(child)
    assert recipe.training == {"max_steps": 2, "learning_rate": 1e-3, "weight_decay": 0.5, "report_to": "none"}
    assert recipe.build_model_source().embed_dim == 8 and recipe.build_augmentation() == "recipe"
    assert recipe.data == {"format": "kinetics", "missing": "skip"} and recipe.validation_share == 0
    assert recipe.choose == {"size": "small", "speed": "fast"}

    # whatever their order: the choice is made first
    recipe = load_recipe(
        child, ["training.max_steps=7", "model.embed_dim=24", "choose.size=large", "choose.speed=slow"]
    )
    assert recipe.training["max_steps"] == 7 and "learning_rate" not in recipe.training
    assert recipe.build_model_source().embed_dim == 24 and recipe.build_model_source().depths == [1, 1]
    assert recipe.build_augmentation().flip_probability == 0.25  # fields take the place of a preset
    assert load_recipe(child, ["choose={size: large, speed: slow}"]).training["max_steps"] == 9


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["choose.size=huge"], "choose.size: expected one of small, large, found 'huge'"),
        (["choose={size: small}"], "choose.speed: expected one of fast, slow, found None"),
        (["choose.colour=red"], "colour"),
        (["choose=small"], "choose"),
        (["data.root=/"], "root"),
        (["data.allow_outside_root=true"], "allow_outside_root"),
        (["validation_share=[1]"], "validation_share: expected a number"),
    ],
)
def test_choices_and_data_options_that_do_not_exist(child, overrides, said):
    with pytest.raises(RecipeFileError, match=said):
        load_recipe(child, overrides)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("extends: child.yaml", "extends it"),
        ("extends: ../child.yaml", "a file of the same folder"),
        ("extends: /etc/passwd", "a file of the same folder"),
        ("extends: [a.yaml]", "a file of the same folder"),
        ("extends: ..", "a file of the same folder"),
        ("extends: other.yaml", "there is no"),
        ("- a list", "base.yaml: expected sections"),
        ("choices: [a]", "choices"),
        ("choices: {speed: [a]}", "choices.speed"),
        ("choices: {speed: {fast: 3}}", "choices.speed"),
    ],
)
def test_files_that_cannot_be_extended(child, base, said):
    child.with_name("base.yaml").write_text(base)
    with pytest.raises(RecipeFileError, match=said):
        load_recipe(child)
