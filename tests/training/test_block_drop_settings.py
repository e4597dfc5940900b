"""What a compression run may be told, and what it refuses before anything is opened."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_effvid.training.block_drop_errors import BlockDropError
from hf_effvid.training.block_drop_settings import BlockDropSettings
from hf_effvid.training.recipe import RecipeFileError, load_recipe


class TestHowMany:
    def test_a_quarter_where_nobody_says(self):
        assert [BlockDropSettings().num_to_drop(depth) for depth in (2, 3, 8, 12, 24)] == [1, 1, 2, 3, 6]

    def test_all_but_one_where_another_rule_stops(self):
        assert BlockDropSettings(margin=0.01).num_to_drop(12) == 11
        assert BlockDropSettings(target_macs=3.0, drop=2).num_to_drop(12) == 2

    def test_as_many_as_are_named(self):
        assert BlockDropSettings(blocks=(7, 10, 6)).num_to_drop(12) == 3
        assert BlockDropSettings(blocks=(7, 10, 6), drop=2).num_to_drop(12) == 2

    def test_one_is_left(self):
        with pytest.raises(BlockDropError, match="at least one is left"):
            BlockDropSettings(drop=12).num_to_drop(12)

    def test_a_block_that_is_not_there(self):
        with pytest.raises(BlockDropError, match="no block 12: the model has blocks 0 to 11"):
            BlockDropSettings(blocks=(3, 12)).num_to_drop(12)

    def test_all_at_once_needs_a_number(self):
        with pytest.raises(BlockDropError, match="say how many"):
            BlockDropSettings(order="at_once", margin=0.01).num_to_drop(12)

    @given(st.integers(2, 48), st.integers(0, 60))
    def test_never_more_than_there_are(self, depth, drop):
        settings = BlockDropSettings(drop=drop)
        if drop < depth:
            assert settings.num_to_drop(depth) == drop
        else:
            with pytest.raises(BlockDropError):
                settings.num_to_drop(depth)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": "backwards"}, "order must be one of progressive, at_once"),
        ({"criterion": "mse"}, "criterion must be one of metric, loss, discrepancy"),
        ({"score_on": "test"}, "score_on must be one of train, validation"),
        ({"margin": 1.5}, "a fraction"),
        ({"drop": -1}, "at least 0"),
        ({"drop": True}, "whole number"),
        ({"target_ms": 0}, "above 0"),
        ({"target_ms": 5.0, "timing_rounds": 0}, "needs measured times"),
        ({"blocks": (1, 1)}, "twice"),
        ({"blocks": (1, 2), "order": "random"}, "give one"),
        ({"blocks": (1,), "drop": 2}, "more than the 1 blocks"),
        ({"align": ("feature", "attention")}, "got attention"),
        ({"relu": True, "recovery": False}, "needs recovery"),
    ],
)
def test_refused(fields, message):
    with pytest.raises(BlockDropError, match=message):
        BlockDropSettings(**fields)


class TestAnotherRun:
    def test_stopping_elsewhere_is_no_other_run(self):
        recorded = BlockDropSettings(drop=2).to_dict()
        assert BlockDropSettings(drop=4, margin=0.02, timing_rounds=0).difference(recorded) == []
        assert BlockDropSettings(tuning="full", align=()).difference(recorded) == ["tuning", "align"]

    def test_together_the_number_counts(self):
        recorded = BlockDropSettings(drop=2, order="at_once").to_dict()
        assert BlockDropSettings(drop=3, order="at_once").difference(recorded) == ["drop"]

    def test_fields_or_settings(self):
        settings, others = BlockDropSettings.taken_from({"drop": 2, "root": "videos"})
        assert settings.drop == 2 and others == {"root": "videos"}
        with pytest.raises(BlockDropError, match="one by one"):
            BlockDropSettings.taken_from({"drop": 2}, BlockDropSettings())


class TestRecipe:
    def test_section(self, tmp_path):
        path = tmp_path / "recipe.yaml"
        path.write_text("compression: {drop: 3, blocks: [7, 10, 6], align: [feature]}\ntraining: {max_steps: 5}\n")
        recipe = load_recipe(path, ["compression.margin=1e-2"])
        settings = BlockDropSettings(**recipe.compression)
        assert settings == BlockDropSettings(drop=3, blocks=(7, 10, 6), align=("feature",), margin=0.01)

    def test_unknown_key(self):
        with pytest.raises(RecipeFileError, match="compression: unknown keys"):
            load_recipe(None, ["compression.blocs=3"])
