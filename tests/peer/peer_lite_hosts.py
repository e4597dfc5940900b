"""ViViT, V-JEPA 2 and TimeSformer with token selection under transformers' common tests (run through run.py)."""

import unittest
from unittest.mock import patch

import torch
from transformers import PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin

from hf_effvid import (
    LiteTimesformerConfig,
    LiteTimesformerForVideoClassification,
    LiteTimesformerModel,
    LiteVivitConfig,
    LiteVivitForVideoClassification,
    LiteVivitModel,
    LiteVJEPA2Config,
    LiteVJEPA2ForVideoClassification,
    LiteVJEPA2Model,
)
from hf_effvid.models.lite_selection import TokenSelectionMixin


SELECTION = {"keep_ratio": 0.5, "scorer": "lite", "selector_trained": True, "selector_hidden_sizes": [8, 4]}
TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
IMAGE, FRAMES, LABELS = 16, 4, 3


class HostTester:
    """The small model and the inputs that the common tests ask for: clips of 4 frames of 2 x 2 patches, half of them kept."""

    def __init__(self, parent, config_class, fields, kept, input_name="pixel_values", is_training=True):
        self.parent, self.config_class, self.fields, self.input_name = parent, config_class, fields, input_name
        self.batch_size = 2
        self.num_labels = LABELS
        self.is_training = is_training
        self.num_hidden_layers = 2
        self.num_attention_heads = fields.get("num_attention_heads", 4)
        self.hidden_size = fields["hidden_size"]
        # what the blocks see, class token included, and what a mask is over
        self.encoder_seq_length = kept
        self.seq_length = 2 * kept - kept % 2

    def get_config(self):
        return self.config_class(**self.fields, **SELECTION, num_labels=LABELS)

    def prepare_config_and_inputs_for_common(self):
        size = (self.batch_size, FRAMES, 3, IMAGE, IMAGE)
        return self.get_config(), {self.input_name: torch.rand(size, generator=torch.Generator().manual_seed(0))}


class HostTests(ModelTesterMixin):
    test_resize_embeddings = False

    def list_classes(self, model_type):
        """The common tests read a class's role from lists of names that only models inside transformers are in."""
        base, classifier = self.all_model_classes
        for names, model_class in (
            (modeling_auto.MODEL_MAPPING_NAMES, base),
            (modeling_auto.MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES, classifier),
        ):
            listed = patch.dict(names, {model_type: model_class.__name__})
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


class LiteVivitModelTest(HostTests, unittest.TestCase):
    all_model_classes = (LiteVivitModel, LiteVivitForVideoClassification)

    def setUp(self):
        fields = {**TRANSFORMER, "image_size": IMAGE, "num_frames": FRAMES, "tubelet_size": [2, 8, 8]}
        self.model_tester = HostTester(self, LiteVivitConfig, fields, kept=4 + 1)
        self.list_classes("lite_vivit")


class LiteVJEPA2ModelTest(HostTests, unittest.TestCase):
    all_model_classes = (LiteVJEPA2Model, LiteVJEPA2ForVideoClassification)

    def setUp(self):
        fields = {
            "hidden_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "mlp_ratio": 1.5,
            "patch_size": 8,
            "crop_size": IMAGE,
            "frames_per_clip": FRAMES,
            "num_pooler_layers": 1,
            "pred_hidden_size": 12,
            "pred_num_attention_heads": 1,
            "pred_num_hidden_layers": 1,
        }
        self.model_tester = HostTester(self, LiteVJEPA2Config, fields, kept=4, input_name="pixel_values_videos")
        self.list_classes("lite_vjepa2")


class LiteTimesformerModelTest(HostTests, unittest.TestCase):
    all_model_classes = (LiteTimesformerModel, LiteTimesformerForVideoClassification)
    attention_type = "joint_space_time"

    def setUp(self):
        fields = {
            **TRANSFORMER,
            "image_size": IMAGE,
            "patch_size": 8,
            "num_frames": FRAMES,
            "attention_type": self.attention_type,
        }
        self.model_tester = HostTester(self, LiteTimesformerConfig, fields, kept=8 + 1)
        self.list_classes("lite_timesformer")


class LiteDividedTimesformerModelTest(LiteTimesformerModelTest):
    attention_type = "divided_space_time"

    def test_attention_outputs(self):
        """Replaces theirs, which wants one map per clip: attention over space has one per frame, here of 2 places and the class token."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            with torch.no_grad():
                outputs = model_class(config).eval()(**inputs, output_attentions=True, output_hidden_states=True)
            assert [tuple(one.shape) for one in outputs.attentions] == [(2 * FRAMES, 4, 3, 3)] * 2
            assert [tuple(one.shape) for one in outputs.hidden_states] == [(2, 8 + 1, 32)] * 3


class LiteHostConfigsTest(unittest.TestCase):
    def run_common_tests(self, config_class, common_properties):
        self.config_tester = ConfigTester(
            self,
            config_class=config_class,
            has_text_modality=False,
            common_properties=["hidden_size", "num_hidden_layers", "num_attention_heads", *common_properties],
            hidden_size=48,
        )
        self.config_tester.run_common_tests()

    def test_vivit(self):
        self.run_common_tests(LiteVivitConfig, ["image_size", "num_frames", "keep_ratio"])

    def test_vjepa2(self):
        self.run_common_tests(LiteVJEPA2Config, ["crop_size", "num_frames", "keep_ratio"])

    def test_timesformer(self):
        self.run_common_tests(LiteTimesformerConfig, ["image_size", "num_frames", "keep_ratio"])
