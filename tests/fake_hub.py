"""A Hub on this machine: the few calls that huggingface_hub makes for a model's files, over real HTTP.

    hub = FakeHub(); hub.start(); repo = hub.add("org/model", folder)
    hub.use(monkeypatch, tmp_path / "cache")     # huggingface_hub talks to it from now on
    ...
    hub.stop()

Served: `/api/models/{repo}` and `.../revision/{rev}`, `.../tree/{rev}`, `/{repo}/resolve/{rev}/{file}`. Files that end
in `.safetensors` are LFS files: `resolve` redirects them to `/cdn/...` under another host name, as the real Hub does,
where a token must not be sent.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import _http


@dataclass
class FakeRepo:
    """One repository: its files, its one commit, and how it misbehaves."""

    files: dict[str, bytes]
    access: str = "public"
    """"public", "private" (nobody knows of it without the token) or "gated" (listed, but no file without the token)."""
    broken: set[str] = field(default_factory=set)
    """Any of "no ranges", "short ranges", "bytes" (wrong ones), "cut" (LFS connections end early), "error 500"."""

    @property
    def commit(self) -> str:
        """Changes with the content, as a commit does."""
        digest = hashlib.sha1()
        for name, data in sorted(self.files.items()):
            digest.update(name.encode() + b"\0" + data)
        return digest.hexdigest()


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    range: str | None
    token: str | None


class FakeHub:
    """Repositories behind an HTTP server in a thread."""

    token = "hf_" + "x" * 20

    def __init__(self) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.asked: list[Asked] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def start(self) -> None:
        """Serve from now on."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Serve no more: connections are refused."""
        if self._server.socket.fileno() < 0:
            return
        self._server.shutdown()
        self._server.server_close()
        _http.close_session()

    def add(self, name: str, folder: Path, **options) -> FakeRepo:
        """Publish the files of a folder."""
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        self.repos[name] = FakeRepo(files, **options)
        return self.repos[name]

    def use(self, monkeypatch, cache: Path) -> None:
        """Make huggingface_hub of this process ask here, with a cache of its own and no token."""
        endpoint = f"http://127.0.0.1:{self.port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        _http.close_session()

    def sent(self) -> list[str]:
        """LFS files whose content was sent whole, in the order asked for."""
        whole = [asked.path for asked in self.asked if asked.method == "GET" and asked.range is None]
        return [path.split("/", 3)[3] for path in whole if path.startswith("cdn/")]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *args) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(self.command, path, self.headers.get("Range"), token))
        parts = path.split("/")
        if parts[0] == "cdn":
            repo = self.hub.repos["/".join(parts[1:3])]
            self.send_content(repo, repo.files["/".join(parts[3:])])
            return
        is_api = parts[:2] == ["api", "models"]
        parts = parts[2:] if is_api else parts
        name, rest = "/".join(parts[:2]), parts[2:]
        repo = self.hub.repos.get(name)
        if token not in (None, self.hub.token):
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif repo is None or (repo.access == "private" and token is None):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif "error 500" in repo.broken:
            self.refuse(500, None, "no luck")
        elif len(rest) > 1 and rest[1] not in ("main", repo.commit):
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        elif is_api and rest[:1] == ["tree"]:
            self.send_json([self.entry(path, data) for path, data in sorted(repo.files.items())])
        elif is_api:
            siblings = [{"rfilename": path} for path in sorted(repo.files)]
            self.send_json({"id": name, "modelId": name, "sha": repo.commit, "siblings": siblings})
        elif repo.access == "gated" and token is None:
            self.refuse(403, "GatedRepo", "Access to this model is restricted")
        else:
            self.resolve(repo, name, "/".join(rest[2:]))

    def resolve(self, repo: FakeRepo, name: str, file: str) -> None:
        if file not in repo.files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        data = repo.files[file]
        if not _lfs(file):
            self.send_content(repo, data, {"X-Repo-Commit": repo.commit, "ETag": f'"{_git(data)}"'})
            return
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{name}/{file}?Signature=secret")
        self.send_header("X-Repo-Commit", repo.commit)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_content(self, repo: FakeRepo, data: bytes, headers: dict[str, str] | None = None) -> None:
        asked = self.headers.get("Range")
        lfs = headers is None
        if lfs and "bytes" in repo.broken:
            data = data[:-1] + bytes([data[-1] ^ 1])
        total, status, more = len(data), 200, {}
        if asked is not None and "no ranges" not in repo.broken:
            begin, _, end = asked.removeprefix("bytes=").partition("-")
            data = data[int(begin) : int(end) + 1 if end else None]
            status, more = 206, {"Content-Range": f"bytes {begin}-{int(begin) + len(data) - 1}/{total}"}
            data = data[:-1] if "short ranges" in repo.broken else data
        self.send_response(status)
        for key, value in {**(headers or {"ETag": '"cdn"'}), **more, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET" and lfs and "cut" in repo.broken:
            repo.broken.remove("cut")
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif self.command == "GET":
            self.wfile.write(data)

    def send_json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status: int, code: str | None, message: str) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    @staticmethod
    def entry(path: str, data: bytes) -> dict:
        entry = {"type": "file", "path": path, "size": len(data), "oid": _git(data)}
        if _lfs(path):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
        return entry


def _lfs(path: str) -> bool:
    return path.endswith(".safetensors")


def _git(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
