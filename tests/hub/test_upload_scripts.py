import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .interpreter import run_python
from .server import HubServer


SCRIPTS = Path(__file__).resolve().parents[2] / "upload_scripts"


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["upload_model.py", "upload_all.py", "verify_upload.py"])
def test_help(name):
    done = subprocess.run([sys.executable, str(SCRIPTS / name), "--help"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "usage:" in done.stdout and "python upload_scripts/" in done.stdout


def test_the_manifest_is_valid(scripts):
    import upload_all

    organization, entries = upload_all.read_manifest(upload_all.MANIFEST)
    assert organization
    for entry in entries:
        assert (SCRIPTS.parent / "model_cards" / f"{entry['name']}.md").is_file()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"checkpoints": []}, "organization"),
        ({"organization": "org", "checkpoints": [{"name": "a"}]}, "checkpoint 0"),
        ({"organization": "org", "checkpoints": [{"name": "a", "checkpoint": "x", "pubilc": True}]}, "pubilc"),
        ({"organization": "org", "checkpoints": [{"name": "a", "checkpoint": "x"}] * 2}, "more than once"),
        (
            {"organization": "org", "checkpoints": [{"name": "a", "checkpoint": "x", "card": {"licence": "mit"}}]},
            "licence",
        ),
    ],
)
def test_a_broken_manifest_says_where(scripts, tmp_path, document, message):
    import upload_all

    (tmp_path / "m.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match=message):
        upload_all.read_manifest(tmp_path / "m.yaml")


RUN_ALL = """
import sys
sys.path.insert(0, {scripts!r})
import upload_all
answer = upload_all.main({arguments!r})
"""


@pytest.mark.hub
@pytest.mark.timeout(1800)
def test_a_manifest_is_published_only_on_request_and_what_fails_stays(staged, tmp_path):
    entries = [
        {"name": "tiny", "checkpoint": str(staged), "card": {"license": "apache-2.0"}, "tag": "v1"},
        {"name": "broken", "checkpoint": str(tmp_path / "no-such-folder")},
    ]
    manifest = tmp_path / "checkpoints.yaml"
    manifest.write_text(yaml.safe_dump({"organization": "org", "checkpoints": entries}))
    arguments = ["--manifest", str(manifest), "--stage", str(tmp_path / "staged")]
    with HubServer() as hub:
        code = RUN_ALL.format(scripts=str(SCRIPTS), arguments=[*arguments, "--only", "tiny"])
        assert run_python(hub, tmp_path / "dry", code, with_package=True) == 0
        assert hub.repositories == {}
        code = RUN_ALL.format(scripts=str(SCRIPTS), arguments=[*arguments, "--push"])
        assert run_python(hub, tmp_path / "push", code, with_package=True) == 1  # one of the two failed
        assert set(hub.repositories) == {("models", "org/tiny")}
        assert hub.repository("org/tiny").private and "v1" in hub.repository("org/tiny").tags
        assert b'"org/tiny"' in hub.files("org/tiny")["README.md"]
