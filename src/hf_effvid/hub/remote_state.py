"""What a repository on the Hub holds at this moment, and whether a local file is the same."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from .stage_files import StagedFile


@dataclass
class RemoteState:
    """One branch of one repository.

    Attributes:
        exists: whether the repository exists (and may be seen); None when nobody could be asked.
        private: its visibility.
        commit: head of the branch, None when the branch does not exist.
        files: name -> (is it stored as a large file, its digest).
    """

    exists: bool | None = False
    private: bool | None = None
    commit: str | None = None
    files: dict[str, tuple[bool, str]] = field(default_factory=dict)


def read_remote(api: HfApi, repo_id: str, revision: str) -> RemoteState:
    """Looks a branch up; a missing repository or branch is an answer, not an error.

    Raises:
        HfHubHTTPError, OSError: the Hub cannot be reached, or refuses.
    """
    try:
        private = bool(api.repo_info(repo_id).private)
    except RepositoryNotFoundError:
        return RemoteState()
    try:
        commit = api.repo_info(repo_id, revision=revision).sha
    except RevisionNotFoundError:
        return RemoteState(exists=True, private=private)
    # listed at the commit, not at the branch: both halves of the state belong together
    entries = api.list_repo_tree(repo_id, revision=commit, recursive=True)
    files = {
        entry.path: (True, entry.lfs.sha256) if entry.lfs else (False, entry.blob_id)
        for entry in entries
        if isinstance(entry, RepoFile)
    }
    return RemoteState(True, private, commit, files)


def same_content(path: Path, file: StagedFile, known: tuple[bool, str]) -> bool:
    """Whether a local file equals a remote one: SHA-256 for large files, git's blob id for the others."""
    is_large, digest = known
    if is_large:
        return digest == file.sha256
    content = path.read_bytes()
    return digest == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
