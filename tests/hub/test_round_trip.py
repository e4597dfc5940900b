"""Push, then load as a stranger does: a new interpreter, an empty cache, no hf_effvid, the real clients."""

import json
import os

import pytest
import torch
from huggingface_hub import HfApi, constants
from peft import LoraConfig, get_peft_model

from hf_effvid.hub.card_info import CardInfo
from hf_effvid.hub.probe_clips import write_probe_clips
from hf_effvid.hub.push import push_checkpoint
from hf_effvid.hub.reference import ReferenceLogits, reference_logits, reference_path
from hf_effvid.hub.stage_files import StageError
from hf_effvid.hub.staging import stage_checkpoint

from .interpreter import run_python
from .server import TOKEN, HubServer
from .tiny_checkpoint import tiny_model, tiny_processor
from .tiny_detector import LABELS, pixel_detector


pytestmark = [pytest.mark.hub, pytest.mark.timeout(1800)]

# a stranger's program; {name} is a repository, the answer is compared with the original model's
STRANGER = """
import numpy as np, torch
from transformers import AutoModelForVideoClassification, AutoVideoProcessor, pipeline
options = {{"trust_remote_code": True, "revision": {revision!r}}}
model = AutoModelForVideoClassification.from_pretrained({name!r}, **options).eval()
processor = AutoVideoProcessor.from_pretrained({name!r}, **options)
pixels = torch.from_numpy(np.random.default_rng(2026).standard_normal((1, 4, 3, 32, 32), dtype=np.float32))
with torch.no_grad():
    logits = model(pixel_values=pixels).logits.tolist()
shape = list(processor({clips!r}, multi_view=True, return_tensors="pt")["pixel_values"].shape)
classify = pipeline("video-classification", model={name!r}, **options)
answers = classify({clips!r}, batch_size=2, top_k=2)
answer = {{"logits": logits, "shape": shape, "answers": answers, "module": type(model).__module__}}
"""


@pytest.fixture(scope="module")
def hub():
    saved = {name: os.environ.get(name) for name in ("HF_TOKEN",)}
    was, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    os.environ["HF_TOKEN"] = TOKEN
    with HubServer() as server:
        yield server
    constants.HF_HUB_DISABLE_XET = was
    for name, value in saved.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return [str(path) for path in write_probe_clips(tmp_path_factory.mktemp("clips"))]


@pytest.fixture(scope="module")
def published(hub, staged):
    push_checkpoint(staged, "org/tiny", dry_run=False, endpoint=hub.endpoint, tag="v1")
    return "org/tiny"


def assert_answers_as(answer, reference: ReferenceLogits):
    torch.testing.assert_close(torch.tensor(answer["logits"]), torch.tensor(reference.logits), rtol=1e-4, atol=1e-5)
    assert answer["shape"] == [12, 4, 3, 32, 32]
    assert [len(answers) for answers in answer["answers"]] == [2, 2]
    assert all(
        0 <= a["score"] <= 1 and a["label"].startswith("move") for answers in answer["answers"] for a in answers
    )


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_stranger_loads_it(hub, published, staged, clips, tmp_path, revision):
    answer = run_python(
        hub, tmp_path, STRANGER.format(name=published, revision=revision, clips=clips), with_package=False
    )
    assert_answers_as(answer, ReferenceLogits.load(reference_path(staged)))
    # one commit folder holds all code: the model's class and its configuration's class come from the same place
    assert answer["module"].startswith("transformers_modules.org.tiny.")


def test_the_package_wins_over_remote_code_and_needs_no_trust(hub, published, staged, clips, tmp_path):
    code = STRANGER.format(name=published, revision=None, clips=clips).replace('"trust_remote_code": True, ', "")
    answer = run_python(hub, tmp_path, "import hf_effvid\n" + code, with_package=True)
    assert_answers_as(answer, ReferenceLogits.load(reference_path(staged)))
    assert answer["module"] == "hf_effvid.models.modeling_video_focalnet"


def test_a_private_repository_is_missing_for_others(hub, published, tmp_path):
    code = """
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
try:
    HfApi().model_info("org/tiny")
    answer = "seen"
except RepositoryNotFoundError:
    answer = "missing"
"""
    assert run_python(hub, tmp_path, code, with_package=False, logged_in=False) == "missing"


def test_verify_a_repository(hub, published, tmp_path):
    code = """
from hf_effvid.hub.verify import verify_checkpoint
answer = [verify_checkpoint("org/tiny").to_dict(), verify_checkpoint("org/tiny", revision="v1").to_dict()]
"""
    for report in run_python(hub, tmp_path, code, with_package=True):
        assert report["ok"], json.dumps(report, indent=1)
        assert "logits equal the original's" in [check["name"] for check in report["checks"]]


def test_the_clients_other_calls(hub, published, staged, tmp_path):
    api = HfApi(endpoint=hub.endpoint)
    info = api.model_info(published, revision="v1")
    assert info.sha == hub.repository(published).tags["v1"]
    names = {path.name for path in staged.iterdir()}
    assert set(api.list_repo_files(published)) == names | {".gitattributes"}
    assert [commit.title for commit in api.list_repo_commits(published)][-1] == "initial commit"
    entry = api.get_paths_info(published, ["model.safetensors"])[0]
    assert entry.lfs.size == (staged / "model.safetensors").stat().st_size
    assert published in [model.id for model in api.list_models(author="org")]
    folder = api.snapshot_download(published, cache_dir=tmp_path)
    assert {n: open(os.path.join(folder, n), "rb").read() for n in names} == {
        p.name: p.read_bytes() for p in staged.iterdir()
    }
    part = api.get_safetensors_metadata(published)
    assert sum(part.parameter_count.values()) == sum(p.numel() for p in tiny_model().state_dict().values())


@pytest.fixture(scope="module")
def adapter(hub, published):
    model = tiny_model()
    lora = LoraConfig(
        r=2,
        target_modules=["projection_in", "projection_out"],
        modules_to_save=["classifier"],
        init_lora_weights=False,
    )
    names = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    lora.target_modules = names - {"classifier"}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return get_peft_model(model, lora).eval()


def test_a_peft_adapter_repository(hub, adapter, clips, tmp_path):
    with pytest.raises(StageError, match="Hub id of its base model"):
        stage_checkpoint(adapter, tmp_path / "nameless", tiny_processor())
    card = CardInfo(base_model="org/tiny", license="apache-2.0")
    folder = stage_checkpoint(adapter, tmp_path / "adapter", tiny_processor(), card=card, repo_id="org/adapter")
    names = {path.name for path in folder.iterdir() if path.suffix != ".py"}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md"} < names and "config.json" not in names
    assert (folder / "adapter_model.safetensors").stat().st_size < 100_000
    push_checkpoint(folder, "org/adapter", dry_run=False, endpoint=hub.endpoint)
    expected = reference_logits(adapter, (1, 4, 3, 32, 32))
    assert expected.logits != reference_logits(tiny_model(), (1, 4, 3, 32, 32)).logits
    code = STRANGER.format(name="org/adapter", revision=None, clips=clips)
    assert_answers_as(run_python(hub, tmp_path / "home", code, with_package=False), expected)


# what is fine-tuned and published anew by somebody without the package still opens by its task
DETECT = """
from transformers import pipeline
options = {{"trust_remote_code": True}} if {trust} else {{}}
detect = pipeline("temporal-action-detection", model={name!r}, **options)
answer = {{"found": detect({clips!r}, top_k=5, progress=False), "module": type(detect).__module__}}
if {publish!r}:
    detect.model.push_to_hub({publish!r})
    detect.video_processor.push_to_hub({publish!r})
"""


def test_a_stranger_detects_and_publishes_again(hub, clips, tmp_path):
    model, processor = pixel_detector()
    push_checkpoint(
        stage_checkpoint(model, tmp_path / "detector", processor, repo_id="org/detector"),
        "org/detector",
        dry_run=False,
        endpoint=hub.endpoint,
    )
    code = {"clips": clips, "trust": True}
    first = run_python(
        hub,
        tmp_path / "first",
        DETECT.format(name="org/detector", publish="org/again", **code),
        with_package=False,
    )
    second = run_python(
        hub, tmp_path / "second", DETECT.format(name="org/again", publish=None, **code), with_package=False
    )
    assert [len(found) for found in first["found"]] == [5, 5] and first["found"] == second["found"]
    assert {found["label"] for video in first["found"] for found in video} <= set(LABELS)
    assert first["module"].startswith("transformers_modules.org.detector.")
    # the package wins over remote code and needs no trust
    ours = "import hf_effvid\n" + DETECT.format(name="org/again", publish=None, clips=clips, trust=False)
    third = run_python(hub, tmp_path / "third", ours, with_package=True)
    assert third["found"] == first["found"]
    assert third["module"] == "hf_effvid.models.pipeline_temporal_action_detection"


PUBLISH_WITH_TRANSFORMERS = """
import torch
from tests.hub.tiny_checkpoint import tiny_model, tiny_processor
import hf_effvid
model, processor = tiny_model(), tiny_processor()
model.push_to_hub("org/plain")
processor.push_to_hub("org/plain")
answer = sorted(model.config.auto_map)
"""


def test_push_to_hub_of_transformers_is_self_contained(hub, staged, clips, tmp_path):
    auto_map = run_python(hub, tmp_path / "publisher", PUBLISH_WITH_TRANSFORMERS, with_package=True)
    assert {"AutoConfig", "AutoModelForVideoClassification"} <= set(auto_map)
    config = json.loads(hub.files("org/plain")["config.json"])
    assert {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"} <= set(config["auto_map"])
    code = STRANGER.format(name="org/plain", revision=None, clips=clips)
    answer = run_python(hub, tmp_path / "stranger", code, with_package=False)
    assert_answers_as(answer, ReferenceLogits.load(reference_path(staged)))


TRAIN_AND_PUSH = """
import torch
from tests.hub.tiny_checkpoint import tiny_model, tiny_processor
from tests.training.small_run import RandomClips
import transformers
from hf_effvid.training import ClassificationTask, EffVidTrainer, EffVidTrainingArguments

model = tiny_model()
fields = dict(output_dir="run", push_to_hub=True, hub_model_id={name!r}, hub_private_repo=True, max_steps=2, use_cpu=True,
              save_strategy="steps", save_steps=2, eval_strategy="no", report_to="none", remove_unused_columns=False, disable_tqdm=True,
              per_device_train_batch_size=2, dataloader_pin_memory=False)
clips = RandomClips(num_clips=4, num_classes=4, num_frames=4, size=32)
clips = [{{k: v for k, v in clips[i].items() if k != "index"}} for i in range(4)]
if {ours!r}:
    arguments = EffVidTrainingArguments(**fields)
    trainer = EffVidTrainer(ClassificationTask(model), args=arguments, train_dataset=clips, processing_class=tiny_processor())
else:
    arguments = transformers.TrainingArguments(**fields)
    trainer = transformers.Trainer(model, arguments, train_dataset=clips, processing_class=tiny_processor())
trainer.train()
trainer.push_to_hub()
import numpy as np
pixels = torch.from_numpy(np.random.default_rng(2026).standard_normal((1, 4, 3, 32, 32), dtype=np.float32))
with torch.no_grad():
    answer = model.eval()(pixel_values=pixels).logits.tolist()
"""


@pytest.mark.parametrize("ours", [True, False], ids=["EffVidTrainer", "transformers.Trainer"])
def test_a_trainer_that_pushes_is_self_contained(hub, clips, tmp_path, ours):
    name = f"org/trained-{'ours' if ours else 'stock'}"
    code = TRAIN_AND_PUSH.format(name=name, ours=ours)
    logits = run_python(hub, tmp_path / "publisher", code, with_package=True)
    files = hub.files(name)
    assert {"config.json", "model.safetensors", "video_preprocessor_config.json", "modeling_video_focalnet.py"} <= set(
        files
    )
    assert {"AutoConfig", "AutoModel", "AutoModelForVideoClassification"} <= set(
        json.loads(files["config.json"])["auto_map"]
    )
    answer = run_python(
        hub, tmp_path / "stranger", STRANGER.format(name=name, revision=None, clips=clips), with_package=False
    )
    assert_answers_as(answer, ReferenceLogits((1, 4, 3, 32, 32), 2026, logits))
