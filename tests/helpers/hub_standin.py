"""A stand-in for the Hugging Face Hub on loopback: real HTTP, repositories in memory.

Enough of the API for create, preupload, LFS, commit, pull request, list and resolve; every
request is counted. `people` may write (their tokens), `gated` and `private` repositories refuse.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "a" * 34


@dataclass
class Repository:
    """Commits of one repository, oldest first: (id, files)."""

    private: bool = False
    gated: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit id and files at a branch, tag or commit."""
        revision = self.tags.get(revision, revision)
        if revision in ("main", "HEAD") and self.commits:
            return self.commits[-1]
        return next((c for c in self.commits if c[0] == revision), None)

    def commit(self, files: dict[str, bytes]) -> str:
        """Add a commit that holds exactly these files."""
        text = repr(sorted((n, hashlib.sha256(d).hexdigest()) for n, d in files.items()))
        number = hashlib.sha1(f"{len(self.commits)} {text}".encode()).hexdigest()
        self.commits.append((number, dict(files)))
        return number


@dataclass
class Hub:
    """State of the stand-in; `url` is what HF_ENDPOINT should be."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    url: str = ""
    broken: bool = False

    def sent(self) -> list[str]:
        """Requests that change something."""
        return [line for line in self.log if not line.startswith(("GET", "HEAD"))]


@contextmanager
def serve():
    """Run a hub on a free port of loopback."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.query = parse_qs(urlsplit(self.path).query)
        self.state.log.append(f"{self.command} {path}")
        if self.state.broken:
            return self._send(500, {"error": "out of order"})
        for pattern, handle in ROUTES:
            if match := re.fullmatch(pattern, path):
                return handle(self, body, **match.groupdict())
        return self._send(404, {"error": f"the stand-in has no {path}"})

    def _send(self, status: int, value=None, headers=None, data: bytes | None = None) -> None:
        data = json.dumps(value).encode() if data is None else data
        self.send_response(status)
        headers = {"Content-Length": str(len(data)), "Content-Type": "application/json"} | (
            headers or {}
        )
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    @property
    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None after a refusal was sent."""
        found = self.state.repositories.get(name)
        if found is None or (found.private and not self._known):
            # The real Hub tells strangers 401 for what is not there.
            code = 404 if self._known else 401
            self._send(code, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        if found.gated and not self._known:
            self._send(401, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
            return None
        return found

    def _revision(self, repository: Repository, revision: str):
        found = repository.files(revision)
        if found is None:
            headers = {"X-Error-Code": "RevisionNotFound"}
            self._send(404, {"error": f"Invalid rev id: {revision}"}, headers)
        return found

    def _writer(self) -> bool:
        if not self._known:
            self._send(401, {"error": "Invalid username or password."})
        return self._known

    def _create(self, body: bytes) -> None:
        if not self._writer():
            return
        asked = json.loads(body)
        name = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if name in self.state.repositories:
            self._send(409, {"error": "exists", "url": f"{self.state.url}/{name}"})
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        made = self.state.repositories[name] = Repository(private)
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        self._send(200, {"url": f"{self.state.url}/{name}", "id": name})

    def _info(self, body: bytes, name: str, revision: str = "main") -> None:
        repository = self._repository(name)
        if repository and (found := self._revision(repository, revision)):
            number, files = found
            siblings = [{"rfilename": f} for f in files]
            self._send(200, {"id": name, "modelId": name, "sha": number, "siblings": siblings,
                             "private": repository.private, "tags": []})  # fmt: skip

    def _tree(self, body: bytes, name: str, revision: str) -> None:
        repository = self._repository(name)
        if repository and (found := self._revision(repository, revision)):
            self._send(200, [
                {"type": "file", "path": path, "size": len(data), "oid": _etag(data)}
                for path, data in sorted(found[1].items())
            ])  # fmt: skip

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        repository = self._repository(name)
        if not repository or not (found := self._revision(repository, revision)):
            return
        number, files = found
        if path not in files:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
            return
        data = files[path]
        headers = {"X-Repo-Commit": number, "ETag": f'"{_etag(data)}"', "Accept-Ranges": "none"}
        self._send(200, headers=headers, data=data)

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        if not self._writer():
            return
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for f in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        objects = []
        for wanted in json.loads(body)["objects"]:
            link = {"href": f"{self.state.url}/upload/{wanted['oid']}"}
            have = wanted["oid"] in self.state.objects
            objects.append(wanted | ({} if have else {"actions": {"upload": link}}))
        answer = {"transfer": "basic", "objects": objects}
        self._send(200, answer, {"Content-Type": "application/vnd.git-lfs+json"})

    def _upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._send(400, {"error": "checksum"})
            return
        self.state.objects[oid] = body
        self._send(200, {})

    def _yaml(self, body: bytes) -> None:
        text = json.loads(body)["content"]
        errors = [] if text.startswith("---\n") else [{"message": "front matter is missing"}]
        self._send(400 if errors else 200, {"errors": errors, "warnings": []})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        repository = self._writer() and self._repository(name)
        if not repository:
            return
        parent, files = repository.files(revision)
        files = dict(files)
        for line in body.decode().splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit") not in (None, parent):
                self._send(412, {"error": "the branch has moved"})
                return
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
        if "create_pr" in self.query:
            repository.requests.append(("1" * 40, files))
            number, pull = "1" * 40, f"{self.state.url}/{name}/discussions/1"
        else:
            number, pull = repository.commit(files), None
        self._send(200, {"success": True, "commitOid": number, "pullRequestUrl": pull,
                         "commitUrl": f"{self.state.url}/{name}/commit/{number}"})  # fmt: skip


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = [
    (r"/api/repos/create", _Handler._create),
    (r"/api/validate-yaml", _Handler._yaml),
    (rf"/api/models/{_NAME}", _Handler._info),
    (rf"/api/models/{_NAME}/revision/(?P<revision>[^/]+)", _Handler._info),
    (rf"/api/models/{_NAME}/tree/(?P<revision>[^/]+)", _Handler._tree),
    (rf"/api/models/{_NAME}/preupload/(?P<revision>[^/]+)", _Handler._preupload),
    (rf"/api/models/{_NAME}/commit/(?P<revision>[^/]+)", _Handler._commit),
    (rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    (r"/upload/(?P<oid>[0-9a-f]+)", _Handler._upload),
    (rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler._resolve),
]
