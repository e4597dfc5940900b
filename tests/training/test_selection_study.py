"""The study of token selection, whole, on a tiny host with biases and real clips: what it writes, what it survives, what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from hf_effvid import EffVidVideoProcessor
from hf_effvid.compression import OracleError, OracleSettings
from hf_effvid.data.synthetic import MOTION_CLASSES, tiny_motion_dataset
from hf_effvid.evaluation.results import ResultsFile
from hf_effvid.evaluation.selection_entries import result_entries
from hf_effvid.evaluation.selection_report import SelectionReport, StudyError
from hf_effvid.models.configuration_lite_videomae import LiteVideoMAEConfig
from hf_effvid.models.modeling_lite_videomae import LiteVideoMAEForVideoClassification
from hf_effvid.models.token_selection import TokenGrid, num_kept_tokens
from hf_effvid.training.selection_answers import ArmRecord, file_name, wrong_label
from hf_effvid.training.selection_arms import (
    ClipBatch,
    FullArm,
    merging_arm,
    num_tokens_of,
    oracle_arms,
    score_arms,
    selector_arms,
    sharing_weights,
    without_ties,
)
from hf_effvid.training.selection_inputs import INPUT_ARMS, evenly, grid_within, input_arm
from hf_effvid.training.selection_selectors import _begin, selector_sizes
from hf_effvid.training.selection_settings import StudySettings, known_arms
from hf_effvid.training.selection_study import study_models, study_token_selection
from tests.models.lite_hosts import HOSTS
from tests.models.tiny_videomae import fill_biases


RATIOS = (0.5, 0.2)
CHECKPOINT = Path(__file__).resolve().parents[2] / "examples" / "checkpoints" / "videomae-motion"
LABELS = {
    "id2label": dict(enumerate(sorted(MOTION_CLASSES[:4]))),
    "label2id": {n: i for i, n in enumerate(sorted(MOTION_CLASSES[:4]))},
}


def tiny_host(**options):
    torch.manual_seed(0)
    config = LiteVideoMAEConfig(
        num_frames=8, image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=64, use_mean_pooling=True, initializer_range=0.2, selector_hidden_sizes=[16, 8], **LABELS, **options,
    )  # fmt: skip
    model = LiteVideoMAEForVideoClassification(config).eval()
    fill_biases(model)
    return model


@pytest.fixture(scope="module")
def host():
    return tiny_host(selector_trained=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_motion_dataset(tmp_path_factory.mktemp("study") / "motion", clips_per_class={"train": 1, "test": 2})


@pytest.fixture(scope="module")
def checkpoint(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study_host") / "tiny"
    host.save_pretrained(folder)
    EffVidVideoProcessor(
        num_frames=8, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def batch(host):
    torch.manual_seed(1)
    clips = torch.randn(3, 8, 3, 32, 32)
    return ClipBatch(clips, torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]), ["a", "b", "c"])


SMALL = {"keep_ratios": RATIOS, "draws": 2, "prior_videos": 4, "timing_rounds": 0, "examples": 1, "batch_size": 3}


# ---- arms ----------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_score_that_is_given_chooses_like_the_host_itself(host, batch):
    for arm in score_arms(host, draws=2):
        prepared = arm.prepare(batch, 0)
        own = host(pixel_values=batch.pixel_values, keep_ratio=0.5, scorer=arm.scorer, selection_extras={"seed": 0})
        torch.testing.assert_close(arm.logits(prepared, 0.5), own.logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(arm.model_at(0.5)(batch.pixel_values), own.logits, rtol=0, atol=1e-5)
        assert own.kept_indices.shape[1] == arm.num_tokens(0.5) == num_kept_tokens(num_tokens_of(host), 0.5)
        assert not arm.reaches(1.0)


@torch.inference_mode()
def test_draws_differ_and_repeat(host, batch):
    (random, *_) = score_arms(host, draws=2)
    first, again, other = (random.prepare(batch, draw)[1] for draw in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@torch.inference_mode()
def test_selectors_leave_the_host_alone(host, batch):
    other = tiny_host().selector
    other.network.layers[0].bias.data += 1
    before = {name: value.clone() for name, value in host.state_dict().items()}
    lite, reverse, variant = selector_arms(host, {"lite": host.selector, "lite (edges)": other})
    assert torch.equal(reverse.prepare(batch, 0)[1], -lite.prepare(batch, 0)[1])
    torch.testing.assert_close(
        variant.prepare(batch, 0)[1],
        other(host.embed_patches(batch.pixel_values) + host.videomae.embeddings.position_embeddings),
    )
    assert lite.settings != variant.settings
    assert all(torch.equal(before[name], value) for name, value in host.state_dict().items())


def test_copies_share_their_weights(host):
    other = sharing_weights(host)
    mine, theirs = dict(host.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys() and all(mine[name] is theirs[name] for name in mine)
    other.config.num_frames = 4
    assert host.config.num_frames == 8


@torch.inference_mode()
def test_oracles_explain_the_label_that_they_are_given(host, batch):
    true, predicted, wrong = (arm.prepare(batch, 0)[1] for arm in oracle_arms(host, OracleSettings()))
    answer = host(pixel_values=batch.pixel_values, keep_ratio=1.0).logits.argmax(-1)
    same = ClipBatch(batch.pixel_values, answer, batch.wrong_labels, batch.videos)
    asked = [arm.prepare(same, 0)[1] for arm in oracle_arms(host, OracleSettings())]
    assert torch.equal(asked[0], asked[1]) and torch.equal(asked[1], predicted)
    assert not torch.equal(true, wrong) and (wrong == asked[2]).all()


def test_zeros_of_an_oracle_are_in_an_order_of_chance():
    scores = without_ties(torch.tensor([[0.0, 2.0, 0.0, 1e-12]]), torch.tensor([[0.3, 0.9, 0.7, 0.1]]))
    assert scores.argsort(descending=True).tolist() == [[1, 3, 2, 0]]


def test_inputs_shrink_within_the_budget(host, batch):
    grid = TokenGrid(4, 4, 4)
    assert grid_within("fewer frames", grid, 32) == (2, 4, 4) and grid_within("fewer frames", grid, 15) is None
    assert grid_within("smaller frames", TokenGrid(4, 6, 8), 100) == (4, 4, 5)
    assert evenly(8, 4) == [1, 3, 5, 7] and evenly(8, 8) == list(range(8))
    shapes = {"fewer frames": (4, 32, 32), "smaller frames": (8, 16, 16), "smaller crop": (8, 16, 16)}
    for name in INPUT_ARMS:
        arm = input_arm(host, name, RATIOS)
        clip = arm.clip_at(batch.pixel_values, 0.5)
        assert (clip.shape[1], *clip.shape[-2:]) == shapes[name]
        for ratio in filter(arm.reaches, RATIOS):
            assert arm.num_tokens(ratio) <= num_kept_tokens(64, ratio)
            with torch.inference_mode():
                assert arm.logits(batch, ratio).shape == (3, 4)
    crop = input_arm(host, "smaller crop", (0.5,)).clip_at(batch.pixel_values, 0.5)
    torch.testing.assert_close(crop, batch.pixel_values[..., 8:24, 8:24])


def test_mergers_cost_what_they_are_asked_to_and_leave_the_host_alone(host, batch):
    from hf_effvid.evaluation.macs import count_macs

    with torch.inference_mode():
        before = host(pixel_values=batch.pixel_values, keep_ratio=1.0).logits
        full = count_macs(FullArm(host).model_at(1.0), {"pixel_values": batch.pixel_values[:1]}).gmacs
        arm = merging_arm(host, "tome", {0.9: 0.85 * full, 0.1: 0.01 * full})
        assert arm.reaches(0.9) and not arm.reaches(0.1) and arm.settings["r"].keys() == {"0.9"}
        spent = count_macs(arm.model_at(0.9), {"pixel_values": batch.pixel_values[:1]}).gmacs
        assert spent == pytest.approx(0.85 * full, rel=0.06)
        assert not torch.equal(arm.logits(batch, 0.9), before)
        assert torch.equal(host(pixel_values=batch.pixel_values, keep_ratio=1.0).logits, before)


def test_every_arm_has_a_file_of_its_own():
    names = [file_name(arm).lower() for arm in known_arms()]
    assert len(set(names)) == len(names) and all(name.replace("_", "").isalnum() for name in names)


def test_selectors_are_no_wider_than_their_host():
    assert selector_sizes(768) == [256, 128] and selector_sizes(64) == [64, 32] and selector_sizes(1) == [1, 1]


def test_a_selector_of_another_oracle_is_not_taken_for_this_one(tmp_path):
    assert _begin(tmp_path / "lite", {"oracle": 1, "variants": ("edges",)})
    assert _begin(tmp_path / "lite", {"oracle": 1, "variants": ("edges",)})  # begun, not finished
    (tmp_path / "lite" / "training.json").write_text("{}")
    assert not _begin(tmp_path / "lite", {"oracle": 1, "variants": ("edges",)})
    assert _begin(tmp_path / "lite", {"oracle": 2, "variants": ("edges",)})
    assert not (tmp_path / "lite" / "training.json").exists()


def test_wrong_labels_are_wrong_and_spread_evenly():
    given = [wrong_label(2, index, 5) for index in range(8)]
    assert 2 not in given and sorted(given) == [0, 0, 1, 1, 3, 3, 4, 4]
    assert wrong_label(0, 7, 2) == 1


# ---- the study ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studied(checkpoint, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("studied")
    settings = StudySettings(**{**SMALL, "timing_rounds": 1})
    return study_token_selection(checkpoint, data, folder, settings, device="cpu", seed=3, progress=False), folder


def test_a_study_gives_numbers_tables_and_pictures(studied):
    report, folder = studied
    assert report.n == 8 and report.num_failed == 0 and report.keep_ratios == list(RATIOS)
    for arm in (
        "random",
        "grid",
        "position_prior",
        "embedding_norm",
        "saliency",
        "lite",
        "attention",
        "oracle (true label)",
        "smaller frames",
    ):
        assert report.get(arm, 0.5) is not None, arm
    assert len(report.get("random", 0.5).draws) == 2 and len(report.values) == 8
    full, half = report.full.cost, report.get("lite", 0.5).cost
    assert full.gmacs > half.gmacs > report.get("lite", 0.2).cost.gmacs and half.latency_ms > 0
    assert report.get("oracle (true label)", 0.5).cost.latency_ms is None
    assert any("motion_vectors was left out" in note and "/" not in note for note in report.notes)
    names = {path.name for path in folder.iterdir()}
    assert {
        "report.json",
        "tables.md",
        "accuracy.png",
        "token_values.svg",
        "classes.png",
        "values_on_frames.png",
        "kept_on_frames.png",
    } <= names
    assert SelectionReport.load(folder / "report.json").to_dict() == report.to_dict()
    ResultsFile(result_entries(report)).save(folder / "results.json")


def test_the_full_arm_is_what_an_evaluation_finds(studied, checkpoint, data):
    from hf_effvid.data.loading import load_video_dataset
    from hf_effvid.evaluation.classification import evaluate_classifier

    rows = load_video_dataset(data, split="test")
    found = evaluate_classifier(checkpoint, rows, multi_view=False, num_clips=1, num_crops=1, progress=False)
    assert studied[0].full.accuracy == pytest.approx(found.metric("top1").value)


def test_a_study_goes_on_and_an_arm_can_be_added(studied, checkpoint, data, tmp_path, monkeypatch):
    import shutil

    from hf_effvid.training import selection_answers

    report, folder = studied
    shutil.copytree(folder, tmp_path / "study")
    log = tmp_path / "study" / "arms" / "lite.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
    (tmp_path / "study" / "arms" / "grid.jsonl").unlink()
    computed = []
    answer = selection_answers.answer

    def watched(arm, *args):
        computed.append(arm.name)
        return answer(arm, *args)

    monkeypatch.setattr(selection_answers, "answer", watched)
    settings = StudySettings(**{**SMALL, "timing_rounds": 1})
    again = study_token_selection(checkpoint, data, tmp_path / "study", settings, device="cpu", progress=False)
    assert set(computed) == {"lite", "grid"}
    assert [one["top1"] for one in again.to_dict()["results"]] == [one["top1"] for one in report.to_dict()["results"]]


def test_one_bad_video_is_counted_and_left_out(checkpoint, data, tmp_path):
    import shutil

    shutil.copytree(data, tmp_path / "clips")
    broken = sorted((tmp_path / "clips" / "test").glob("*/*.mp4"))[3]
    broken.write_bytes(broken.read_bytes()[:300])
    settings = StudySettings(**{**SMALL, "arms": ("embedding_norm",), "examples": 0})
    report = study_token_selection(
        checkpoint, tmp_path / "clips", tmp_path / "out", settings, device="cpu", progress=False
    )
    assert report.n == 7 and report.num_failed == 1 and report.arms == ["random", "embedding_norm"]
    records = [
        json.loads(line) for line in (tmp_path / "out" / "arms" / "embedding_norm.jsonl").read_text().splitlines()[1:]
    ]
    assert [bool(ArmRecord(**record).error) for record in records].count(True) == 1


def test_seeds_are_averaged_and_a_study_can_be_forgotten(checkpoint, data, tmp_path):
    settings = StudySettings(**{**SMALL, "arms": ("grid",), "examples": 0})
    options = {"settings": settings, "device": "cpu", "progress": False}
    pooled = study_models([checkpoint, checkpoint], data, tmp_path / "out", **options)
    assert pooled.num_models == 2 and (tmp_path / "out" / "1" / "report.json").is_file()
    other = StudySettings(**{**SMALL, "keep_ratios": (0.3,), "arms": ("grid",), "examples": 0})
    with pytest.raises(ValueError, match="another evaluation"):
        study_models([checkpoint, checkpoint], data, tmp_path / "out", **{**options, "settings": other})
    (tmp_path / "out" / "mine.txt").write_text("keep")
    study_models([checkpoint], data, tmp_path / "out", overwrite=True, **{**options, "settings": other})
    assert (tmp_path / "out" / "mine.txt").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"keep_ratios": (1.0,)}, "below 1"), ({"draws": 0}, "draws"), ({"keep_ratios": ()}, "below 1")],
)
def test_settings_that_make_no_study_are_refused(options, said):
    with pytest.raises(StudyError, match=said):
        StudySettings(**options)


def test_several_labels_per_video_are_refused(checkpoint, data, tmp_path):
    model = tiny_host(problem_type="multi_label_classification")
    processor = EffVidVideoProcessor.from_pretrained(checkpoint)
    with pytest.raises(StudyError, match="one class per video"):
        study_token_selection(model, data, tmp_path, processor=processor, progress=False)


@pytest.mark.slow
def test_the_command_on_the_committed_host(tmp_path):
    """A stock VideoMAE: its selector is trained, LITE++ calibrated, mergers run, and everything that the page promises is written."""
    from typer.testing import CliRunner

    from hf_effvid.cli import app

    data = tiny_motion_dataset(
        tmp_path / "motion", MOTION_CLASSES, {"train": 3, "validation": 2, "test": 2}, size=64, num_frames=16
    )
    command = [
        "select", "study", "--model", CHECKPOINT, "--data", data, "--output-dir", tmp_path / "study", "--selector-epochs", 1,
        "--keep-ratios", "0.7,0.5", "--draws", 2, "--timing-rounds", 1, "--variant", "edges", "--variant", "deep", "--examples", 2,
        "--results", tmp_path / "results.json", "--json", "--quiet",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(part) for part in command])
    assert result.exit_code == 0, result.output
    entries = ResultsFile.load(tmp_path / "results.json").results
    assert [entry.to_dict() for entry in entries] == json.loads(result.stdout)["results"]
    found = {entry.variant for entry in entries}
    for arm in (
        "random",
        "lite",
        "lite, lowest first",
        "lite (edges)",
        "lite (deep)",
        "LITE++",
        "ToMe",
        "fewer frames",
        "oracle (wrong label)",
    ):
        assert f"{arm}, keep 0.7" in found, arm
    report = SelectionReport.load(tmp_path / "study" / "report.json")
    lite, adaptive = report.get("lite", 0.7).cost, report.get("LITE++", 0.7).cost
    assert adaptive.gmacs < lite.gmacs < report.full.cost.gmacs and "its oracle" in report.selector["lite"]
    assert (tmp_path / "study" / "kept_on_frames.png").stat().st_size > 10_000


# ---- other hosts ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other_hosts") / "motion"
    return tiny_motion_dataset(
        folder, MOTION_CLASSES[:7], {"train": 2, "validation": 1, "test": 1}, size=32, num_frames=8
    )


def other_host(name, folder):
    """A stock ViViT, V-JEPA 2 or TimeSformer with the classes of the clips, saved with its recipe."""
    model = HOSTS[name].build()
    names = sorted(MOTION_CLASSES[:7])
    assert model.config.num_labels == len(names)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {label: index for index, label in enumerate(names)}
    model.save_pretrained(folder)
    EffVidVideoProcessor(
        num_frames=4, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTS)
def test_a_study_of_other_hosts(name, small_clips, tmp_path):
    """Everything that the host allows, LITE trained and LITE++ calibrated; what it does not allow is a note that says why."""
    folder = other_host(name, tmp_path / "host")
    settings = StudySettings(
        keep_ratios=(0.5, 0.3), draws=2, prior_videos=4, timing_rounds=1, examples=1, batch_size=3, oracle=OracleSettings(oracle_block=-2),
        selector_args={"max_steps": 2, "use_cpu": True},
    )  # fmt: skip
    report = study_token_selection(folder, small_clips, tmp_path / "out", settings, device="cpu", progress=False)
    assert report.n == 7 and report.full.cost.gmacs > 0
    wanted = {
        "random",
        "grid",
        "embedding_norm",
        "position_prior",
        "lite",
        "attention",
        "oracle (true label)",
        "LITE++",
    }
    assert wanted <= set(report.arms)
    assert report.get("lite", 0.3).cost.gmacs < report.get("lite", 0.5).cost.gmacs < report.full.cost.gmacs
    assert report.get("lite", 0.5).cost.latency_ms > 0
    unchecked = "could not be checked: divided attention drops whole tubes" in report.selector["lite"]
    assert unchecked == (name == "timesformer_divided")
    # merging is written for VideoMAE's blocks
    for merger in ("ToMe", "STA", "vid-TLDR"):
        assert merger not in report.arms
        assert any(note.startswith(f"{merger} was left out") for note in report.notes)
    assert (tmp_path / "out" / "kept_on_frames.png").is_file() and (tmp_path / "out" / "tables.md").is_file()


@pytest.mark.parametrize("name", ["vivit", "timesformer_joint"])
def test_an_oracle_at_the_last_block_of_a_host_with_a_class_token_is_refused(name, small_clips, tmp_path):
    """There the gradient at the patch tokens is exactly zero; the error says which block to take."""
    folder = other_host(name, tmp_path / "host")
    settings = StudySettings(**{**SMALL, "train_selector": False, "arms": ("oracle (true label)",)})
    with pytest.raises(OracleError, match="set oracle_block to -2"):
        study_token_selection(folder, small_clips, tmp_path / "out", settings, device="cpu", progress=False)


def test_a_variant_that_is_trained_takes_part():
    settings = StudySettings(arms=("grid",), variants=("deep",))
    assert settings.wants("lite (deep)") and settings.wants("grid") and settings.wants("random")
    assert not settings.wants("lite (global)") and not settings.wants("lite")
