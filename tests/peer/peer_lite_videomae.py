"""VideoMAE with token selection under transformers' common modelling and configuration tests (run through run.py)."""

import unittest
from unittest.mock import patch

import torch
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin

from hf_effvid import LiteVideoMAEConfig, LiteVideoMAEForVideoClassification, LiteVideoMAEModel
from hf_effvid.models.lite_selection import TokenSelectionMixin


class LiteVideoMAEModelTester:
    """Makes the small model and the inputs that the common tests ask for."""

    def __init__(self, parent, batch_size=2, num_frames=4, image_size=16, num_labels=3, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.num_frames = num_frames
        self.image_size = image_size
        self.num_labels = num_labels
        self.is_training = is_training
        self.num_hidden_layers = 2
        self.num_attention_heads = 4
        self.hidden_size = 32
        # half of 2 steps of 2 x 2 tokens: what every block sees
        self.seq_length = 4

    def get_config(self):
        return LiteVideoMAEConfig(
            num_frames=self.num_frames,
            image_size=self.image_size,
            patch_size=8,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=37,
            num_labels=self.num_labels,
            keep_ratio=0.5,
            scorer="lite",
            selector_trained=True,
            selector_hidden_sizes=[8, 4],
        )

    def prepare_config_and_inputs_for_common(self):
        size = (self.batch_size, self.num_frames, 3, self.image_size, self.image_size)
        pixel_values = torch.rand(size, generator=torch.Generator().manual_seed(0))
        return self.get_config(), {"pixel_values": pixel_values}


class LiteVideoMAEModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LiteVideoMAEModel, LiteVideoMAEForVideoClassification)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = LiteVideoMAEModelTester(self)
        # The common tests read a class's role from lists of names that only models inside transformers are in.
        for names, name in (
            (modeling_auto.MODEL_MAPPING_NAMES, "LiteVideoMAEModel"),
            (modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES, "LiteVideoMAEForVideoClassification"),
        ):
            listed = patch.dict(names, {"lite_videomae": name})
            listed.start()
            self.addCleanup(listed.stop)

    def test_model_get_set_embeddings(self):
        """Replaces theirs, which wants an nn.Embedding: the input embedding of a video model is a module around a convolution."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            assert isinstance(model.get_input_embeddings(), torch.nn.Module)
            assert model.get_output_embeddings() is None

    def test_reverse_loading_mapping(self, check_keys_were_modified=True, skip_base_model=False):
        """Theirs, saved in the original format: that is not what our `save_pretrained` does, but the names must still map back."""
        with patch.object(TokenSelectionMixin, "save_pretrained", PreTrainedModel.save_pretrained):
            super().test_reverse_loading_mapping(check_keys_were_modified, skip_base_model)


class LiteVideoMAEConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = LiteVideoMAEModelTester(self)
        self.config_tester = ConfigTester(
            self,
            config_class=LiteVideoMAEConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_hidden_layers", "num_attention_heads", "image_size", "num_frames"],
            hidden_size=32,
        )

    def test_config(self):
        self.config_tester.run_common_tests()
