"""ActionFormer under transformers' common modelling and configuration tests (run through run.py)."""

import unittest
from unittest.mock import patch

import torch
from transformers.models.auto import modeling_auto
from transformers_tests.test_configuration_common import ConfigTester
from transformers_tests.test_modeling_common import ModelTesterMixin

from hf_effvid import ActionFormerConfig, ActionFormerForTemporalActionDetection, ActionFormerModel


class ActionFormerModelTester:
    """Makes the small model and the inputs that the common tests ask for."""

    def __init__(self, parent, batch_size=2, seq_length=12, is_training=True):
        self.parent = parent
        self.batch_size = batch_size
        self.seq_length = seq_length
        self.is_training = is_training
        # what test_hidden_states_output and test_attention_outputs expect
        self.num_hidden_layers = 2
        self.num_attention_heads = 2
        self.hidden_size = 8

    def get_config(self):
        return ActionFormerConfig(
            input_size=6,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_stem_layers=1,
            num_branch_layers=1,
            attention_window=5,
            use_relative_positions=True,
            use_absolute_positions=True,
            max_sequence_length=16,
            num_labels=3,
            drop_path_rate=0.0,
        )

    def prepare_config_and_inputs_for_common(self):
        generator = torch.Generator().manual_seed(0)
        features = torch.rand(self.batch_size, self.seq_length, 6, generator=generator)
        mask = torch.ones(self.batch_size, self.seq_length, dtype=torch.long)
        return self.get_config(), {"input_features": features, "attention_mask": mask}


class ActionFormerModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ActionFormerModel, ActionFormerForTemporalActionDetection)
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = ActionFormerModelTester(self)
        # which class has no loss is read from a list of names that only models inside transformers are in
        listed = patch.dict(modeling_auto.MODEL_MAPPING_NAMES, {"actionformer": "ActionFormerModel"})
        listed.start()
        self.addCleanup(listed.stop)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Theirs knows labels by lists of names that only models inside transformers are in."""
        inputs_dict = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        if return_labels and model_class is ActionFormerForTemporalActionDetection:
            label = {"grid_segments": torch.tensor([[2.0, 7.0]]), "class_labels": torch.tensor([1])}
            inputs_dict["labels"] = [label] * self.model_tester.batch_size
        return inputs_dict

    def test_model_get_set_embeddings(self):
        """Replaces theirs, which wants an nn.Embedding: the input embedding of features is a convolution."""
        config, _ = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config)
            assert isinstance(model.get_input_embeddings(), torch.nn.Conv1d)
            assert model.get_output_embeddings() is None

    def test_model_outputs_equivalence(self):
        """Replaces theirs, which subtracts outputs from each other: masks cannot be subtracted."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(config).eval()
            options = {"output_hidden_states": True}
            as_tuple = model(**inputs, **options, return_dict=False)
            as_dict = model(**inputs, **options, return_dict=True).to_tuple()
            assert isinstance(as_tuple, tuple)
            torch.testing.assert_close(as_tuple, as_dict)


class ActionFormerConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = ActionFormerModelTester(self)
        self.config_tester = ConfigTester(
            self,
            config_class=ActionFormerConfig,
            has_text_modality=False,
            common_properties=["hidden_size", "num_hidden_layers", "num_attention_heads"],
            hidden_size=16,
        )

    def test_config(self):
        self.config_tester.run_common_tests()
