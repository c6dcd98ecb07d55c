"""A Hub on this machine: the calls that huggingface_hub makes for a model's files and for a commit, over real HTTP.

    hub = FakeHub(); hub.start(); repo = hub.add("org/model", folder)
    hub.use(monkeypatch, tmp_path / "cache")     # huggingface_hub talks to it from now on
    ...
    hub.stop()

Branches and pull requests have commits of their own.

Served: `/api/models/{repo}` and `.../revision/{rev}`, `.../tree/{rev}`, `/{repo}/resolve/{rev}/{file}`. Files that end
in `.safetensors` are LFS files: `resolve` redirects them to `/cdn/...` under another host name, as the real Hub does,
where a token must not be sent. Repositories are made, and commits too, by those who have the token: `STAGES` are the
requests of one upload, and `hub.failing` says which of them fails and how.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import _http

from weight_edit.hub.client import close_client

STAGES = (
    "info",
    "create",
    "branch",
    "tree",
    "yaml",
    "preupload",
    "batch",
    "put",
    "confirm",
    "commit",
    "ref",
    "readback",
)
"""The requests of an upload, in their order; "ref" and "readback" are "info" and "tree" once a commit was made."""


@dataclass
class FakeRepo:
    """One repository: its files, the newest commits of its branches, and how it misbehaves."""

    files: dict[str, bytes]
    """Of the main branch."""
    access: str = "public"
    """"public", "private" (nobody knows of it without the token), "gated" (listed, but no file without the token) or
    "nobody" (refused to all)."""
    broken: set[str] = field(default_factory=set)
    """Any of "no ranges", "short ranges", "bytes" (wrong ones), "cut" (LFS connections end early), "error 500",
    "hang up" (no answer at all)."""
    ignored: set[str] = field(default_factory=set)
    """Names that a .gitignore keeps out of commits."""
    refs: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """The files of other branches and of pull requests ("refs/pr/1")."""

    @property
    def commit(self) -> str:
        """The newest of the main branch."""
        return commit_of(self.files)

    def at(self, revision: str) -> dict[str, bytes] | None:
        """The files of a branch, pull request or commit."""
        heads = {"main": self.files, **self.refs}
        return heads.get(revision, {commit_of(files): files for files in heads.values()}.get(revision))


def commit_of(files: dict[str, bytes]) -> str:
    """Changes with the content, as a commit does."""
    digest = hashlib.sha1()
    for name, data in sorted(files.items()):
        digest.update(name.encode() + b"\0" + data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Asked:
    """One request that came in."""

    method: str
    path: str
    range: str | None
    token: str | None


def close_sessions() -> None:
    """Close the connections of huggingface_hub in this process, its own and those of our client."""
    _http.close_session()
    close_client()


class FakeHub:
    """Repositories behind an HTTP server in a thread."""

    token = "hf_" + "x" * 20

    def __init__(self) -> None:
        self.repos: dict[str, FakeRepo] = {}
        self.asked: list[Asked] = []
        self.failing: tuple[str, int | str] | None = None
        """A stage, and how it fails: a status, "drop" (the connection), "text", "list" or "empty" (wrong JSON)."""
        self.hostile: Callable[[_Handler, str], bool] | None = None
        """Given the request and its stage, answers it in place of this Hub and says True, or leaves it."""
        self.lie: Callable[[str, Any], Any] | None = None
        """Given a stage and the JSON that is the right answer to it, the JSON that is sent."""
        self.commits = 0
        """How many were made."""
        self.echo = False
        """Whether refusals say the token that came with the request, which the real Hub does not."""
        self.damaged: set[str] = set()
        """Names that commits store with another content."""
        self.stored: dict[str, bytes] = {}
        """Contents of LFS files by SHA-256."""
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Clients that have had enough of a reply reset the connection.
        self._server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
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
        close_sessions()

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
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "no-token"))
        # Only the library's own pauses between tries: `time` itself is everybody's, the tests' waiting included.
        monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        close_sessions()

    def sent(self) -> list[str]:
        """LFS files whose content was sent whole, in the order asked for."""
        whole = [asked.path for asked in self.asked if asked.method == "GET" and asked.range is None]
        return [path.split("/", 3)[3] for path in whole if path.startswith("cdn/")]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    stage = ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.take()

    def do_PUT(self) -> None:
        self.take()

    def log_message(self, *args) -> None:
        pass

    def answer(self) -> None:
        # Names of branches and files have slashes that are no borders.
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.hub.asked.append(Asked(self.command, "/".join(parts), self.headers.get("Range"), token))
        self.stage = "resolve"
        if parts[0] == "cdn":
            self.stage = "cdn"
            repo = self.hub.repos["/".join(parts[1:3])]
            if not self.fails("cdn"):
                self.send_content(repo, repo.files["/".join(parts[3:])])
            return
        is_api = parts[:2] == ["api", "models"]
        parts = parts[2:] if is_api else parts
        name, rest = "/".join(parts[:2]), parts[2:]
        repo = self.hub.repos.get(name)
        if is_api:
            of_tree = rest[:1] == ["tree"]
            made = self.hub.commits > 0
            self.stage = ("readback" if made else "tree") if of_tree else ("ref" if made else "info")
            if rest[:1] == ["xet-write-token"]:
                self.stage = "xet"
        found = None if repo is None else repo.at(rest[1] if len(rest) > 1 else "main")
        if token not in (None, self.hub.token):
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif repo is not None and "hang up" in repo.broken:
            self.close_connection = True
        elif self.fails(self.stage):
            pass
        elif repo is None or (repo.access == "private" and token is None):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repo.access == "nobody":
            self.refuse(403, None, "Access is for nobody")
        elif "error 500" in repo.broken:
            self.refuse(500, None, "no luck")
        elif found is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
        elif is_api and rest[:1] == ["tree"]:
            self.send_json([self.entry(path, data) for path, data in sorted(found.items())])
        elif is_api:
            siblings = [{"rfilename": path} for path in sorted(found)]
            private = repo.access == "private"
            self.send_json(
                {"id": name, "modelId": name, "sha": commit_of(found), "private": private, "siblings": siblings}
            )
        elif repo.access == "gated" and token is None:
            self.refuse(403, "GatedRepo", "Access to this model is restricted")
        else:
            self.resolve(repo, found, name, "/".join(rest[2:]))

    def take(self) -> None:
        """A request with a body: one of `STAGES`."""
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        path = "/".join(parts)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        body = self.body()
        self.hub.asked.append(Asked(self.command, path, None, token))
        if self.command == "PUT":
            stage = "put"
        elif path == "api/repos/create":
            stage = "create"
        elif path == "api/validate-yaml":
            stage = "yaml"
        elif path == "confirm":
            stage = "confirm"
        else:
            stage = "batch" if path.endswith("/info/lfs/objects/batch") else parts[4]
        self.stage = stage
        # The card is validated for whoever asks.
        if stage not in ("put", "yaml") and token != self.hub.token:
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif not self.fails(stage):
            getattr(self, f"take_{stage}")(parts, body)

    def take_create(self, parts: list[str], body: bytes) -> None:
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else f"me/{asked['name']}"
        if name in self.hub.repos:
            self.send_json({"url": f"http://127.0.0.1:{self.hub.port}/{name}"}, 409)
            return
        access = "private" if asked.get("visibility") == "private" or asked.get("private") else "public"
        self.hub.repos[name] = FakeRepo({".gitattributes": b"*.safetensors filter=lfs\n"}, access=access)
        self.send_json({"url": f"http://127.0.0.1:{self.hub.port}/{name}"})

    def take_branch(self, parts: list[str], body: bytes) -> None:
        repo, branch = self.hub.repos["/".join(parts[2:4])], parts[5]
        if branch in repo.refs:
            self.refuse(409, None, "Reference already exists")
            return
        repo.refs[branch] = dict(repo.at(json.loads(body).get("startingPoint") or "main") or {})
        self.send_json({})

    def take_yaml(self, parts: list[str], body: bytes) -> None:
        self.send_json({"errors": [], "warnings": []})

    def take_preupload(self, parts: list[str], body: bytes) -> None:
        repo, asked = self.hub.repos["/".join(parts[2:4])], json.loads(body)["files"]
        names = [file["path"] for file in asked]
        there = repo.at(parts[5]) or {}
        ours = {name: there.get(name) for name in names}
        self.send_json(
            {
                "files": [
                    {
                        "path": name,
                        "uploadMode": "lfs" if _lfs(name) else "regular",
                        "shouldIgnore": name in repo.ignored,
                        "oid": None if there is None else _oid(name, there),
                    }
                    for name, there in ours.items()
                ]
            }
        )

    def take_batch(self, parts: list[str], body: bytes) -> None:
        here = f"http://127.0.0.1:{self.hub.port}"
        objects = []
        for wanted in json.loads(body)["objects"]:
            actions = {"upload": {"href": f"{here}/lfs/{wanted['oid']}"}, "verify": {"href": f"{here}/confirm"}}
            objects.append({**wanted, **({} if wanted["oid"] in self.hub.stored else {"actions": actions})})
        self.send_json({"transfer": "basic", "objects": objects})

    def take_put(self, parts: list[str], body: bytes) -> None:
        self.hub.stored[parts[-1]] = body
        self.send_json({})

    def take_confirm(self, parts: list[str], body: bytes) -> None:
        self.send_json({})

    def take_commit(self, parts: list[str], body: bytes) -> None:
        name = "/".join(parts[2:4])
        repo, files = self.hub.repos[name], {}
        head = repo.at(parts[5])
        if head is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {parts[5]}")
            return
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header" and value.get("parentCommit") not in (None, commit_of(head)):
                self.refuse(412, None, "A commit has happened since. Please refresh and try again.")
                return
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile" and value["oid"] not in self.hub.stored:
                self.refuse(422, None, f"the content of {value['path']} never came")
                return
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
        for path in self.hub.damaged & files.keys():
            files[path] = bytes([files[path][0] ^ 1]) + files[path][1:]
        here = f"http://127.0.0.1:{self.hub.port}/{name}"
        made: dict[str, object] = {"success": True}
        if "create_pr=1" in urlsplit(self.path).query:
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
            repo.refs[f"refs/pr/{number}"] = head = {**head, **files}
            made["pullRequestUrl"] = f"{here}/discussions/{number}"
        else:
            head |= files
        self.hub.commits += 1
        oid = commit_of(head)
        self.send_json({**made, "commitOid": oid, "commitUrl": f"{here}/commit/{oid}"})

    def body(self) -> bytes:
        """What came with the request, whole or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def fails(self, stage: str) -> bool:
        """Whether the request was one that is to fail, and did."""
        if self.hub.hostile is not None and self.hub.hostile(self, stage):
            return True
        if self.hub.failing is None or self.hub.failing[0] != stage:
            return False
        how = self.hub.failing[1]
        if isinstance(how, int):
            self.refuse(how, None, f"no luck with {stage}")
        elif how == "drop":
            self.close_connection = True
        else:
            self.send_body({"text": b"<html>hello</html>", "list": b"[]", "empty": b"{}"}[str(how)])
        return True

    def resolve(self, repo: FakeRepo, files: dict[str, bytes], name: str, file: str) -> None:
        if file not in files:
            self.refuse(404, "EntryNotFound", "Entry not found")
            return
        data, commit = files[file], commit_of(files)
        if not _lfs(file):
            self.send_content(repo, data, {"X-Repo-Commit": commit, "ETag": f'"{_git(data)}"'})
            return
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{name}/{file}?Signature=secret")
        self.send_header("X-Repo-Commit", commit)
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

    def send_json(self, value: object, status: int = 200) -> None:
        if self.hub.lie is not None:
            value = self.hub.lie(self.stage, value)
        self.send_body(json.dumps(value).encode(), status)

    def send_body(self, data: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def refuse(self, status: int, code: str | None, message: str) -> None:
        if self.hub.echo:
            message += f" ({self.headers.get('authorization')})"
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


def _oid(path: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if _lfs(path) else _git(data)
