"""What a card says about an architecture is true of the model."""

import pytest
import torch
from transformers import VideoMAEConfig

from hf_effvid import (
    EffVidVideoProcessor,
    MoViNetConfig,
    MoViNetForVideoClassification,
    TorchvisionVideoConfig,
    TSMConfig,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    X3DConfig,
    X3DForVideoClassification,
)
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.hub.architecture_notes import VIDEO_FOCALNET_SIZES, architecture_notes
from hf_effvid.hub.card_check import card_problems
from hf_effvid.hub.citations import NETWORK_CITATIONS, citation_of
from hf_effvid.hub.model_card import render_model_card
from hf_effvid.models.configuration_torchvision_video import NETWORKS
from hf_effvid.training.model_setup import processor_for


def test_sizes_are_those_of_the_models():
    for size, (parameters, gmacs, _) in VIDEO_FOCALNET_SIZES.items():
        with torch.device("meta"):
            model = VideoFocalNetForVideoClassification(VideoFocalNetConfig.from_preset(size, num_labels=400))
        assert sum(parameter.numel() for parameter in model.parameters()) == parameters
        assert count_macs(
            model, {"pixel_values": torch.empty(1, 8, 3, 224, 224, device="meta")}
        ).gmacs == pytest.approx(gmacs, abs=0.05)


def test_base_says_that_the_paper_prints_another_cost_and_the_others_do_not():
    said = {size: " ".join(architecture_notes(VideoFocalNetConfig.from_preset(size))) for size in VIDEO_FOCALNET_SIZES}
    assert "220.6" in said["base"] and "prints 149" in said["base"]
    assert "124.3" in said["small"] and not any("prints" in said[size] for size in ("tiny", "small"))


def test_a_small_model_claims_no_size_of_the_paper_and_a_variant_says_so():
    small = " ".join(architecture_notes(VideoFocalNetConfig(embed_dim=32)))
    assert "size" not in small.replace("any size", "") and "is the paper's" in small
    variant = " ".join(architecture_notes(VideoFocalNetConfig(temporal_encoding="none")))
    assert "not the paper's network" in variant and "temporal_encoding=none" in variant


def test_a_converted_checkpoint_names_the_missing_licence():
    config = VideoFocalNetConfig.from_preset("base")
    assert not any("licence" in note for note in architecture_notes(config))
    assert any("no licence" in note for note in architecture_notes(config, converted=True))


def test_other_architectures_have_no_section():
    assert architecture_notes(VideoMAEConfig()) == []
    assert "## The architecture" not in render_model_card(VideoMAEConfig(), None, repo_id="a/b")


def test_the_card_of_the_authors_weights_has_all_of_it(pytestconfig):
    name = "video-focalnet-base-k400"
    results = ResultsFile.load(pytestconfig.rootpath / f"model_cards/results/quoted-{name}.json").results
    config = VideoFocalNetConfig.from_preset("base", num_labels=400)
    card = render_model_card(config, EffVidVideoProcessor(), repo_id=name, results=results)
    for part in ("83.6%", "quoted", "157,389,216", "220.6", "149", "no licence", "1e-9", "effvid convert FILE"):
        assert part in card, part
    assert card_problems(card, results) == []


SMALL_CNNS = {
    "tsm": TSMConfig(),
    "x3d": X3DConfig(),
    "movinet": MoViNetConfig(),
    "torchvision_video": TorchvisionVideoConfig(network="r2plus1d_18"),
}


@pytest.mark.parametrize(
    ("model_type", "parts"),
    [
        ("tsm", ("mobilenetv4", "`pip install timm`", "(0.485, 0.456, 0.406)", "Temporal Shift Module", "Lin, Ji")),
        ("x3d", ("13 x 160 x 160", "(0.45, 0.45, 0.45)", "(0.225, 0.225, 0.225)", "Expanding Architectures")),
        ("movinet", ("50 x 172 x 172", "base form", "plain pixels, from 0 to 1", "Mobile Video Networks")),
        (
            "torchvision_video",
            ("`r2plus1d_18` of torchvision", "16 x 112 x 112", "(0.43216, 0.394666, 0.37645)", "Closer Look"),
        ),
    ],
)
def test_the_card_of_a_small_cnn_says_what_it_sees_and_cites_its_paper(model_type, parts):
    config = SMALL_CNNS[model_type]
    card = render_model_card(config, processor_for(config), repo_id="a/b")
    for part in parts:
        assert part in card, part
    assert citation_of(config) in card and card_problems(card, []) == []
    assert "github.com" not in card.split("## The architecture")[1].split("## Training")[0]


def test_every_network_of_torchvision_has_its_paper():
    assert set(NETWORK_CITATIONS) == set(NETWORKS)


@pytest.mark.parametrize("model_type", ["tsm", "x3d", "movinet"])
def test_a_converted_small_cnn_names_whose_weights_it_has(model_type):
    notes = architecture_notes(SMALL_CNNS[model_type], converted=True)
    assert sum("github.com" in note for note in notes) == 1


def test_a_card_says_whether_a_model_takes_a_stream():
    for config in (TSMConfig(causal=True), MoViNetConfig.from_preset("a0-stream")):
        assert "`past_states" in " ".join(architecture_notes(config)) or "past_states=" in " ".join(
            architecture_notes(config)
        )
    for config in (TSMConfig(), MoViNetConfig()):
        assert "past_states" not in " ".join(architecture_notes(config))


def test_small_cnns_take_the_clips_that_their_notes_promise():
    x3d = X3DForVideoClassification(
        X3DConfig(num_frames=2, image_size=32, stem_size=4, hidden_sizes=[4], depths=[1], head_size=4, num_labels=2)
    ).eval()
    clip = torch.rand(1, 4, 3, 32, 32)
    with torch.no_grad():
        windows = [x3d.head(x3d.x3d(clip).last_hidden_state[:, :, start : start + 2]) for start in range(3)]
        expected = torch.stack([x3d.classifier(window).mean(1) for window in windows]).mean(0)
        torch.testing.assert_close(x3d(clip).logits, expected)
    with torch.device("meta"):
        movinet = MoViNetForVideoClassification(MoViNetConfig(num_labels=2))
        assert movinet(torch.empty(1, 3, 3, 50, 60)).logits.shape == (1, 2)


# frames and pixels of the published base models (official/projects/movinet/README.md of tensorflow/models)
@pytest.mark.parametrize(
    ("preset", "shape"),
    [
        ("a0", (50, 172)),
        ("a1", (50, 172)),
        ("a2", (50, 224)),
        ("a3", (120, 256)),
        ("a4", (80, 290)),
        ("a5", (120, 320)),
    ],
)
def test_movinet_presets_are_the_published_sizes(preset, shape):
    config = MoViNetConfig.from_preset(preset)
    assert (config.num_frames, config.image_size) == shape
