"""Publishes a staged folder as one commit: all of it or nothing, and nothing that was not shown first."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HTTPError,  # of whichever HTTP library huggingface_hub uses: what a connection that fails raises
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .card_check import card_problems
from .card_info import check_hub_id
from .remote_state import RemoteState, read_remote, same_content
from .stage_files import StagedFile, StageError, file_kind, list_staged_files


class PushError(OSError):
    """Nothing was published; the message says why and what to do."""


class PushConflictError(PushError):
    """Somebody committed to the repository in the meantime."""


@dataclass(frozen=True)
class FileChange:
    """What a push does to one file.

    Attributes:
        path: name in the repository.
        action: `"add"`, `"update"`, `"keep"` (already there, identical), `"delete"` (ours, and stale) or `"leave"` (not ours).
        size: bytes of the local file; None for files that are only in the repository.
    """

    path: str
    action: str
    size: int | None = None


@dataclass
class PushReport:
    """What a push did, or in a dry run would do.

    Attributes:
        repo_id: the repository.
        revision: the branch.
        dry_run: whether this was only a look.
        private: whether the repository is, or will be, private; None when it could not be looked up.
        creates_repo: whether the repository did not exist; None when it could not be looked up.
        parent_commit: the commit the push builds on, None for a new repository.
        commit: the commit that holds the files now; None in a dry run.
        changes: one entry per file.
        tag: the tag that was set.
        warnings: what to know before, or after, publishing.
        url: where to look at it.
    """

    repo_id: str
    revision: str
    dry_run: bool
    private: bool | None
    creates_repo: bool | None
    parent_commit: str | None
    commit: str | None = None
    changes: list[FileChange] = field(default_factory=list)
    tag: str | None = None
    warnings: list[str] = field(default_factory=list)
    url: str = ""

    @property
    def is_noop(self) -> bool:
        """Whether the repository already holds exactly this."""
        return not any(change.action in ("add", "update", "delete") for change in self.changes)

    @property
    def num_bytes(self) -> int:
        """Bytes of the files that are added or updated."""
        return sum(change.size for change in self.changes if change.action in ("add", "update"))

    def to_dict(self) -> dict:
        """JSON-ready."""
        return {**asdict(self), "is_noop": self.is_noop, "num_bytes": self.num_bytes}

    def to_text(self) -> str:
        """The file list with sizes, and what comes of it."""
        kind = {True: "private", False: "public", None: "visibility unknown"}[self.private]
        kind = f"new {kind}" if self.creates_repo else kind
        known = "what the Hub holds is not known" if self.creates_repo is None else f"{kind} repository"
        lines = [f"{self.url} ({known}), branch {self.revision}"]
        for change in self.changes:
            size = "" if change.size is None else f"{change.size:>14,} bytes"
            lines.append(f"  {change.action:<7}{change.path:<44}{size}")
        lines += [f"  note: {warning}" for warning in self.warnings]
        if self.dry_run:
            most = "at most " if self.creates_repo is None else ""
            lines.append(
                f"dry run: nothing was sent; {most}{self.num_bytes:,} bytes would be. Publish with dry_run=False (effvid push --really, upload_model.py --push)."
            )
        elif self.is_noop:
            lines.append(f"the repository already holds exactly this, commit {self.commit}")
        else:
            lines.append(f"published as commit {self.commit}")
        return "\n".join([*lines, *([f"tag {self.tag}"] if self.tag and not self.dry_run else [])])


def push_checkpoint(
    folder: str | os.PathLike,
    repo_id: str,
    dry_run: bool = True,
    private: bool = True,
    *,
    revision: str | None = None,
    tag: str | None = None,
    commit_message: str | None = None,
    parent_commit: str | None = None,
    endpoint: str | None = None,
) -> PushReport:
    """Publishes a staged checkpoint on the Hub, in one commit. By default only shows what would happen.

    The folder is checked first (`list_staged_files`). Files that are already there are not sent again, files of an older
    checkpoint that this one does not have (shards, code) are deleted in the same commit, files that staging could not have
    written are left alone. The commit names its parent, so that it fails rather than overwrite somebody else's. A push
    that was cut off leaves the repository as it was; the same call again goes on (uploaded weights are not sent twice),
    and a push without changes makes no commit.

    Credentials are huggingface_hub's business (`hf auth login`, or `HF_TOKEN`); this function never sees them.

    Args:
        folder: what `stage_checkpoint` wrote.
        repo_id: `"org/name"`.
        dry_run: look, compare and report, but send nothing.
        private: visibility of a repository that has to be created; an existing one keeps its own.
        revision: branch, default `main`; created from `main` when missing.
        tag: tag to put on the commit.
        commit_message: first line of the commit.
        parent_commit: the commit a dry run reported; refuse to build on any other.
        endpoint: another Hub than huggingface_hub's own setting.

    Returns:
        What was, or would be, done.

    Raises:
        StageError: the folder is not publishable.
        PushConflictError: somebody committed in the meantime.
        PushError: the Hub refused or could not be reached; the repository is unchanged.
    """
    folder, revision = Path(folder), revision or "main"
    files = list_staged_files(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    problems = card_problems(card)
    if problems:
        raise StageError("\n".join([f"{folder}: the model card is not publishable:", *(f"  - {p}" for p in problems)]))
    if "/" not in check_hub_id(repo_id):
        raise PushError(f"expected 'org/name', got {repo_id!r}: say whose repository it is.")
    api = HfApi(endpoint=endpoint, library_name="hf_effvid")
    remote, note = _look(api, repo_id, revision, dry_run)
    report = PushReport(
        repo_id=repo_id,
        revision=revision,
        dry_run=dry_run,
        private=private if remote.exists is False else remote.private,
        creates_repo=None if remote.exists is None else not remote.exists,
        parent_commit=remote.commit,
        changes=compare(folder, files, remote),
        tag=tag,
        warnings=[*note, *_warnings(remote, private, card, repo_id)],
        url=f"{api.endpoint}/{repo_id}",
    )
    if parent_commit is not None and parent_commit != remote.commit:
        raise PushConflictError(
            f"{repo_id} is at {remote.commit}, not at {parent_commit} any more: look again (dry run)."
        )
    if not dry_run:
        _publish(api, folder, files, report, private, commit_message or f"Upload {folder.name} with hf_effvid")
    return report


def compare(folder: Path, files: list[StagedFile], remote: RemoteState) -> list[FileChange]:
    """What has to change for the repository to hold the files, sorted by name."""
    changes = []
    for file in files:
        known = remote.files.get(file.path)
        if known is None:
            action = "add"
        else:
            action = "keep" if same_content(folder / file.path, file, known) else "update"
        changes.append(FileChange(file.path, action, file.size))
    local = {file.path for file in files}
    for path in remote.files:
        if path not in local:
            # a stale shard or a stale single file would be loaded instead of the new weights
            changes.append(FileChange(path, "delete" if file_kind(path) else "leave"))
    return sorted(changes, key=lambda change: change.path)


def _look(api: HfApi, repo_id: str, revision: str, dry_run: bool) -> tuple[RemoteState, list[str]]:
    try:
        return read_remote(api, repo_id, revision), []
    except (HTTPError, OSError) as error:
        if not dry_run:
            raise PushError(f"{repo_id} could not be looked at: {error}") from error
        return RemoteState(exists=None), [
            f"the repository could not be looked at ({type(error).__name__}): every file is shown as if it were new"
        ]


def _warnings(remote: RemoteState, private: bool, card: str, repo_id: str) -> list[str]:
    warnings = []
    if remote.exists and private and remote.private is False:
        warnings.append("the repository exists and is public; it stays public")
    if remote.exists and not private and remote.private:
        warnings.append("the repository exists and is private; it stays private")
    if f'"{repo_id}"' not in card:
        warnings.append(f"the card's examples do not name {repo_id}; stage again with repo_id={repo_id!r}")
    return warnings


def _publish(
    api: HfApi, folder: Path, files: list[StagedFile], report: PushReport, private: bool, message: str
) -> None:
    """Sends the changes of the report; on return `report.commit` holds them."""
    try:
        if report.creates_repo:
            api.create_repo(report.repo_id, private=private, exist_ok=False)
            # the Hub begins a repository with a commit of its own
            start = read_remote(api, report.repo_id, "main")
            report.parent_commit, report.changes = start.commit, compare(folder, files, start)
        if report.parent_commit is None:
            api.create_branch(report.repo_id, branch=report.revision, exist_ok=True)
            state = read_remote(api, report.repo_id, report.revision)
            report.parent_commit, report.changes = state.commit, compare(folder, files, state)
        report.commit = report.parent_commit if report.is_noop else _commit(api, folder, files, report, message)
        if report.tag is not None:
            _set_tag(api, report)
    except (LocalTokenNotFoundError, HTTPError) as error:
        raise _explain(error, report) from error


def _commit(api: HfApi, folder: Path, files: list[StagedFile], report: PushReport, message: str) -> str:
    operations = [
        CommitOperationAdd(path_in_repo=change.path, path_or_fileobj=str(folder / change.path))
        for change in report.changes
        if change.action in ("add", "update")
    ]
    operations += [CommitOperationDelete(change.path) for change in report.changes if change.action == "delete"]
    try:
        return api.create_commit(
            report.repo_id,
            operations,
            commit_message=message,
            revision=report.revision,
            parent_commit=report.parent_commit,
        ).oid
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code == 412:
            raise PushConflictError(
                f"{report.repo_id} has a newer commit than {report.parent_commit}: somebody committed while this push was "
                "running. Nothing was published; look at the change, then push again."
            ) from error
        raise
    except Exception as error:  # a connection that breaks shows as errors of several libraries
        landed = _landed(api, folder, files, report)
        if landed is not None:
            return landed
        raise PushError(
            f"the connection broke while publishing {report.repo_id} ({error}). The repository is unchanged; run the same "
            "command again, finished uploads are not repeated."
        ) from error


def _landed(api: HfApi, folder: Path, files: list[StagedFile], report: PushReport) -> str | None:
    """The head, when it holds everything: the answer to a commit can get lost after the commit was made."""
    try:
        state = read_remote(api, report.repo_id, report.revision)
    except (HTTPError, OSError):
        return None
    changes = compare(folder, files, state)
    done = all(change.action in ("keep", "leave") for change in changes)
    return state.commit if done and state.commit != report.parent_commit else None


def _set_tag(api: HfApi, report: PushReport) -> None:
    existing = {tag.name: tag.target_commit for tag in api.list_repo_refs(report.repo_id).tags}
    if existing.get(report.tag) == report.commit:
        return
    if report.tag in existing:
        raise PushError(
            f"commit {report.commit} is published, but tag {report.tag!r} already marks {existing[report.tag]}. "
            "Tags are not moved; choose another name."
        )
    api.create_tag(report.repo_id, tag=report.tag, revision=report.commit)


def _explain(error: Exception, report: PushReport) -> PushError:
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else None
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return PushError(
            f"the Hub does not know who you are: run `hf auth login` (or set HF_TOKEN), then push again. ({error})"
        )
    if status == 403:
        return PushError(f"your account may not write to {report.repo_id}: {error}")
    if isinstance(error, (RepositoryNotFoundError, RevisionNotFoundError)):
        return PushError(
            f"{report.repo_id} ({report.revision}) was not found; it may have been renamed or deleted: {error}"
        )
    if status is None:
        return PushError(f"the connection broke before anything was published ({error}): run the same command again.")
    return PushError(f"the Hub refused the push to {report.repo_id}: {error}")
