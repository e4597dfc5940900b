"""Show what publishing a metric as a Space would send; with --push, publish it.

The Space is the metric's module as `evaluate.load("org/detection_map")` finds it, and a page to try it on. Nothing is sent, and nothing
is asked of the Hub, without --push. Log in first with `hf auth login`.

    python upload_scripts/upload_metric.py detection_map org/detection_map
    python upload_scripts/upload_metric.py detection_map org/detection_map --push --requirement "hf_effvid @ git+https://..."
"""

import argparse
import re
import sys
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from hf_effvid.evaluation.metrics import metric_path


SPACE_FILES = ("README.md", "app.py", "requirements.txt")
PACKAGE = "hf_effvid"


def space_files(name: str, requirement: str | None = None) -> dict[str, bytes]:
    """The files of a metric's Space.

    Args:
        name: of the metric.
        requirement: how pip installs this package there; default: by name.

    Raises:
        ValueError: there is no such metric, or it has no page.
    """
    folder = Path(metric_path(name))
    missing = [file for file in SPACE_FILES if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"the metric {name!r} is no Space yet: {folder} holds no {', '.join(missing)}.")
    files = {file: (folder / file).read_bytes() for file in (f"{name}.py", *SPACE_FILES)}
    if requirement is not None:
        if "\n" in requirement or not re.match(rf"{PACKAGE}\b", requirement):
            raise ValueError(f"expected one requirement that begins with {PACKAGE}, got {requirement!r}.")
        lines = files["requirements.txt"].decode().splitlines()
        files["requirements.txt"] = "\n".join([*(line for line in lines if line != PACKAGE), requirement, ""]).encode()
    return files


def upload_metric(
    name: str, repo_id: str, *, requirement=None, publish=False, private=True, stage=None, api=None
) -> str:
    """Show the Space of a metric, or publish it in one commit; what is told about it.

    Args:
        name: of the metric.
        repo_id: `"org/name"`; `evaluate` wants the name of the metric there.
        requirement: see `space_files`.
        publish: push for real.
        private: visibility of a new Space.
        stage: folder to write the files to as well.
        api: an `HfApi`.

    Raises:
        ValueError: `evaluate` would not find the module under that name, or the metric is no Space.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id) or repo_id.split("/")[1] != name:
        raise ValueError(f"evaluate loads org/{name} from the file {name}.py: call the Space so, got {repo_id!r}.")
    files = space_files(name, requirement)
    lines = [f"Space {repo_id} ({'private' if private else 'public'} if it is new)"]
    lines += [f"  {file}  {len(content)} bytes" for file, content in files.items()]
    if stage is not None:
        Path(stage).mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            Path(stage, file).write_bytes(content)
        lines.append(f"written to {stage}")
    if not publish:
        return "\n".join([*lines, "dry run: nothing was sent; --push publishes"])
    api = api or HfApi()
    api.create_repo(repo_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    commit = api.create_commit(
        repo_id,
        [CommitOperationAdd(file, content) for file, content in files.items()],
        commit_message=f"{name} of {PACKAGE}",
        repo_type="space",
    )
    return "\n".join([*lines, f"published: {commit.commit_url}"])


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="detection_map")
    parser.add_argument("repo_id", help="org/name")
    parser.add_argument("--requirement", help=f"how pip installs {PACKAGE} in the Space; default: by name")
    parser.add_argument("--stage", type=Path, help="write the Space's files to this folder")
    parser.add_argument("--public", action="store_true", help="a new Space is public; default: private")
    parser.add_argument("--push", action="store_true", help="publish; without it nothing is sent")
    options = parser.parse_args(arguments)
    try:
        told = upload_metric(
            options.name,
            options.repo_id,
            requirement=options.requirement,
            publish=options.push,
            private=not options.public,
            stage=options.stage,
        )
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main())
