"""Pushing to the test Hub, in this process: one commit, dry by default, safe to repeat and to interrupt."""

import json
import shutil

import pytest
from huggingface_hub import HfApi, constants
from safetensors.torch import load_file, save_file

from hf_effvid.hub.push import PushConflictError, PushError, push_checkpoint
from hf_effvid.hub.stage_files import StageError

from .server import TOKEN, Blob, HubServer


pytestmark = pytest.mark.hub


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time.sleep", lambda seconds: None
    )  # retries need no patience here
    with HubServer() as server:
        yield server


@pytest.fixture
def folder(staged, tmp_path):
    return shutil.copytree(staged, tmp_path / "checkpoint")


def change_weights(folder, factor=2.0):
    path = folder / "model.safetensors"
    weights = {name: tensor * factor for name, tensor in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def local_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def push(hub, folder, **options):
    return push_checkpoint(folder, "org/tiny", endpoint=hub.endpoint, **{"dry_run": False, **options})


def test_dry_run_is_the_default_and_sends_nothing(hub, folder):
    report = push_checkpoint(folder, "org/tiny", endpoint=hub.endpoint)
    assert report.dry_run and report.creates_repo and report.private and report.commit is None
    assert {change.action for change in report.changes} == {"add"}
    assert report.num_bytes == sum(map(len, local_files(folder).values()))
    assert hub.repositories == {} and all(method == "GET" for method, _ in hub.log)
    text = report.to_text()
    assert "dry run: nothing was sent" in text and "model.safetensors" in text and "new private repository" in text
    json.dumps(report.to_dict())


def test_dry_run_without_a_hub(folder):
    report = push_checkpoint(folder, "org/tiny", endpoint="http://127.0.0.1:9")
    text = report.to_text()
    assert "could not be looked at" in text and "what the Hub holds is not known" in text
    assert "new private" not in text and "at most" in text
    assert report.creates_repo is None and report.private is None and not report.is_noop
    with pytest.raises(PushError, match="could not be looked at"):
        push_checkpoint(folder, "org/tiny", dry_run=False, endpoint="http://127.0.0.1:9")


def test_one_commit_holds_everything(hub, folder):
    report = push(hub, folder)
    assert hub.files("org/tiny") == local_files(folder)
    repository = hub.repository("org/tiny")
    assert repository.private
    assert [commit.title for commit in repository.history("main")][1:] == ["initial commit"]
    assert report.commit == repository.branches["main"]
    assert hub.count("POST", "/commit/") == 1
    assert repository.resolve("main").files["model.safetensors"].is_large


def test_a_repeated_push_makes_no_commit(hub, folder):
    first = push(hub, folder)
    uploads = hub.count("PUT", "/storage/")
    second = push(hub, folder)
    assert second.is_noop and second.commit == first.commit
    assert hub.count("POST", "/commit/") == 1 and hub.count("PUT", "/storage/") == uploads
    assert {change.action for change in second.changes} == {"keep", "leave"}
    assert "already holds exactly this" in second.to_text()


def test_only_changes_are_sent(hub, folder):
    push(hub, folder)
    change_weights(folder)
    look = push(hub, folder, dry_run=True)
    assert [c.path for c in look.changes if c.action == "update"] == ["model.safetensors"]
    done = push(hub, folder, parent_commit=look.parent_commit)
    assert hub.files("org/tiny") == local_files(folder)
    assert len(hub.repository("org/tiny").history("main")) == 3
    assert done.parent_commit == look.parent_commit


def test_stale_files_of_ours_go_and_others_stay(hub, folder):
    push(hub, folder)
    repository = hub.repository("org/tiny")
    files = {
        **repository.resolve("main").files,
        "model-00001-of-00002.safetensors": Blob(b"old shard", True),
        "old_modeling.py": Blob(b"x = 1"),
        "demo.gif": Blob(b"GIF89a"),
    }
    repository.add_commit("main", "somebody added files", files)
    report = push(hub, folder)
    actions = {change.path: change.action for change in report.changes}
    assert actions["model-00001-of-00002.safetensors"] == actions["old_modeling.py"] == "delete"
    assert actions["demo.gif"] == actions[".gitattributes"] == "leave"
    assert hub.files("org/tiny") == {**local_files(folder), "demo.gif": b"GIF89a"}


def test_branch_and_tag(hub, folder):
    first = push(hub, folder, tag="v1")
    change_weights(folder)
    second = push(hub, folder, revision="experiment", tag="v2")
    repository = hub.repository("org/tiny")
    assert repository.branches == {"main": first.commit, "experiment": second.commit}
    assert repository.tags == {"v1": first.commit, "v2": second.commit}
    assert hub.files("org/tiny", "experiment") == local_files(folder) != hub.files("org/tiny", "v1")
    again = push(hub, folder, revision="experiment", tag="v2")
    assert again.is_noop and repository.tags["v2"] == second.commit
    change_weights(folder, 3.0)
    with pytest.raises(PushError, match="Tags are not moved"):
        push(hub, folder, tag="v1")


def test_a_conflicting_commit_is_not_overwritten(hub, folder):
    push(hub, folder)
    change_weights(folder)
    repository = hub.repository("org/tiny")
    theirs = {}

    def somebody_commits():
        hub.before_commit = None
        files = {**repository.resolve("main").files, "demo.gif": Blob(b"GIF89a")}
        theirs["commit"] = repository.add_commit("main", "in between", files).oid

    hub.before_commit = somebody_commits
    with pytest.raises(PushConflictError, match="newer commit"):
        push(hub, folder)
    assert repository.branches["main"] == theirs["commit"]
    assert push(hub, folder).parent_commit == theirs["commit"]
    assert hub.files("org/tiny")["demo.gif"] == b"GIF89a"


def test_a_dry_run_that_is_out_of_date_is_refused(hub, folder):
    push(hub, folder)
    look = push(hub, folder, dry_run=True)
    change_weights(folder)
    push(hub, folder)
    with pytest.raises(PushConflictError, match="look again"):
        push(hub, folder, parent_commit=look.parent_commit)


@pytest.mark.parametrize("step", ["upload", "commit"])
def test_a_push_that_dies_changes_nothing_and_can_be_repeated(hub, folder, step):
    before = push(hub, folder)
    published = hub.files("org/tiny")
    change_weights(folder)
    hub.drop = {step}
    with pytest.raises(PushError, match="The repository is unchanged; run the same"):
        push(hub, folder)
    assert hub.files("org/tiny") == published
    assert hub.repository("org/tiny").branches["main"] == before.commit
    hub.drop = set()
    uploads = hub.count("PUT", "/storage/")
    push(hub, folder)
    assert hub.files("org/tiny") == local_files(folder)
    assert len(hub.repository("org/tiny").history("main")) == 3
    # weights that had arrived before the push died are not sent again
    assert hub.count("PUT", "/storage/") - uploads == (1 if step == "upload" else 0)


def test_the_first_push_can_die_as_well(hub, folder):
    hub.drop = {"commit"}
    with pytest.raises(PushError, match="unchanged"):
        push(hub, folder)
    assert hub.files("org/tiny") == {}
    hub.drop = set()
    push(hub, folder)
    assert hub.files("org/tiny") == local_files(folder)


def test_a_lost_answer_is_no_failure(hub, folder):
    push(hub, folder)
    change_weights(folder)
    hub.drop = {"commit answer"}
    report = push(hub, folder)
    assert report.commit == hub.repository("org/tiny").branches["main"]
    assert len(hub.repository("org/tiny").history("main")) == 3


def test_existing_visibility_is_kept_and_said(hub, folder):
    HfApi(endpoint=hub.endpoint).create_repo("org/tiny", private=False)
    report = push(hub, folder)
    assert report.private is False and not hub.repository("org/tiny").private
    assert "it stays public" in report.to_text()


def test_public_on_request(hub, folder):
    push(hub, folder, private=False)
    assert not hub.repository("org/tiny").private


def test_strangers_are_told_to_log_in(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_somebody_else_entirely")
    with pytest.raises(PushError, match="hf auth login") as caught:
        push(hub, folder)
    assert "hf_somebody" not in str(caught.value) and hub.repositories == {}


def test_foreign_namespaces_are_refused(hub, folder):
    with pytest.raises(PushError, match="may not write"):
        push_checkpoint(folder, "stranger/tiny", dry_run=False, endpoint=hub.endpoint)


def test_what_is_not_publishable_never_leaves(hub, folder):
    (folder / "optimizer.pt").write_bytes(b"")
    with pytest.raises(StageError, match="optimizer"):
        push(hub, folder)
    (folder / "optimizer.pt").unlink()
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nTODO\n")
    with pytest.raises(StageError, match="TODO"):
        push(hub, folder)
    assert hub.log == []


@pytest.mark.parametrize("repo_id", ["tiny", "a/b/c", "../x", "org/na--me"])
def test_repository_names(hub, folder, repo_id):
    with pytest.raises((PushError, ValueError), match="org/name"):
        push_checkpoint(folder, repo_id, endpoint=hub.endpoint)


def test_the_card_names_its_repository(hub, folder):
    assert any(
        "stage again with repo_id='org/tiny'" in warning for warning in push(hub, folder, dry_run=True).warnings
    )


def test_tokens_are_not_logged(hub, folder, caplog, capfd):
    with caplog.at_level("DEBUG"):
        text = push(hub, folder).to_text()
    out = capfd.readouterr()
    assert TOKEN not in text + caplog.text + out.out + out.err
