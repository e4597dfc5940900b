"""A Hub for tests: the endpoints that huggingface_hub and transformers really call, in memory, on localhost.

It behaves like huggingface.co where clients notice: a commit is atomic and checks its parent, large files go through the
LFS batch protocol and are served from *another host name* (127.0.0.1 redirects to localhost), private repositories
look missing to strangers, every answer that concerns a file carries the commit. It is no Hub: no pull requests, no
squashing, no xet.
"""

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml


TOKEN = "hf_test_token_of_the_owner"
OWNER = "org"
_LARGE = re.compile(r".*\.(safetensors|bin|pt|mp4|parquet)$")


def git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Blob:
    """A file: its content, and whether it lives in large-file storage."""

    data: bytes
    is_large: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def blob_id(self) -> str:
        if not self.is_large:
            return git_blob_id(self.data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return git_blob_id(pointer.encode())

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.blob_id


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    files: dict
    date: str


@dataclass
class Repository:
    kind: str
    name: str
    private: bool
    commits: dict = field(default_factory=dict)
    branches: dict = field(default_factory=dict)
    tags: dict = field(default_factory=dict)

    def add_commit(self, branch: str, title: str, files: dict) -> Commit:
        parent = self.branches.get(branch)
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        content = json.dumps([parent, title, sorted((p, b.etag) for p, b in files.items()), len(self.commits)])
        commit = Commit(hashlib.sha1(content.encode()).hexdigest(), parent, title, dict(files), date)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit

    def resolve(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return self.commits.get(oid)

    def history(self, revision: str) -> list[Commit]:
        commits, commit = [], self.resolve(revision)
        while commit is not None:
            commits.append(commit)
            commit = self.commits.get(commit.parent)
        return commits


class Refusal(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class HubServer:
    """The server and everything it stores. Use as a context manager.

    Attributes:
        repositories: (kind, "org/name") -> Repository; kind is "models" or "datasets".
        large_files: sha256 -> content.
        log: every request as (method, path), in order.
        drop: set of the steps at which the server closes the connection without an answer: "commit" (before it takes
            effect), "commit answer" (after), "upload" (after half the bytes of a large file).
    """

    def __init__(self):
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large_files: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.drop: set[str] = set()
        self.before_commit = None
        self.lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self._http.shutdown()
        self._http.server_close()

    def repository(self, name: str, kind: str = "models") -> Repository:
        return self.repositories[(kind, name)]

    def files(self, name: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        """Name -> content at a revision, without the Hub's own .gitattributes."""
        commit = self.repository(name, kind).resolve(revision)
        return {path: blob.data for path, blob in commit.files.items() if path != ".gitattributes"}

    def count(self, method: str, pattern: str) -> int:
        return sum(m == method and re.search(pattern, path) is not None for m, path in self.log)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *arguments):
        pass

    # ---- plumbing ---------------------------------------------------------------------------------------------------

    def _serve(self):
        parts = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        path = unquote(parts.path)
        self.body = None
        try:
            if not path.startswith("/storage/"):
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with self.hub.lock:
                self.hub.log.append((self.command, path))
            for methods, pattern, action in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in methods.split("|"):
                    action(self, **match.groupdict())
                    return
            raise Refusal(404, f"no such endpoint: {self.command} {path}")
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            self._send(refusal.status, {"error": refusal.message}, {**headers, "X-Error-Message": refusal.message})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _send(self, status: int, content=b"", headers=None):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _hang_up(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _json(self) -> dict:
        return json.loads(self.body or b"{}")

    @property
    def _is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _find(self, kind: str | None, name: str) -> Repository:
        repository = self.hub.repositories.get(((kind or "models").rstrip("/"), name))
        if repository is None or (repository.private and not self._is_owner):
            raise Refusal(401 if not self._is_owner else 404, "Repository not found", "RepoNotFound")
        return repository

    def _find_commit(self, kind, name, revision) -> tuple[Repository, Commit]:
        repository = self._find(kind, name)
        commit = repository.resolve(revision or "main")
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return repository, commit

    def _require_owner(self):
        if not self._is_owner:
            raise Refusal(401, "Invalid credentials in Authorization header")

    # ---- accounts and repositories ----------------------------------------------------------------------------------

    def whoami(self):
        self._require_owner()
        role = {"accessToken": {"displayName": "test", "role": "write"}}
        self._send(200, {"type": "user", "name": OWNER, "fullname": OWNER, "orgs": [], "auth": role})

    def create_repository(self):
        self._require_owner()
        request = self._json()
        kind = f"{request.get('type') or 'model'}s"
        name = f"{request.get('organization') or OWNER}/{request['name']}"
        if not name.startswith(f"{OWNER}/"):
            raise Refusal(403, f"You don't have the rights to create a {kind[:-1]} under this namespace")
        url = f"{self.hub.endpoint}/{name}"
        with self.hub.lock:
            if (kind, name) in self.hub.repositories:
                self._send(409, {"error": "You already created this repo", "url": url})
                return
            private = bool(request.get("private")) or request.get("visibility") == "private"
            repository = Repository(kind, name, private)
            repository.add_commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n")})
            self.hub.repositories[(kind, name)] = repository
        self._send(200, {"url": url, "name": name, "id": name})

    def validate_yaml(self):
        match = re.match(r"---\n(.*?)\n---", self._json()["content"], re.S)
        try:
            valid = match is None or isinstance(yaml.safe_load(match.group(1)), dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "invalid front matter"}]
        self._send(200 if valid else 400, {"errors": errors, "warnings": []})

    def info(self, kind, name, revision=None):
        repository, commit = self._find_commit(kind, name, revision)
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        document = {
            "_id": "0" * 24,
            "id": name,
            "modelId": name,
            "author": name.split("/")[0],
            "sha": commit.oid,
            "private": repository.private,
            "lastModified": commit.date,
            "createdAt": commit.date,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
        }
        if "config.json" in commit.files:
            document["config"] = json.loads(commit.files["config.json"].data)
        self._send(200, document)

    def list_repositories(self, kind):
        mine = [r for (k, _), r in self.hub.repositories.items() if k == kind and (self._is_owner or not r.private)]
        author = self.query.get("author")
        mine = [r for r in mine if author in (None, r.name.split("/")[0])]
        self._send(200, [{"_id": "0" * 24, "id": r.name, "modelId": r.name, "private": r.private} for r in mine])

    # ---- reading ----------------------------------------------------------------------------------------------------

    def tree(self, kind, name, revision, folder=""):
        _, commit = self._find_commit(kind, name, revision)
        folder = (folder or "").strip("/")
        prefix = f"{folder}/" if folder else ""
        recursive = self.query.get("recursive", "").lower() in ("true", "1")
        entries, folders = [], set()
        for path, blob in sorted(commit.files.items()):
            if not path.startswith(prefix):
                continue
            rest = path[len(prefix) :]
            if "/" in rest:
                folders.add(prefix + rest.split("/")[0])
            if recursive or "/" not in rest:
                entries.append(_file_entry(path, blob))
        entries += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]
        if prefix and not entries:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        self._send(200, entries)

    def paths_info(self, kind, name, revision):
        _, commit = self._find_commit(kind, name, revision)
        text = self.body.decode()
        paths = self._json()["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
        self._send(200, [_file_entry(path, commit.files[path]) for path in paths if path in commit.files])

    def refs(self, kind, name):
        repository = self._find(kind, name)

        def listed(refs, folder):
            return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": oid} for n, oid in sorted(refs.items())]

        branches, tags = listed(repository.branches, "heads"), listed(repository.tags, "tags")
        self._send(200, {"branches": branches, "converts": [], "tags": tags})

    def commits(self, kind, name, revision):
        repository, _ = self._find_commit(kind, name, revision)
        self._send(
            200,
            [
                {"id": c.oid, "title": c.title, "message": "", "date": c.date, "authors": [{"user": OWNER}]}
                for c in repository.history(revision)
            ],
        )

    def resolve(self, kind, name, revision, file):
        _, commit = self._find_commit(kind, name, revision)
        headers = {"X-Repo-Commit": commit.oid}
        blob = commit.files.get(file)
        if blob is None:
            self._send(
                404,
                b"Entry not found",
                {**headers, "X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"},
            )
            return
        headers["ETag"] = f'"{blob.etag}"'
        if blob.is_large:
            storage = f"http://localhost:{self.hub.port}/storage/{blob.sha256}"
            linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data)), "Location": storage}
            self._send(302, b"", {**headers, **linked})
            return
        self._send(200, blob.data, headers)

    def download(self, oid):
        data = self.hub.large_files.get(oid)
        if data is None:
            raise Refusal(404, "no such object")
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            first, last = int(span[1]), int(span[2] or len(data) - 1)
            part = data[first : last + 1]
            self._send(206, part, {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"})
            return
        self._send(200, data)

    # ---- writing ----------------------------------------------------------------------------------------------------

    def preupload(self, kind, name, revision):
        self._require_owner()
        _, commit = self._find_commit(kind, name, revision)
        answer = []
        for file in self._json()["files"]:
            known = commit.files.get(file["path"])
            mode = "lfs" if _LARGE.fullmatch(file["path"]) else "regular"
            entry = {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
            answer.append({**entry, "oid": known.etag if known else None})
        self._send(200, {"files": answer, "commitOid": commit.oid})

    def lfs_batch(self, kind, name):
        self._require_owner()
        self._find(kind, name)
        objects = []
        for item in self._json()["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.large_files:
                upload = {"href": f"{self.hub.endpoint}/storage/{item['oid']}", "header": {}}
                verify = {"href": f"{self.hub.endpoint}/verify/{item['oid']}", "header": {}}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        self._send(200, {"transfer": "basic", "objects": objects})

    def upload(self, oid):
        length = int(self.headers["Content-Length"])
        if "upload" in self.hub.drop:
            self.rfile.read(length // 2)
            self._hang_up()
            return
        data = self.rfile.read(length)
        if hashlib.sha256(data).hexdigest() != oid:
            raise Refusal(400, "content does not match its digest")
        self.hub.large_files[oid] = data
        self._send(200)

    def verify_upload(self, oid):
        self._require_owner()
        stored = self.hub.large_files.get(oid)
        if stored is None or len(stored) != self._json()["size"]:
            raise Refusal(404, "object was not uploaded")
        self._send(200, {})

    def commit(self, kind, name, revision):
        self._require_owner()
        if self.hub.before_commit is not None:
            self.hub.before_commit()
        if "commit" in self.hub.drop:
            self._hang_up()
            return
        with self.hub.lock:
            repository = self._find(kind, name)
            if revision not in repository.branches:
                raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
            lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
            header = next(line["value"] for line in lines if line["key"] == "header")
            if header.get("parentCommit") not in (None, repository.branches[revision]):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            files = dict(repository.resolve(revision).files)
            for line in lines:
                _apply(line["key"], line["value"], files, self.hub.large_files)
            commit = repository.add_commit(revision, header["summary"], files)
        if "commit answer" in self.hub.drop:
            self._hang_up()
            return
        url = f"{self.hub.endpoint}/{name}/commit/{commit.oid}"
        self._send(200, {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""})

    def create_branch(self, kind, name, branch):
        self._require_owner()
        repository, start = self._find_commit(kind, name, self._json().get("startingPoint"))
        if branch in repository.branches:
            raise Refusal(409, "Reference already exists")
        repository.branches[branch] = start.oid
        self._send(200, {})

    def delete_branch(self, kind, name, branch):
        self._require_owner()
        self._find(kind, name).branches.pop(branch)
        self._send(200, {})

    def create_tag(self, kind, name, revision):
        self._require_owner()
        repository, commit = self._find_commit(kind, name, revision)
        tag = self._json()["tag"]
        if tag in repository.tags:
            raise Refusal(409, "Tag reference exists already")
        repository.tags[tag] = commit.oid
        self._send(200, {})


def _file_entry(path: str, blob: Blob) -> dict:
    entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.blob_id}
    if blob.is_large:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
    return entry


def _apply(key: str, value: dict, files: dict, large_files: dict) -> None:
    if key == "file":
        files[value["path"]] = Blob(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in large_files:
            raise Refusal(422, f"{value['path']} was not uploaded")
        files[value["path"]] = Blob(large_files[value["oid"]], is_large=True)
    elif key == "deletedFile":
        files.pop(value["path"])
    elif key == "deletedFolder":
        for path in [path for path in files if path.startswith(value["path"].rstrip("/") + "/")]:
            files.pop(path)
    elif key != "header":
        raise Refusal(400, f"unknown operation {key}")


_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>.+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("POST", r"/api/repos/create", _Handler.create_repository),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("GET", r"/api/(?P<kind>models|datasets)", _Handler.list_repositories),
    ("GET", rf"{_API}", _Handler.info),
    ("GET", rf"{_API}/revision/{_REVISION}", _Handler.info),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(/(?P<folder>.*))?", _Handler.tree),
    ("POST", rf"{_API}/paths-info/{_REVISION}", _Handler.paths_info),
    ("GET", rf"{_API}/refs", _Handler.refs),
    ("GET", rf"{_API}/commits/{_REVISION}", _Handler.commits),
    ("POST", rf"{_API}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", rf"{_API}/commit/{_REVISION}", _Handler.commit),
    ("POST", rf"{_API}/branch/(?P<branch>.+)", _Handler.create_branch),
    ("DELETE", rf"{_API}/branch/(?P<branch>.+)", _Handler.delete_branch),
    ("POST", rf"{_API}/tag/{_REVISION}", _Handler.create_tag),
    ("POST", r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+?)\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("PUT", r"/storage/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    ("GET|HEAD", r"/storage/(?P<oid>[0-9a-f]{64})", _Handler.download),
    ("POST", r"/verify/(?P<oid>[0-9a-f]{64})", _Handler.verify_upload),
    (
        "GET|HEAD",
        r"/(?P<kind>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)",
        _Handler.resolve,
    ),
]
