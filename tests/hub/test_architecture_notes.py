"""What a card says about an architecture is true of the model."""

import pytest
import torch
from transformers import VideoMAEConfig

from hf_effvid import EffVidVideoProcessor, VideoFocalNetConfig, VideoFocalNetForVideoClassification
from hf_effvid.evaluation.macs import count_macs
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.hub.architecture_notes import VIDEO_FOCALNET_SIZES, architecture_notes
from hf_effvid.hub.card_check import card_problems
from hf_effvid.hub.model_card import render_model_card


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
