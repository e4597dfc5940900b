"""The last feature map of every family: each cell is where its part of the clip is, gradients flow, wrong places are refused."""

import itertools

import pytest
import torch
from torch import nn

from hf_effvid import (
    MoViNetConfig,
    MoViNetForVideoClassification,
    TorchvisionVideoConfig,
    TorchvisionVideoForVideoClassification,
    TSMConfig,
    TSMForVideoClassification,
    X3DConfig,
    X3DForVideoClassification,
)
from hf_effvid.compression.feature_taps import (
    FeatureError,
    FeatureSpec,
    feature_channels,
    feature_spec,
    pooled,
    record_features,
)

from ..models.lite_hosts import HOSTS as LITE_HOSTS
from ..models.lite_hosts import lite_of
from ..models.tiny_videomae import fill_biases, tiny_videomae
from ..pipelines import hosts


def _ours(model_class, config):
    torch.manual_seed(0)
    return fill_biases(model_class(config), std=0.1).eval()


def _tsm():
    pytest.importorskip("timm")
    layers = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
    return _ours(TSMForVideoClassification, TSMConfig(architecture="resnet18", model_args=layers, num_labels=3))


def _movinet():
    fields = {
        "stem_size": 8,
        "hidden_sizes": [8, 16],
        "expand_sizes": [[16], [24]],
        "kernel_sizes": [["15"], ["53"]],
        "strides": [2, 2],
        "projection_size": 16,
        "head_size": 24,
    }
    model = _ours(MoViNetForVideoClassification, MoViNetConfig(**fields, num_labels=3))
    with torch.no_grad():  # branches start at zero
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                parameter.fill_(0.6)
    return model


def _x3d():
    fields = {"stem_size": 8, "hidden_sizes": [8, 16], "depths": [1, 2], "head_size": 16, "num_labels": 3}
    return _ours(X3DForVideoClassification, X3DConfig(**fields, num_frames=4, image_size=32))


def _torchvision(network, **fields):
    config = TorchvisionVideoConfig(network=network, num_labels=3, **fields)
    return _ours(TorchvisionVideoForVideoClassification, config)


def _lite(name):
    host = LITE_HOSTS[name]
    return lite_of(host, host.build(), keep_ratio=1.0)


SIZE = (4, 32, 32)
# name -> (model, clip (T, H, W), grid of its map)
FAMILIES = {
    "tsm": (_tsm, (4, 128, 192), (4, 4, 6)),
    "x3d": (_x3d, (12, 32, 48), (12, 4, 6)),
    "movinet": (_movinet, (12, 32, 48), (12, 4, 6)),
    "video_focalnet": (lambda: hosts.video_focalnet()[0], (3, 32, 48), (3, 4, 6)),
    "video_focalnet_tubelets": (
        lambda: hosts.video_focalnet(tubelet_size=2, use_conv_embed=False)[0],
        (5, 32, 48),
        (2, 4, 6),
    ),
    "videomae": (lambda: hosts.videomae()[0], SIZE, (2, 4, 4)),
    "timesformer": (lambda: hosts.timesformer(num_frames=3)[0], (3, 32, 32), (3, 4, 4)),
    "timesformer_joint": (LITE_HOSTS["timesformer_joint"].build, SIZE, (4, 4, 4)),
    "vivit": (lambda: hosts.vivit(num_frames=6)[0], (6, 32, 32), (3, 4, 4)),
    "vjepa2": (lambda: hosts.vjepa2()[0], SIZE, (2, 4, 4)),
    "lite_vivit": (lambda: _lite("vivit"), SIZE, (2, 4, 4)),
    "lite_timesformer": (lambda: _lite("timesformer_joint"), SIZE, (4, 4, 4)),
    "lite_timesformer_divided": (lambda: _lite("timesformer_divided"), SIZE, (4, 4, 4)),
    "lite_vjepa2": (lambda: _lite("vjepa2"), SIZE, (2, 4, 4)),
    "mc3_18": (lambda: _torchvision("mc3_18", depths=[1] * 4), (4, 48, 64), (4, 3, 4)),
    "s3d": (lambda: _torchvision("s3d"), (13, 49, 49), (2, 2, 2)),
    "mvit_v1_b": (
        lambda: _torchvision("mvit_v1_b", stem_size=8, depths=[1, 1], num_frames=4, image_size=[32, 48]),
        (4, 32, 48),
        (2, 4, 6),
    ),
    "mvit_v2_s": (
        lambda: _torchvision("mvit_v2_s", stem_size=8, depths=[1, 1], num_frames=4, image_size=32),
        (6, 32, 48),
        (3, 4, 6),
    ),
    "swin3d_t": (lambda: _torchvision("swin3d_t", stem_size=16, depths=[1, 1]), (6, 32, 48), (3, 4, 6)),
}


# those that give sequences of tokens whose cells do not overlap
ORDERED = [
    name
    for name in FAMILIES
    if any(part in name for part in ("focalnet", "mae", "sformer", "vivit", "vjepa2", "swin"))
]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    build, size, grid = FAMILIES[request.param]
    return build(), size, grid


def clips_of(size, batch=1):
    return torch.randn(batch, size[0], 3, *size[1:], generator=torch.Generator().manual_seed(1))


def map_of(model, clips):
    with torch.no_grad(), record_features(model) as recorded:
        model(clips)
    return recorded.map


def changes_of(model, size, grid, cells):
    """How much each cell of the map moves, (len(cells), *grid), when the clip is changed in one cell after the other."""
    clip = clips_of(size)
    changed = clip.repeat(len(cells), 1, 1, 1, 1)
    steps = [side / number for side, number in zip(size, grid, strict=True)]
    for index, cell in enumerate(cells):
        t, y, x = (slice(int(place * step), int((place + 1) * step)) for place, step in zip(cell, steps, strict=True))
        changed[index, t, :, y, x] += 3.0
    features = map_of(model, torch.cat((clip, changed)))
    assert features.shape == (1 + len(cells), feature_channels(model), *grid)
    return (features[1:] - features[:1]).norm(dim=1)


def test_every_axis_of_the_map_is_that_of_the_clip(family):
    """Changed in one corner after the other, the middle of what moves in the map goes along."""
    model, size, grid = family
    corners = list(itertools.product(*({0, number - 1} for number in grid)))
    moved = changes_of(model, size, grid, corners)
    for axis, number in enumerate(grid):
        others = [dim + 1 for dim in range(3) if dim != axis]
        profile = moved.sum(dim=others)
        middle = (profile * torch.arange(number)).sum(dim=1) / profile.sum(dim=1)
        late = torch.tensor([corner[axis] > 0 for corner in corners])
        assert (middle[late].mean() - middle[~late].mean()) > 0.02 * (number - 1), f"axis {'THW'[axis]}"


@pytest.mark.parametrize("name", ORDERED)
def test_every_token_is_where_its_part_of_the_clip_is(name):
    """All cells in turn: the order of the tokens, and how many stand before them."""
    build, size, grid = FAMILIES[name]
    model = build()
    with torch.no_grad():  # attention that hardly mixes, so that every token remembers its own place
        for key, value in model.named_parameters():
            if value.ndim == 2 and "embed" not in key:
                value.mul_(0.1)
    cells = list(itertools.product(*map(range, grid)))
    moved = changes_of(model, size, grid, cells).flatten(1).argmax(dim=1)
    assert moved.tolist() == list(range(len(cells)))


def test_the_gradient_flows_through_the_map(family):
    model, size, _ = family
    with record_features(model) as recorded:
        model(clips_of(size))
    (gradient,) = torch.autograd.grad(recorded.map.square().mean(), [first_weight(model)])
    assert gradient.abs().sum() > 0


def first_weight(model):
    return next(module.weight for module in model.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)))


def test_logits_are_those_without_a_tap_and_nothing_stays_behind(family):
    model, size, _ = family
    clips = clips_of(size)
    with torch.no_grad():
        plain = model(clips).logits
        with record_features(model):
            tapped = model(clips).logits
    assert torch.equal(plain, tapped)
    assert not any(module._forward_hooks for module in model.modules())


def test_an_adapter_around_a_model():
    peft = pytest.importorskip("peft")
    model = tiny_videomae()
    clips = clips_of((4, 32, 32))
    plain = map_of(model, clips)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=["query"], r=2)).eval()
    torch.testing.assert_close(map_of(wrapped, clips), plain)


def test_the_embedding_is_the_mean_of_the_map():
    features = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pooled(features), features.flatten(2).mean(dim=2))


def test_frames_as_a_batch_axis_before_channels():
    features = torch.randn(2, 4, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    last, second = FeatureSpec("x", "BTCHW").to_map(features), FeatureSpec("x", "BTHWC").to_map(features)
    assert torch.equal(last[1, 2, 3], features[1, 3, 2]) and torch.equal(second[1, 2, 3], features[1, 3, :, :, 2])


def test_channels_of_a_map_that_a_layer_before_the_classifier_widens():
    pytest.importorskip("timm")
    model = _ours(TSMForVideoClassification, TSMConfig(architecture="mobilenetv4_conv_small", num_labels=3))
    assert model.config.hidden_size != feature_channels(model)
    assert map_of(model, clips_of((2, 64, 64))).shape == (1, feature_channels(model), 2, 2, 2)


class Plain(nn.Module):
    """A network that nobody knows."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Conv3d(3, 4, 2, 2)

    def forward(self, clips):
        return self.trunk(clips.transpose(1, 2)).mean(dim=(2, 3, 4))


def test_any_network_with_a_specification():
    model, clips = Plain(), clips_of((2, 8, 8))
    with record_features(model, FeatureSpec("trunk", channels=4)) as recorded:
        model(clips)
    assert recorded.map.shape == (1, 4, 1, 4, 4) and feature_channels(model, recorded.spec) == 4


def test_errors_say_what_to_do():
    model = Plain()
    with pytest.raises(FeatureError, match=r"known about the feature maps of Plain.*FeatureSpec\("):
        feature_spec(model)
    with pytest.raises(FeatureError, match="set channels"):
        feature_channels(model, FeatureSpec("trunk"))
    with pytest.raises(FeatureError, match="no module 'stem'"), record_features(model, FeatureSpec("stem")):
        pass
    with record_features(model, FeatureSpec("trunk")) as recorded, pytest.raises(FeatureError, match="run the model"):
        _ = recorded.map
    with record_features(model, FeatureSpec("trunk", "BLC", grid=(1, 1, 1))), pytest.raises(FeatureError, match="BLC"):
        model(clips_of((2, 8, 8)))
    with pytest.raises(ValueError, match="one of BCTHW"):
        FeatureSpec("trunk", "TBCHW")
    with pytest.raises(ValueError, match="grid"):
        FeatureSpec("trunk", "BLC")


def test_a_model_that_drops_tokens_has_no_map():
    model = lite_of(LITE_HOSTS["vivit"], LITE_HOSTS["vivit"].build(), keep_ratio=0.5)
    with pytest.raises(FeatureError, match=r"16 tokens.*\(2, 4, 4\).*keep_ratio=1.0"):
        map_of(model, clips_of(SIZE))
