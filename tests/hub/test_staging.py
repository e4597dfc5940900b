import json
import os
import stat

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEVideoProcessor

from hf_effvid import VideoFocalNetForVideoClassification
from hf_effvid.evaluation.pareto_chart import ParetoPoint, plot_pareto
from hf_effvid.evaluation.results import Cost, Metric, Provenance, ResultEntry, ResultsFile
from hf_effvid.hub.card_check import card_problems
from hf_effvid.hub.card_info import CardError, CardInfo
from hf_effvid.hub.reference import ReferenceLogits, reference_logits, reference_path
from hf_effvid.hub.stage_files import StageError, list_staged_files
from hf_effvid.hub.staging import stage_checkpoint

from .tiny_checkpoint import tiny_model, tiny_processor


def test_the_folder_holds_a_checkpoint_and_nothing_else(staged):
    names = {path.name for path in staged.iterdir()}
    code = {name for name in names if name.endswith(".py")}
    assert names - code == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    }
    assert {"modeling_video_focalnet.py", "configuration_video_focalnet.py", "video_processing_effvid.py"} <= code
    assert {stat.S_IMODE(path.stat().st_mode) for path in staged.iterdir()} == {0o644}
    config = json.loads((staged / "config.json").read_text())
    assert {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"} <= set(config["auto_map"])
    assert card_problems((staged / "README.md").read_text(), []) == []


def test_weights_are_the_originals(staged):
    loaded = VideoFocalNetForVideoClassification.from_pretrained(staged)
    for name, tensor in tiny_model().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_the_reference_is_the_answer_of_the_original(staged):
    reference = ReferenceLogits.load(reference_path(staged))
    assert reference.shape == (1, 4, 3, 32, 32)
    assert len(reference.logits[0]) == 4 and len(set(reference.logits[0])) == 4


def test_staging_from_a_training_folder_leaves_the_rest_behind(tmp_path):
    run = tmp_path / "run"
    model, processor = tiny_model(), tiny_processor()
    model.train()
    model.save_pretrained(run)
    processor.save_pretrained(run)
    for stray in (
        "optimizer.pt",
        "training_args.bin",
        "task_state.safetensors",
        "events.out.tfevents.1",
        "modeling_old.py",
    ):
        (run / stray).write_bytes(b"x")
    os.chmod(run / "model.safetensors", 0o600)
    folder = stage_checkpoint(run, tmp_path / "stage")
    assert not {"optimizer.pt", "training_args.bin", "modeling_old.py"} & {path.name for path in folder.iterdir()}
    text = "".join(path.read_text() for path in folder.glob("*.json"))
    assert str(tmp_path) not in text
    assert model.training  # staging leaves the model as it was


def test_an_existing_folder_is_only_replaced_on_request(tmp_path):
    model, processor, folder = tiny_model(), tiny_processor(), tmp_path / "stage"
    stage_checkpoint(model, folder, processor, reference=False)
    with pytest.raises(StageError, match="overwrite=True"):
        stage_checkpoint(model, folder, processor)
    stage_checkpoint(tiny_model(seed=1), folder, processor, overwrite=True, card=CardInfo(title="Second"))
    assert "# Second" in (folder / "README.md").read_text()
    (folder / "thesis.docx").write_text("ten years of work")
    with pytest.raises(StageError, match="thesis.docx"):
        stage_checkpoint(model, folder, processor, overwrite=True)
    assert (folder / "thesis.docx").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stage", "stage.reference.json"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "README.md").write_text("mine")
    with pytest.raises(StageError, match="no staged checkpoint"):
        stage_checkpoint(tiny_model(), tmp_path / "precious", tiny_processor(), overwrite=True)
    assert (tmp_path / "precious" / "README.md").read_text() == "mine"


def test_a_failed_staging_leaves_nothing(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        next(model.parameters()).fill_(float("inf"))
    with pytest.raises(StageError, match="not finite"):
        stage_checkpoint(model, tmp_path / "stage", tiny_processor())
    assert list(tmp_path.iterdir()) == []


def test_no_processor_no_checkpoint(tmp_path):
    with pytest.raises(StageError, match="pass its processor"):
        stage_checkpoint(tiny_model(), tmp_path / "stage")


def test_the_card_takes_its_numbers_from_the_results(tmp_path):
    entry = ResultEntry(
        task="video-classification",
        model="stage",
        dataset="motion",
        split="test",
        metrics=(Metric.proportion("top1", 45, 50), Metric.proportion("top5", 50, 50)),
        cost=Cost(
            gmacs=0.25, latency_ms=12.5, batch_size=1, hardware="2 cores", dtype="float32", decode_included=True
        ),
        provenance=Provenance("effvid evaluate stage motion", commit="0123abc", date="2026-11-20"),
        protocol={"num_frames": 4, "num_clips": 2, "num_crops": 3},
    )
    quoted = ResultEntry(
        task="video-classification",
        model="stage",
        dataset="Kinetics-400",
        split="validation",
        metrics=(Metric("top1", 0.836),),
        provenance=Provenance("Table 1 of Wasim et al. 2023"),
        quoted=True,
    )
    path = ResultsFile([entry, quoted]).save(tmp_path / "results.json")
    card = CardInfo(
        license="apache-2.0",
        datasets=("org/motion",),
        training_command="effvid train motion",
        training_commit="0123abc",
    )
    folder = stage_checkpoint(
        tiny_model(), tmp_path / "stage", tiny_processor(), results=path, card=card, repo_id="org/stage"
    )
    text = (folder / "README.md").read_text()
    low, high = entry.metrics[0].interval
    assert f"| motion (test) | 4 x 2 x 3 | top-1 accuracy | 90.0% | {low:.1%} to {high:.1%} | 50 | measured |" in text
    assert "| 83.6% | none | ? | quoted |" in text
    assert "12.5 ms per batch of 1 (2 cores, float32, decoding included)" in text
    assert 'model="org/stage"' in text and "effvid train motion" in text
    assert card_problems(text, [entry, quoted]) == []
    # and the check sees a number that was changed in either place
    assert any("not in the results file" in p for p in card_problems(text.replace("90.0%", "97.0%"), [entry, quoted]))
    assert any("claims" in p for p in card_problems(text.replace("value: 0.9\n", "value: 0.97\n"), [entry, quoted]))
    assert card_problems(text, [entry]) != []


def test_stock_models_need_no_code(tmp_path):
    config = VideoMAEConfig(
        image_size=32,
        patch_size=16,
        num_frames=4,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    processor = VideoMAEVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    folder = stage_checkpoint(VideoMAEForVideoClassification(config), tmp_path / "videomae", processor)
    assert not list(folder.glob("*.py"))
    assert "trust_remote_code" not in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"license": "other"}, "license_name"),
        ({"base_model": "/home/me/model"}, "Hub id"),
        ({"base_model_relation": "finetune"}, "give that as well"),
        ({"base_model": "a/b", "base_model_relation": "child"}, "must be one of"),
        ({"datasets": "org/data"}, "list of strings"),
        ({"datasets": ["../x"]}, "Hub id"),
        ({"licence": "mit"}, "unknown card fields"),
    ],
)
def test_card_fields_are_checked(tmp_path, fields, message):
    with pytest.raises(CardError, match=message):
        stage_checkpoint(tiny_model(), tmp_path / "stage", tiny_processor(), card=fields)


def test_a_finished_card_is_taken_and_checked(staged, tmp_path):
    text = (staged / "README.md").read_text().replace("# tiny-focalnet", "# My own words")
    (tmp_path / "card.md").write_text(text)
    folder = stage_checkpoint(
        tiny_model(), tmp_path / "stage", tiny_processor(), card=tmp_path / "card.md", reference=False
    )
    assert (folder / "README.md").read_text() == text
    (tmp_path / "card.md").write_text(text.replace("not recorded", "TODO"))
    with pytest.raises(StageError, match="TODO"):
        stage_checkpoint(tiny_model(), tmp_path / "other", tiny_processor(), card=tmp_path / "card.md")
    (tmp_path / "card.yaml").write_text("title: From a file\nlicense: mit\n")
    folder = stage_checkpoint(tiny_model(), tmp_path / "yaml", tiny_processor(), card=tmp_path / "card.yaml")
    assert "# From a file" in (folder / "README.md").read_text()
    with pytest.raises(CardError, match="path of a .yaml or .md file"):
        stage_checkpoint(tiny_model(), tmp_path / "other", tiny_processor(), card=tmp_path / "no-such-card.md")


def test_an_adapter_folder_is_staged_as_an_adapter(tmp_path):
    base, run = tmp_path / "base", tmp_path / "run"
    tiny_model().save_pretrained(base)
    linear = {n.rsplit(".", 1)[-1] for n, m in tiny_model().named_modules() if isinstance(m, torch.nn.Linear)} - {
        "classifier"
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        lora = LoraConfig(r=2, target_modules=sorted(linear), modules_to_save=["classifier"], init_lora_weights=False)
        adapter = get_peft_model(VideoFocalNetForVideoClassification.from_pretrained(base), lora)
    adapter.save_pretrained(run)
    tiny_processor().save_pretrained(run)
    with pytest.raises(StageError, match="Hub id of its base model"):
        stage_checkpoint(run, tmp_path / "stage")
    folder = stage_checkpoint(run, tmp_path / "stage", card=CardInfo(base_model="org/base"))
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "org/base" and config["auto_mapping"] is None
    assert str(tmp_path) not in (folder / "README.md").read_text()
    assert ReferenceLogits.load(reference_path(folder)) == reference_logits(adapter, (1, 4, 3, 32, 32))
    assert not (folder / "config.json").exists()


def test_an_adapter_with_other_classes_than_its_base_is_not_staged(tmp_path):
    tiny_model(num_labels=7).save_pretrained(tmp_path / "base")
    model = VideoFocalNetForVideoClassification.from_pretrained(
        tmp_path / "base", num_labels=4, ignore_mismatched_sizes=True
    )
    adapter = get_peft_model(model, LoraConfig(r=2, target_modules=["fc1"], modules_to_save=["classifier"]))
    with pytest.raises(StageError, match="4 classes of its own and its base model 7 others"):
        stage_checkpoint(adapter, tmp_path / "stage", tiny_processor(), card=CardInfo(base_model="org/base"))
    assert stage_checkpoint(adapter.merge_and_unload(), tmp_path / "stage", tiny_processor()).is_dir()


def test_a_chart_is_part_of_the_checkpoint(tmp_path):
    point = ParetoPoint("tiny", milliseconds=10.0, accuracy=0.8, interval=(0.7, 0.9))
    png, svg = plot_pareto([point], tmp_path / "chart", title="Accuracy against time", time_label="ms")
    folder = stage_checkpoint(tiny_model(), tmp_path / "checkpoint", tiny_processor(), chart=png)
    assert (folder / "pareto.png").read_bytes() == png.read_bytes()
    assert "](pareto.png)" in (folder / "README.md").read_text()
    assert "chart" in {file.kind for file in list_staged_files(folder)}
    with pytest.raises(StageError, match=r"pareto\.png: not a PNG"):
        stage_checkpoint(tiny_model(), tmp_path / "other", tiny_processor(), chart=svg)
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("](pareto.png)", "](else.png)"))
    with pytest.raises(StageError, match="the card does not show it"):
        list_staged_files(folder)
