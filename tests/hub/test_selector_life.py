"""The whole life of a selector on the command line: trained after its oracle passed, evaluated, staged, verified by a stranger."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hf_effvid.cli import app
from hf_effvid.compression import UnfaithfulOracleError
from hf_effvid.data.synthetic_needle import NeedleTask, make_needle_dataset


pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

HOST = Path(__file__).resolve().parents[2] / "examples" / "checkpoints" / "needle" / "needle"


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result, json.loads(result.stdout) if result.exit_code == 0 and "--json" in arguments else None


def test_train_evaluate_stage_verify(tmp_path):
    clips = {"train": 4, "validation": 4, "test": 2}
    data = make_needle_dataset(tmp_path / "clips", NeedleTask(amplitude=(10.0, 24.0)), clips, progress=False)
    train = ("select", "train", "-m", HOST, "-d", data, "--keep-ratio", 0.3, "--epochs", 1, "--json", "--quiet")

    refused, _ = call(*train, "-o", tmp_path / "literal", "--oracle-tensor", "mlp_out")
    assert refused.exit_code == 1
    # `main` makes one line of it
    assert isinstance(refused.exception, UnfaithfulOracleError) and "--force" in str(refused.exception)
    assert not (tmp_path / "literal" / "model").exists()

    result, outcome = call(*train, "-o", tmp_path / "lite")
    assert result.exit_code == 0, result.output
    assert outcome["faithfulness"]["passed"] and outcome["faithfulness"]["rank_correlation"]["n"] == 32
    assert {"top1_full", "top1_lite", "top1_random"} <= outcome["training"]["metrics"].keys()

    model = tmp_path / "lite" / "model"
    result, report = call("evaluate", model, data, "--split", "test", "--json", "--quiet")
    assert result.exit_code == 0 and report is not None, result.output

    result, _ = call("stage", model, tmp_path / "staged", "--repo-id", "org/lite-needle")
    assert result.exit_code == 0, result.output
    assert {"token_faithfulness.json", "modeling_lite_videomae.py"} <= {
        p.name for p in (tmp_path / "staged").iterdir()
    }
    card = (tmp_path / "staged" / "README.md").read_text()
    assert "reads 30% of the tokens" in card and "passed its check on 32 clips" in card and "| 50% |" in card

    result, _ = call("verify", tmp_path / "staged")
    assert result.exit_code == 0, result.output
