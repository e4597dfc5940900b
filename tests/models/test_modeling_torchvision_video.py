"""torchvision's networks as models of transformers: torchvision's numbers, small clips, initialisation, errors."""

import copy

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from torchvision.models import video
from transformers import AutoModelForVideoClassification

from hf_effvid import TorchvisionVideoConfig, TorchvisionVideoForVideoClassification, TorchvisionVideoModel
from hf_effvid.models.configuration_torchvision_video import NETWORKS
from hf_effvid.models.torchvision_networks import make_video_network
from hf_effvid.training.lora import head_modules
from hf_effvid.training.model_setup import processor_for
from hf_effvid.training.optim import find_blocks


# a small one of each family: fields of the configuration, and a clip (frames, height, width) smaller than what torchvision's weights take
SMALL = {
    "mc3_18": ({"depths": [1, 1, 1, 1]}, (4, 40, 64)),
    "s3d": ({}, (8, 48, 64)),
    "mvit_v1_b": ({"depths": [1, 1, 2], "stem_size": 8, "num_frames": 4, "image_size": [32, 48]}, (4, 32, 48)),
    "mvit_v2_s": ({"depths": [1, 1, 2], "stem_size": 8, "num_frames": 4, "image_size": [32, 48]}, (4, 32, 48)),
    "swin3d_t": ({"depths": [1, 2], "stem_size": 16}, (5, 36, 48)),
}
LAST_LAYERS = {"resnet": "fc.", "s3d": "classifier.1.", "mvit": "head.1.", "swin": "head."}


def make_model(network, **options):
    torch.manual_seed(0)
    config = TorchvisionVideoConfig.from_preset(network, **{"num_labels": 3, **SMALL[network][0], **options})
    return TorchvisionVideoForVideoClassification(config).eval()


def make_clips(size, batch=2):
    frames, height, width = size
    return torch.randn(batch, frames, 3, height, width, generator=torch.Generator().manual_seed(1))


def our_name(key, last_layer):
    return "classifier." + key.removeprefix(last_layer) if key.startswith(last_layer) else "network." + key


@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_weights_as_torchvisions_by_name_and_shape(network):
    with torch.device("meta"):
        theirs = getattr(video, network)(num_classes=7).state_dict()
        ours = TorchvisionVideoForVideoClassification(TorchvisionVideoConfig.from_preset(network, num_labels=7))
    last_layer = LAST_LAYERS[ours.config.family]
    expected = {our_name(key, last_layer): value.shape for key, value in theirs.items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == expected


@pytest.mark.parametrize("network", SMALL)
def test_small_clips_of_any_form(network):
    model, clips = make_model(network), make_clips(SMALL[network][1])
    with torch.no_grad():
        outputs = model(clips, labels=torch.tensor([0, 2]))
        features = model.network(clips).last_hidden_state
    assert outputs.logits.shape == (2, 3) and outputs.loss.isfinite()
    assert features.shape[:2] == (2, model.config.hidden_size) and features.shape[3] < features.shape[4]


@pytest.mark.parametrize("size", [(8, 72, 96), (16, 48, 64), (5, 17, 17)])
def test_s3d_pools_what_is_there(size):
    model = make_model("s3d")
    with torch.no_grad():
        features = model.network(make_clips(size, batch=1)).last_hidden_state
    assert all(side < 7 for side in features.shape[3:])
    torch.testing.assert_close(model.network.window_means(features).mean(dim=(2, 3, 4)), features.mean(dim=(2, 3, 4)))


@pytest.mark.parametrize(
    ("network", "size", "message"),
    [
        ("s3d", (4, 32, 32), "fewer than 5 frames"),
        ("s3d", (8, 16, 32), "under 17 pixels"),
        ("mvit_v1_b", (4, 32, 64), "takes 4 frames of 32 x 48"),
    ],
)
def test_clips_that_a_network_cannot_take(network, size, message):
    with pytest.raises(ValueError, match=message):
        make_model(network)(make_clips(size))


def test_mvit_v2_interpolates_its_positions_to_other_clips():
    with torch.no_grad():
        assert make_model("mvit_v2_s")(make_clips((6, 40, 36))).logits.isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"network": "s3d", "depths": [1]}, "no depths"),
        ({"network": "r3d_18", "stem_size": 32}, "no stem_size"),
        ({"network": "r3d_18", "depths": [1, 1]}, "four stages"),
        ({"network": "s3d", "drop_path_rate": 0.1}, "stochastic depth"),
        ({"network": "mvit_v2_s", "image_size": 16}, "at least 32"),
        ({"network": "swin3d_t", "depths": [1]}, "two blocks"),
        ({"network": "mvit_v1_b", "num_frames": 3}, "even"),
        ({"network": "swin3d_t", "num_channels": 4}, "3 channels"),
        ({"network": "resnet18"}, "expected one of"),
        ({"image_size": [1, 2, 3]}, "height, width"),
    ],
)
def test_configurations_that_torchvision_has_no_network_for(fields, message):
    with pytest.raises((ValueError, StrictDataclassError), match=message):
        TorchvisionVideoConfig(**fields).validate_architecture()


def test_an_unknown_preset():
    with pytest.raises(ValueError, match="expects one of r3d_18"):
        TorchvisionVideoConfig.from_preset("slowfast")


@pytest.mark.parametrize("network", ["mc3_18", "mvit_v2_s", "swin3d_t"])
def test_saved_and_opened_again(network, tmp_path):
    model, clips = make_model(network), make_clips(SMALL[network][1])
    model.save_pretrained(tmp_path)
    opened = AutoModelForVideoClassification.from_pretrained(tmp_path)
    trunk = TorchvisionVideoModel.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened(clips).logits, model(clips).logits)
        assert torch.equal(trunk(clips).last_hidden_state, model.network(clips).last_hidden_state)


@pytest.mark.parametrize("network", ["mvit_v1_b", "mvit_v2_s", "swin3d_t", "s3d", "mc3_18"])
def test_weights_that_a_file_lacks_are_drawn_as_torchvision_draws_them(network):
    """All but the classifier's bias is missing, and goes through `_init_weights`."""
    config = make_model(network).config
    opened = TorchvisionVideoForVideoClassification.from_pretrained(
        None, config=config, state_dict={"classifier.bias": torch.ones(3)}
    )
    drawn, theirs = opened.network.state_dict(), make_video_network(config).state_dict()
    assert opened.classifier.bias.eq(1).all() and opened.classifier.weight.std() > 0
    for name in drawn:
        if drawn[name].numel() > 500 and drawn[name].is_floating_point():
            assert drawn[name].std().item() == pytest.approx(theirs[name].std().item(), rel=0.2), name
            assert drawn[name].abs().max() < 1.5 * theirs[name].abs().max() + 1e-6, name
        elif theirs[name].unique().numel() == 1 or not theirs[name].is_floating_point():  # constants and indices
            assert torch.equal(drawn[name], theirs[name]), name


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=pytest.mark.slow if name == "s3d" else ()) for name in SMALL]
)
def test_checkpointing_computes_the_same(network):
    plain = make_model(
        network, classifier_dropout=0.0, **({} if network in ("mc3_18", "s3d") else {"drop_path_rate": 0.3})
    ).train()
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    clips, labels = make_clips(SMALL[network][1]), torch.tensor([0, 2])
    for model in (plain, checkpointed):
        torch.manual_seed(3)
        model(clips, labels=labels).loss.backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


@pytest.mark.parametrize("network", SMALL)
def test_blocks_are_found_in_order(network):
    """Layer decay, LoRA and device maps go by them."""
    model = make_model(network)
    blocks = [name for name, _ in find_blocks(model)]
    assert len(blocks) == (9 if network == "s3d" else sum(model.config.depths))
    assert head_modules(model) == ["classifier"]


@pytest.mark.parametrize(("network", "mean"), [("s3d", 0.43216), ("mvit_v2_s", 0.45), ("swin3d_b", 0.485)])
def test_pixels_are_normalised_as_for_torchvisions_weights(network, mean):
    processor = processor_for(TorchvisionVideoConfig.from_preset(network))
    native = getattr(
        video, {"s3d": "S3D_Weights", "mvit_v2_s": "MViT_V2_S_Weights", "swin3d_b": "Swin3D_B_Weights"}[network]
    )
    transforms = native.DEFAULT.transforms()
    assert list(processor.image_mean) == transforms.mean and list(processor.image_std) == transforms.std
    assert processor.image_mean[0] == mean
