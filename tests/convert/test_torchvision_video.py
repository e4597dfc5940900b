"""torchvision's weights become folders that the auto classes open, with the same logits and, where they are published ones, the names."""

import hashlib

import pytest
import torch
from torchvision.models import get_model_weights, video
from transformers import AutoModelForVideoClassification, AutoVideoProcessor

from hf_effvid import TorchvisionVideoConfig
from hf_effvid.convert import CONVERTERS, CheckpointError, convert_checkpoint
from hf_effvid.convert.torchvision_video import config_for, find_source, preset_of, published_names
from hf_effvid.models.configuration_torchvision_video import NETWORKS
from hf_effvid.models.torchvision_networks import make_video_network


build_config, convert_state_dict = CONVERTERS["torchvision_video"]
SMALL = {
    "mc3_18": {"depths": [1, 2, 1, 1], "image_size": 32, "num_frames": 4},
    "mvit_v1_b": {"stem_size": 8, "depths": [1, 2, 1], "num_frames": 4, "image_size": 32},
    "mvit_v2_s": {"stem_size": 8, "depths": [1, 1, 2], "num_frames": 4, "image_size": 32},
    "swin3d_t": {"stem_size": 16, "depths": [1, 2], "image_size": 32, "num_frames": 4},
}


@pytest.fixture(scope="module", params=SMALL)
def theirs(request):
    """A small network as torchvision makes it, with statistics and biases that are not those of a new one, and its configuration."""
    config = TorchvisionVideoConfig.from_preset(request.param, **SMALL[request.param])
    torch.manual_seed(0)
    model = make_video_network(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value += 0.02 * torch.rand(value.shape, generator=generator) - 0.01
    return config, model.eval()


def test_from_torchvisions_file_to_torchvisions_logits(theirs, tmp_path):
    config, model = theirs
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    folder = convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out", "torchvision_video")
    opened = AutoModelForVideoClassification.from_pretrained(folder).eval()
    assert all(getattr(opened.config, name) == getattr(config, name) for name in ("network", "depths", "stem_size"))
    clips = torch.randn(2, 4, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(opened(clips).logits, model(clips.transpose(1, 2)))


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_are_known_by_their_weights(network):
    with torch.device("meta"):
        weights = getattr(video, network)(num_classes=7).state_dict()
    config = config_for(weights)
    assert preset_of(config) == network and config.num_labels == 7
    assert (
        config.num_frames == NETWORKS[network]["num_frames"]
        and config.frame_shape == (NETWORKS[network]["image_size"],) * 2
    )
    assert set(convert_state_dict(weights)) == {
        "classifier.weight",
        "classifier.bias",
        *("network." + key for key in weights if not key.startswith(("fc.", "head.", "classifier."))),
    }


def test_the_recipe_is_torchvisions_test(tmp_path):
    torch.save(video.s3d(num_classes=2).state_dict(), tmp_path / "weights.pth")
    processor = AutoVideoProcessor.from_pretrained(
        convert_checkpoint(tmp_path / "weights.pth", tmp_path / "out", "torchvision_video", "s3d")
    )
    assert (processor.num_frames, processor.sampling, processor.target_fps, processor.num_clips) == (
        128,
        "dense",
        15,
        1,
    )
    transforms = video.S3D_Weights.DEFAULT.transforms()
    # of a size at which nothing is resized, and the crop's margins are even: resamplers and roundings differ in the last bit and pixel
    frames = torch.randint(0, 256, (3, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ours = processor(frames, do_sample_frames=False)["pixel_values"][0]
    torch.testing.assert_close(ours.transpose(0, 1), transforms(frames), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_recipes_have_torchvisions_sizes(network):
    for weights in get_model_weights(network):
        transforms, native = weights.transforms(), NETWORKS[network]
        resize = transforms.resize_size
        expected = {"shortest_edge": resize[0]} if len(resize) == 1 else {"height": resize[0], "width": resize[1]}
        assert native["resize"] == expected and native["image_size"] == transforms.crop_size[0]
        assert (
            f"frame_rate={native['fps']}" in weights.meta["_docs"]
            and f"clip_len={native['num_frames']}" in weights.meta["_docs"]
        )
        assert f"clips_per_video={native['num_clips']}" in weights.meta["_docs"]


def test_published_files_are_known_by_their_digest(tmp_path, monkeypatch):
    model = video.mc3_18()
    torch.save(model.state_dict(), tmp_path / "renamed.pth")
    digest = hashlib.sha256((tmp_path / "renamed.pth").read_bytes()).hexdigest()
    assert published_names(digest) is None
    categories = video.MC3_18_Weights.KINETICS400_V1.meta["categories"]
    assert published_names("a90a0ba3" + "0" * 56) == categories and len(categories) == 400
    # as if this file were the published one
    monkeypatch.setattr("hf_effvid.convert.conversion.sha256_of", lambda source: "a90a0ba3" + "0" * 56)
    folder = convert_checkpoint(tmp_path / "renamed.pth", tmp_path / "out", "torchvision_video")
    assert TorchvisionVideoConfig.from_pretrained(folder).id2label[0] == categories[0] == "abseiling"


def test_torchvisions_name_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(CheckpointError, match=r"cannot be fetched \(OSError\).*Download https://.*s3d-d76dad2f.pth"):
        convert_checkpoint("S3D_Weights.KINETICS400_V1", tmp_path / "out", "torchvision_video")
    with pytest.raises(
        CheckpointError, match="no video weights S4D_Weights.DEFAULT; it has R3D_18_Weights.KINETICS400_V1"
    ):
        find_source("S4D_Weights.DEFAULT")
    assert find_source("file.pth") == "file.pth"


def test_what_is_none_of_them_is_refused(tmp_path):
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not a torchvision_video checkpoint, it has none of"):
        convert_checkpoint(tmp_path / "other.pth", tmp_path / "out", "torchvision_video")
    with torch.device("meta"):
        weights = video.mc3_18().state_dict()
    with pytest.raises(ValueError, match="not of preset 's3d': they are those of a mc3_18"):
        config_for(weights, "s3d")
    with pytest.raises(ValueError, match="one of r3d_18"):
        config_for(weights, "x3d")
    with pytest.raises(ValueError, match="no argument 'layers'"):
        config_for(weights, arguments={"layers": [1]})
    with pytest.raises(KeyError, match="already have our names"):
        config_for(convert_state_dict(weights))
    assert config_for(weights, arguments={"dropout": 0.3}).classifier_dropout == 0.3


def test_arguments_of_the_constructor():
    config = build_config(
        {"network": "mvit_v2_s", "num_classes": 5, "temporal_size": 8, "spatial_size": 64, "dropout": 0.1}
    )
    assert (config.num_labels, config.num_frames, config.image_size, config.classifier_dropout) == (5, 8, 64, 0.1)
    with pytest.raises(ValueError, match="no argument 'norm_layer' that we know"):
        build_config({"norm_layer": None})
