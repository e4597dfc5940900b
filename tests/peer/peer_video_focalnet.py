"""Video-FocalNet under transformers' common modelling, configuration and backbone tests (run through run.py)."""

import unittest
from unittest.mock import patch

import torch
from transformers.models.auto import modeling_auto
from transformers_tests.test_backbone_common import BackboneTesterMixin
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin

from hf_effvid import (
    VideoFocalNetBackbone,
    VideoFocalNetConfig,
    VideoFocalNetForVideoClassification,
    VideoFocalNetModel,
)


class VideoFocalNetModelTester:
    """Makes the small model and the inputs that the common tests ask for."""

    def __init__(self, parent, batch_size=2, num_frames=3, image_size=32, num_labels=3, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.num_frames = num_frames
        self.image_size = image_size
        self.num_labels = num_labels
        self.is_training = is_training
        # what test_hidden_states_output expects: the embedding and two stages, tokens of 4 x 4 pixels
        self.num_hidden_layers = 2
        self.seq_length = num_frames * (image_size // 4) ** 2
        self.hidden_size = 8

    def get_config(self):
        return VideoFocalNetConfig(
            num_frames=self.num_frames,
            image_size=self.image_size,
            embed_dim=8,
            depths=[1, 1],
            focal_levels=[1, 2],
            focal_windows=[3, 3],
            use_layerscale=True,
            num_labels=self.num_labels,
            out_features=["stage1", "stage2"],
            drop_path_rate=0.0,
        )

    def prepare_config_and_inputs_for_common(self):
        size = (self.batch_size, self.num_frames, 3, self.image_size, self.image_size)
        pixel_values = torch.rand(size, generator=torch.Generator().manual_seed(0))
        return self.get_config(), {"pixel_values": pixel_values}


class VideoFocalNetModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (VideoFocalNetModel, VideoFocalNetForVideoClassification, VideoFocalNetBackbone)
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = VideoFocalNetModelTester(self)
        # The common tests read a class's role (which inputs it takes, whether it has a loss) from lists of names that
        # only models inside transformers are in.
        for names, name in (
            (modeling_auto.MODEL_MAPPING_NAMES, "VideoFocalNetModel"),
            (modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES, "VideoFocalNetForVideoClassification"),
            (modeling_auto.MODEL_FOR_BACKBONE_MAPPING_NAMES, "VideoFocalNetBackbone"),
        ):
            listed = patch.dict(names, {"video_focalnet": name})
            listed.start()
            self.addCleanup(listed.stop)

    def test_model_get_set_embeddings(self):
        """Replaces theirs, which wants an nn.Embedding: the input embedding of a video model is a convolution."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            assert isinstance(model.get_input_embeddings(), torch.nn.Conv2d)
            assert model.get_output_embeddings() is None


class VideoFocalNetConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = VideoFocalNetModelTester(self)
        self.config_tester = ConfigTester(
            self,
            config_class=VideoFocalNetConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_hidden_layers", "num_channels", "image_size", "num_frames"],
            embed_dim=16,
        )

    def test_config(self):
        self.config_tester.run_common_tests()


class VideoFocalNetBackboneTest(BackboneTesterMixin, unittest.TestCase):
    all_model_classes = (VideoFocalNetBackbone,)
    config_class = VideoFocalNetConfig
    has_attentions = False

    def setUp(self):
        self.model_tester = VideoFocalNetModelTester(self)
