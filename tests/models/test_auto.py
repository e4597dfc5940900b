"""The table of architectures: what registration makes possible, and that it costs little."""

import json
import subprocess
import sys

import pytest
import transformers
from transformers import AutoBackbone, AutoConfig, AutoModel, AutoVideoProcessor, BertConfig

import hf_effvid
from hf_effvid.auto import ARCHITECTURES, complete_auto_map, find_architecture, register
from hf_effvid.convert import CONVERTERS


def tiny_config(architecture):
    vit = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
        "image_size": 16,
    }
    options = {
        "video_focalnet": {"embed_dim": 4, "depths": [1], "focal_levels": [1], "focal_windows": [3]},
        "lite_videomae": {**vit, "num_frames": 2, "selector_hidden_sizes": [4]},
        "actionformer": {"input_size": 4, "hidden_size": 8, "num_stem_layers": 1, "num_branch_layers": 1},
        "tsm": {"architecture": "test_resnet", "num_frames": 2, "image_size": 32},
        "movinet": {
            "stem_size": 8,
            "hidden_sizes": [8],
            "expand_sizes": [[8]],
            "kernel_sizes": [["33"]],
            "strides": [2],
            "num_frames": 2,
            "image_size": 16,
        },
        "torchvision_video": {
            "network": "mvit_v2_s",
            "stem_size": 8,
            "depths": [1, 1],
            "num_frames": 2,
            "image_size": 32,
        },
        "x3d": {"stem_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1], "num_frames": 2, "image_size": 16},
        "lite_vivit": {**vit, "num_frames": 2, "selector_hidden_sizes": [4]},
        "lite_timesformer": {**vit, "num_frames": 2, "selector_hidden_sizes": [4]},
        "lite_vjepa2": {
            "hidden_size": 12,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "crop_size": 16,
            "frames_per_clip": 2,
            "num_pooler_layers": 1,
            "pred_hidden_size": 12,
            "pred_num_attention_heads": 1,
            "pred_num_hidden_layers": 1,
            "selector_hidden_sizes": [4],
        },
    }
    return architecture.config(**options[architecture.model_type])


@pytest.fixture(params=ARCHITECTURES, ids=lambda row: row.model_type)
def architecture(request):
    return request.param


def test_every_auto_class_gives_its_model(architecture):
    config = tiny_config(architecture)
    assert type(AutoConfig.for_model(architecture.model_type)) is architecture.config
    for auto_class, model_class in architecture.models.items():
        assert type(auto_class.from_config(config)) is model_class


def test_auto_video_processor_opens_a_checkpoint_folder(architecture, tmp_path):
    AutoModel.from_config(tiny_config(architecture)).save_pretrained(tmp_path)
    architecture.video_processor(num_frames=5).save_pretrained(tmp_path)
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    assert type(processor) is architecture.video_processor
    assert processor.num_frames == 5


def test_registering_again_changes_nothing(architecture):
    before = {auto: auto._model_mapping[architecture.config] for auto in architecture.models}
    register()
    register()
    assert {auto: auto._model_mapping[architecture.config] for auto in architecture.models} == before


def test_no_model_type_is_taken_by_the_installed_transformers(architecture):
    assert architecture.model_type not in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES


def test_the_table_and_the_shipped_code_agree(architecture):
    """`auto_classes` travels with a checkpoint, where this table does not exist."""
    shipped = {auto.__name__: model.__name__ for auto, model in architecture.models.items()}
    for model_class in architecture.models.values():
        assert model_class.auto_classes == shipped


def test_every_converter_belongs_to_an_architecture():
    assert all(find_architecture(model_type) is not None for model_type in CONVERTERS)


def test_complete_auto_map_names_all_classes(architecture):
    config = complete_auto_map(tiny_config(architecture))
    assert set(config.auto_map) == {"AutoConfig", *(auto.__name__ for auto in architecture.models)}
    assert config.auto_map["AutoConfig"].endswith(f".{architecture.config.__name__}")


def test_complete_auto_map_leaves_other_configurations_alone():
    assert not hasattr(complete_auto_map(BertConfig()), "auto_map")
    assert find_architecture("bert") is None


@pytest.mark.parametrize("saved_by", ["AutoModel", "AutoModelForVideoClassification", "AutoBackbone"])
def test_whoever_saves_the_folder_names_every_class(architecture, saved_by, tmp_path):
    auto_classes = {auto.__name__: auto for auto in architecture.models}
    if saved_by not in auto_classes:
        pytest.skip(f"{architecture.model_type} has no {saved_by}")
    config = tiny_config(architecture)
    auto_classes[saved_by].from_config(config).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert written == complete_auto_map(tiny_config(architecture)).auto_map
    for reference in written.values():
        assert (tmp_path / f"{reference.split('.')[0]}.py").exists()


def test_backbone_through_load_backbone(architecture):
    """How detectors of transformers build their backbone from a configuration."""
    if AutoBackbone not in architecture.models:
        pytest.skip(f"{architecture.model_type} is no backbone")
    assert type(AutoBackbone.from_config(tiny_config(architecture))) is architecture.models[AutoBackbone]


def test_every_public_name_resolves():
    for name in hf_effvid.__all__:
        assert getattr(hf_effvid, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        hf_effvid.no_such_name  # noqa: B018


def run_fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_import_loads_nothing_heavy():
    code = """
import sys
from transformers import AutoModel, AutoVideoProcessor
before = set(sys.modules)
import hf_effvid
print(sorted({name.split(".")[0] for name in set(sys.modules) - before}))
"""
    loaded = set(json.loads(run_fresh(code).replace("'", '"')))
    assert not loaded & {"timm", "torchcodec", "datasets", "accelerate", "peft", "matplotlib", "evaluate", "typer"}


@pytest.mark.slow
def test_import_adds_less_than_four_tenths_of_a_second():
    code = """
import time
from transformers import AutoModel, AutoVideoProcessor
start = time.process_time()
import hf_effvid
print(time.process_time() - start)
"""
    assert min(float(run_fresh(code)) for _ in range(3)) < 0.4
