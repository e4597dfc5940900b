"""TSM, X3D, MoViNet and torchvision's networks under transformers' common modelling and configuration tests (run through run.py)."""

import unittest
from unittest.mock import patch

import torch
from transformers.models.auto import modeling_auto
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin

from hf_effvid import (
    MoViNetConfig,
    MoViNetForVideoClassification,
    MoViNetModel,
    TorchvisionVideoConfig,
    TorchvisionVideoForVideoClassification,
    TorchvisionVideoModel,
    TSMConfig,
    TSMForVideoClassification,
    TSMModel,
    X3DConfig,
    X3DForVideoClassification,
    X3DModel,
)


FRAMES, LABELS = 4, 3
MOVINET = {
    "stem_size": 8,
    "hidden_sizes": [8, 8, 16],
    "expand_sizes": [[16], [16], [16, 16]],
    "kernel_sizes": [["15"], ["33"], ["53", "33"]],
    "strides": [2, 2, 1],
    "projection_size": 16,
    "head_size": 16,
}
X3D = {"stem_size": 8, "hidden_sizes": [8, 8, 8], "depths": [1, 1, 2], "head_size": 16}


class StudentTester:
    """The small model and the inputs that the common tests ask for."""

    def __init__(self, parent, config_class, fields, image_size=32, is_training=True):
        self.parent, self.config_class, self.fields, self.image_size = parent, config_class, fields, image_size
        self.batch_size = 2
        self.num_labels = LABELS
        self.is_training = is_training
        self.num_hidden_layers = 2
        self.hidden_size = 8

    def get_config(self):
        return self.config_class(
            **self.fields, num_frames=FRAMES, image_size=self.image_size, num_labels=LABELS, classifier_dropout=0.0
        )

    def prepare_config_and_inputs_for_common(self):
        size = (self.batch_size, FRAMES, 3, self.image_size, self.image_size)
        return self.get_config(), {"pixel_values": torch.rand(size, generator=torch.Generator().manual_seed(0))}


class StudentTests(ModelTesterMixin):
    has_attentions = False
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
        """Replaces theirs, which wants an nn.Embedding: the input embedding of a video CNN is a convolution."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            assert isinstance(model.get_input_embeddings(), (torch.nn.Conv2d, torch.nn.Conv3d))
            assert model.get_output_embeddings() is None

    def test_hidden_states_output(self):
        """Replaces theirs, which knows sequences: these are feature maps (B, C, T, h, w) of the stages."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config).eval()
            config.output_hidden_states = False
            assert model(**inputs).hidden_states is None
            asked = model(**inputs, output_hidden_states=True).hidden_states
            config.output_hidden_states = True
            by_default = model(**inputs).hidden_states
            assert len(asked) == len(by_default) > 3
            for one, other in zip(asked, by_default, strict=True):
                assert one.ndim == 5 and one.shape[0] == 2 and one.shape[2] == FRAMES
                torch.testing.assert_close(one, other)


class TSMModelTest(StudentTests, unittest.TestCase):
    all_model_classes = (TSMModel, TSMForVideoClassification)

    def setUp(self):
        fields = {"architecture": "resnet18", "model_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}}
        self.model_tester = StudentTester(self, TSMConfig, fields)
        self.list_classes("tsm")

    def test_retain_grad_hidden_states_attentions(self):
        """Replaces theirs, which wants the gradient at the first feature map: the 2-D network goes on with frames, and what we give is a
        view of them as clips. Gradients flow from every map to the weights before it."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = TSMModel(config)
        for stage in model(**inputs, output_hidden_states=True).hidden_states:
            model.zero_grad()
            stage.sum().backward(retain_graph=True)
            assert model.get_input_embeddings().weight.grad.abs().sum() > 0


class X3DModelTest(StudentTests, unittest.TestCase):
    all_model_classes = (X3DModel, X3DForVideoClassification)

    def setUp(self):
        self.model_tester = StudentTester(self, X3DConfig, X3D)
        self.list_classes("x3d")


class MoViNetModelTest(StudentTests, unittest.TestCase):
    all_model_classes = (MoViNetModel, MoViNetForVideoClassification)

    def setUp(self):
        self.model_tester = StudentTester(self, MoViNetConfig, MOVINET)
        self.list_classes("movinet")


class MoViNetStreamTest(MoViNetModelTest):
    def setUp(self):
        self.model_tester = StudentTester(self, MoViNetConfig, {**MOVINET, "causal": True})
        self.list_classes("movinet")


class TorchvisionVideoTest(StudentTests):
    all_model_classes = (TorchvisionVideoModel, TorchvisionVideoForVideoClassification)

    def test_hidden_states_output(self):
        """As for the others, but time is strided, or halved by patches of two frames."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config).eval()
            assert model(**inputs).hidden_states is None
            maps = model(**inputs, output_hidden_states=True).hidden_states
            assert len(maps) == 1 + (sum(config.depths) if config.family == "mvit" else len(config.depths))
            assert all(one.ndim == 5 and one.shape[0] == 2 and one.shape[2] == FRAMES // 2 for one in maps)

    def test_retain_grad_hidden_states_attentions(self):
        """Replaces theirs, which wants the gradient at the first feature map: the network goes on with tokens, and what we give is a view of
        them as a map. Gradients flow from every map to the weights before it."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = TorchvisionVideoModel(config)
        for stage in model(**inputs, output_hidden_states=True).hidden_states:
            model.zero_grad()
            stage.square().sum().backward(retain_graph=True)
            assert model.get_input_embeddings().weight.grad.abs().sum() > 0


class TorchvisionMViTTest(TorchvisionVideoTest, unittest.TestCase):
    def setUp(self):
        fields = {"network": "mvit_v2_s", "stem_size": 8, "depths": [1, 1], "drop_path_rate": 0.0}
        self.model_tester = StudentTester(self, TorchvisionVideoConfig, fields)
        self.list_classes("torchvision_video")


class TorchvisionSwinTest(TorchvisionVideoTest, unittest.TestCase):
    def setUp(self):
        fields = {"network": "swin3d_t", "stem_size": 16, "depths": [2], "drop_path_rate": 0.0}
        self.model_tester = StudentTester(self, TorchvisionVideoConfig, fields)
        self.list_classes("torchvision_video")


class MoViNetConfigTest(unittest.TestCase):
    def test_config(self):
        properties = ["num_channels", "image_size", "num_frames"]
        ConfigTester(
            self, config_class=MoViNetConfig, has_text_modality=False, common_properties=properties, stem_size=8
        ).run_common_tests()


class TorchvisionVideoConfigTest(unittest.TestCase):
    def test_config(self):
        properties = ["num_channels", "image_size", "num_frames"]
        ConfigTester(
            self,
            config_class=TorchvisionVideoConfig,
            has_text_modality=False,
            common_properties=properties,
            stem_size=16,
            network="swin3d_t",
        ).run_common_tests()


class TSMConfigTest(unittest.TestCase):
    def test_config(self):
        properties = ["hidden_size", "num_channels", "image_size", "num_frames"]
        ConfigTester(
            self,
            config_class=TSMConfig,
            has_text_modality=False,
            common_properties=properties,
            architecture="resnet18",
        ).run_common_tests()


class X3DConfigTest(unittest.TestCase):
    def test_config(self):
        properties = ["num_channels", "image_size", "num_frames"]
        ConfigTester(
            self, config_class=X3DConfig, has_text_modality=False, common_properties=properties, stem_size=8
        ).run_common_tests()
