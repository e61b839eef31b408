"""A hub on this machine: what huggingface_hub asks of one when it sends, looks at and fetches a model repository.

Repositories live in memory. A branch is a list of commits, newest last; a commit has all its files. Files that end in
``.safetensors`` are large ones: they are stored by their SHA-256 before a commit names them, as the real hub does.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from lightning_m2pt.system.hub_download import OFFLINE_VARIABLES

TOKEN = "hf_" + "t" * 34
LARGE = ".safetensors"
FIRST_FILES = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


def git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class StoredRepository:
    """A repository: commits by their id, the newest of every branch, and whether others may see it."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, branch: str, files: dict[str, bytes]) -> str:
        commit = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def files(self, revision: str) -> dict[str, bytes] | None:
        return self.commits.get(self.branches.get(revision, revision))


@dataclass
class Fault:
    """What happens to the next requests of a kind: a status, or nothing at all."""

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


class StandInHub:
    """A hub's repositories and what it was asked, with the faults that a test wants."""

    def __init__(self) -> None:
        self.repositories: dict[str, StoredRepository] = {}
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.ended = threading.Event()
        self.owners = {"someone"}
        self.licences = {"apache-2.0", "mit", "other"}
        self.url = ""

    def sent(self, method: str, part: str) -> int:
        """How many requests of a method had this in their path."""
        return sum(method == asked and part in path for asked, path in self.asked)

    def fault_of(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and fault.path in path:
                fault.times -= 1
                return fault
        return None


class Handler(BaseHTTPRequestHandler):
    """Answers one connection; the hub is the server's."""

    protocol_version = "HTTP/1.1"
    server: "StandInServer"

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: standard error is compared in tests."""

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, parts = self.server.hub, urlsplit(self.path)
        path = unquote(parts.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self.chunks()
        hub.asked.append((self.command, path))
        if (fault := hub.fault_of(self.command, path)) is not None:
            if not fault.status:
                hub.ended.wait(60)  # the client's patience ends first
                self.close_connection = True
                return
            self.reply(fault.status, {"error": "a planted fault"}, fault.headers)
            return
        for method, pattern, answer in ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                answer(self, hub, body, parse_qs(parts.query), *match.groups())
                return
        self.reply(404, {"error": f"the stand-in knows no {self.command} {path}"})

    def chunks(self) -> bytes:
        content = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return content

    def reply(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def may_write(self, owner: str) -> bool:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return False
        if owner not in self.server.hub.owners:
            self.reply(403, {}, {"X-Error-Message": "You don't have the rights"})
            return False
        return True

    def repository(self, name: str) -> StoredRepository | None:
        found = self.server.hub.repositories.get(name)
        is_mine = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if found is None or (found.private and not is_mine):
            self.reply(404 if is_mine else 401, {}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found


def create(request: Handler, hub: StandInHub, body: bytes, query: dict) -> None:
    wanted = json.loads(body)
    name = f"{wanted['organization']}/{wanted['name']}"
    if not request.may_write(wanted["organization"]):
        return
    if name in hub.repositories:
        request.reply(409, {"error": "You already created this model repo"})
        return
    hub.repositories[name] = StoredRepository(wanted["visibility"] == "private")
    hub.repositories[name].add("main", dict(FIRST_FILES))
    request.reply(200, {"url": f"{hub.url}/{name}"})


def about(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str, revision: str | None = None) -> None:
    if (repository := request.repository(name)) is None:
        return
    if (files := repository.files(revision or "main")) is None:
        request.reply(404, {}, {"X-Error-Code": "RevisionNotFound"})
        return
    siblings: list[dict[str, Any]] = []
    for path, content in files.items():
        siblings.append({"rfilename": path, "size": len(content), "blobId": git_id(content)})
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            siblings[-1]["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    commit = repository.branches.get(revision or "main", revision)
    request.reply(
        200, {"id": name, "modelId": name, "sha": commit, "private": repository.private, "siblings": siblings}
    )


def tree(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str, revision: str) -> None:
    if (repository := request.repository(name)) is None:
        return
    entries: list[dict[str, Any]] = []
    for path, content in (repository.files(revision) or {}).items():
        entries.append({"type": "file", "path": path, "size": len(content), "oid": git_id(content)})
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entries[-1]["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
    request.reply(200, entries)


def resolve(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str, revision: str, path: str) -> None:
    if (repository := request.repository(name)) is None:
        return
    content = (repository.files(revision) or {}).get(path)
    if content is None:
        request.reply(404, {}, {"X-Error-Code": "EntryNotFound"})
        return
    tag = hashlib.sha256(content).hexdigest() if path.endswith(LARGE) else git_id(content)
    request.reply(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": repository.branches.get(revision, revision)})


def branch(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str, wanted: str) -> None:
    repository = request.repository(name)
    if repository is None or not request.may_write(name.partition("/")[0]):
        return
    repository.branches.setdefault(wanted, repository.branches["main"])
    request.reply(200, {})


def validate(request: Handler, hub: StandInHub, body: bytes, query: dict) -> None:
    card = json.loads(body)["content"]
    licence = re.search(r"^license: (.*)$", card.split("---")[1] if card.startswith("---") else "", re.MULTILINE)
    if licence is None or licence[1].strip("'\"") not in hub.licences:
        request.reply(400, {"errors": [{"message": '"license" must be one of [...]'}], "warnings": []})
        return
    request.reply(200, {"errors": [], "warnings": []})


def preupload(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str, revision: str) -> None:
    repository = request.repository(name)
    if repository is None or not request.may_write(name.partition("/")[0]):
        return
    if (files := repository.files(revision)) is None:
        request.reply(404, {}, {"X-Error-Code": "RevisionNotFound"})
        return
    answers = []
    for wanted in json.loads(body)["files"]:
        path, is_large = wanted["path"], wanted["path"].endswith(LARGE)
        present = files.get(path)
        digest = None
        if present is not None:
            digest = hashlib.sha256(present).hexdigest() if is_large else git_id(present)
        answers.append(
            {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False, "oid": digest}
        )
    request.reply(200, {"files": answers})


def batch(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str) -> None:
    if not request.may_write(name.partition("/")[0]):
        return
    objects = []
    for wanted in json.loads(body)["objects"]:
        one = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.objects:
            one["actions"] = {"upload": {"href": f"{hub.url}/objects/{wanted['oid']}"}}
        objects.append(one)
    request.reply(200, {"transfer": "basic", "objects": objects})


def store(request: Handler, hub: StandInHub, body: bytes, query: dict, digest: str) -> None:
    if hashlib.sha256(body).hexdigest() != digest:
        request.reply(400, {"error": "other content"})
        return
    hub.objects[digest] = body
    request.reply(200, {})


def commit(request: Handler, hub: StandInHub, body: bytes, query: dict, name: str, wanted: str) -> None:
    repository = request.repository(name)
    if repository is None or not request.may_write(name.partition("/")[0]):
        return
    lines = [json.loads(line) for line in body.splitlines()]
    parent = lines[0]["value"].get("parentCommit")
    if wanted not in repository.branches or parent not in (None, repository.branches[wanted]):
        request.reply(412, {"error": "A commit has happened since. Please refresh and try again."})
        return
    files = dict(repository.files(wanted) or {})
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "lfsFile":
            files[value["path"]] = hub.objects[value["oid"]]
        else:
            files[value["path"]] = base64.b64decode(value["content"])
    made = repository.add(wanted, files)
    request.reply(200, {"commitUrl": f"{hub.url}/{name}/commit/{made}", "commitOid": made, "pullRequestUrl": None})


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = (
    ("POST", r"/api/repos/create", create),
    ("GET", rf"/api/models/{NAME}", about),
    ("GET", rf"/api/models/{NAME}/revision/(.+)", about),
    ("GET", rf"/api/models/{NAME}/tree/(.+)", tree),
    ("POST", rf"/api/models/{NAME}/branch/(.+)", branch),
    ("POST", r"/api/validate-yaml", validate),
    ("POST", rf"/api/models/{NAME}/preupload/(.+)", preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", batch),
    ("PUT", r"/objects/([0-9a-f]{64})", store),
    ("POST", rf"/api/models/{NAME}/commit/(.+)", commit),
    ("HEAD", rf"/{NAME}/resolve/([\w.-]+)/(.+)", resolve),
    ("GET", rf"/{NAME}/resolve/([\w.-]+)/(.+)", resolve),
)


class StandInServer(ThreadingHTTPServer):
    """The server of one hub; its threads end with the process at the latest."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, hub: StandInHub) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub = hub


@contextmanager
def hub_stand_in() -> Iterator[StandInHub]:
    """Serves a hub without repositories on a free port of this machine."""
    hub = StandInHub()
    server = StandInServer(hub)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()


def environment_of(hub: StandInHub, cache: str, token: str = TOKEN) -> dict[str, str]:
    """Returns the variables with which another process talks to the stand-in and nobody else."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": cache,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }


def talk_to(hub: StandInHub, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process' library talk to the stand-in, without proxies, waits and the machine's own tokens."""
    for switch in OFFLINE_VARIABLES:
        monkeypatch.delenv(switch, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", cache)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", hub.url)
    # The library waits 23 s in all between its tries; here it does not.
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
