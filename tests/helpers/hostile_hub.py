"""Ways in which a Hub fails, lies or attacks, for `FakeHub.hostile` and `FakeHub.lie`.

`MODES` are journeys against one such Hub each: a push or a fetch, what the Hub does, and how the command may end.
`benchmarks/hostile_hub.py` tries all of them, the tests a few.
"""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.helpers.fake_hub import FakeHub

Act = Callable[[Any], None]
"""Answers one request; gets the handler of the server."""

FAILED = (2, 3, 4)
"""Exit codes of what must not succeed."""

ANY = (0, *FAILED)
"""Of what may succeed too: nothing that was lied about mattered."""


@dataclass(frozen=True, kw_only=True)
class Mode:
    """One way in which a journey goes wrong.

    Attributes:
        name: for the table.
        hostile, lie: as `FakeHub` has them.
        words: of the command, before the repository's options; "push", "bake" or "adapter".
        options: of a push.
        repo: whether the repository is there before: "", "public" or "private".
        ends: exit codes that it may end with.
        xet: whether huggingface_hub uploads as it does by default, through Xet.
        token: how the token is given, see `benchmarks/hostile_hub.py`.
    """

    name: str
    hostile: Callable[[Any, str], bool] | None = None
    lie: Callable[[str, Any], Any] | None = None
    verb: str = "push"
    options: tuple[str, ...] = ()
    repo: str = ""
    ends: tuple[int, ...] = FAILED
    xet: bool = False
    token: str = "option"


def at(stage: str, act: Act, *, times: int = 10**9) -> Callable[[Any, str], bool]:
    """Act at one stage, the first so many times."""
    left = [times]

    def hostile(handler: Any, found: str) -> bool:
        if found != stage or left[0] <= 0:
            return False
        left[0] -= 1
        act(handler)
        return True

    return hostile


def reply(data: bytes, status: int = 200, **headers: str) -> Act:
    """A whole reply."""

    def act(handler: Any) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(data)

    return act


def as_json(value: object, status: int = 200) -> Act:
    """A whole reply in JSON."""
    return reply(json.dumps(value).encode(), status, Content_Type="application/json")


def drop(handler: Any) -> None:
    """The connection ends without an answer."""
    handler.close_connection = True


def hang(handler: Any) -> None:
    """No answer comes, for longer than anybody waits."""
    threading.Event().wait(HANG)
    handler.close_connection = True


HANG = 20.0


def cut(handler: Any) -> None:
    """A reply that ends in its middle."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"id": "me')
    handler.close_connection = True


def endless(handler: Any) -> None:
    """A reply of hundreds of megabytes."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Connection", "close")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(400):
            handler.wfile.write(b" " * (1 << 20))
    handler.close_connection = True


def drip(handler: Any) -> None:
    """A byte at a time, often enough for every time-out between two bytes."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    with suppress(OSError):
        for _ in range(int(HANG / 0.2)):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            threading.Event().wait(0.2)
    handler.close_connection = True


def early(handler: Any) -> None:
    """The connection is reset in the middle of the request's body (which this server has read whole)."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Len")
    handler.close_connection = True


def garbage(handler: Any) -> None:
    """What is no HTTP."""
    handler.wfile.write(b"\x00\xff\x1b[2J SSH-2.0-OpenSSH\r\n\r\n")
    handler.close_connection = True


def redirect(to: str, status: int = 302) -> Act:
    """A redirect; `{port}` in the address is the server's own."""

    def act(handler: Any) -> None:
        handler.send_response(status)
        handler.send_header("Location", to.format(port=handler.hub.port, path=handler.path))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def echo(handler: Any) -> None:
    """A refusal that says the token, in its reason, its headers and its body, quoted and not."""
    token = handler.headers.get("authorization") or "Bearer " + handler.hub.token
    told = json.dumps({"error": f"token {token}", "errors": [{"message": repr(token)}], "url": f"http://{token[7:]}/"})
    handler.send_response(400, f"no {token[7:]}")
    handler.send_header("X-Error-Message", f"your {token}")
    handler.send_header("X-Request-Id", token[7:])
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(told)))
    handler.end_headers()
    handler.wfile.write(told.encode())


def echo_everywhere(stage: str, right: Any) -> Any:
    """The right answer with the token in every text of it that may be any."""
    more = {"note": FakeHub.token, "url": f"http://127.0.0.1/{FakeHub.token}"}
    return {**right, **more} if isinstance(right, dict) else right


ANSI = "\x1b[2J\x1b]0;owned\x07\r\n\x9b31m quota of \u202eyours"


def painted(handler: Any) -> None:
    """A refusal with control characters that a terminal would obey."""
    told = json.dumps({"error": ANSI * 50}).encode()
    handler.send_response(403)
    handler.send_header("X-Error-Message", ANSI.replace("\r\n", " ").encode("latin-1", "ignore").decode("latin-1"))
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(told)))
    handler.end_headers()
    handler.wfile.write(told)


def packed(handler: Any) -> None:
    """A gigabyte of nothing, compressed."""
    data = gzip.compress(b" " * (1 << 28), 1)
    reply(data, 200, Content_Encoding="gzip", Content_Type="application/json")(handler)


def pages(handler: Any) -> None:
    """A list of files whose next page is itself."""
    data = json.dumps([{"type": "file", "path": "x" * 20, "size": 1, "oid": "0" * 40}] * 1000).encode()
    link = f'<http://127.0.0.1:{handler.hub.port}{handler.path}>; rel="next"'
    reply(data, 200, Link=link, Content_Type="application/json")(handler)


def changed(stage: str, **entries: object) -> Callable[[str, Any], Any]:
    """A lie about some entries of one stage's answer."""
    return lambda found, right: {**right, **entries} if found == stage and isinstance(right, dict) else right


def each_file(stage: str, **entries: object) -> Callable[[str, Any], Any]:
    """A lie about every file of a list."""
    return lambda found, right: (
        [{**entry, **entries} for entry in right] if found == stage and isinstance(right, list) else right
    )


_STATUSES = {
    "info": (400, 404, 451, 500, 599),
    "create": (402, 403, 409, 429, 503),
    "branch": (400, 403, 404, 500),
    "tree": (403, 404, 410, 502),
    "yaml": (400, 413, 422, 504),
    "preupload": (401, 413, 418, 508),
    "batch": (403, 413, 422, 507),
    "put": (400, 403, 411, 501, 599),
    "confirm": (404, 422, 500),
    "commit": (400, 409, 412, 413, 422, 500, 504, 529),
    "ref": (401, 404, 500),
    "readback": (403, 404, 503),
}


def _by_status() -> Iterator[Mode]:
    for stage, statuses in _STATUSES.items():
        for number, status in enumerate(statuses):
            options = ("--branch", "edits") if stage == "branch" or number == 1 else ()
            repo = "public" if stage == "commit" and number % 2 else ""
            if repo and number % 4 == 1:
                options = ("--create-pr",)
            yield Mode(
                name=f"{stage}: {status}",
                hostile=at(stage, as_json({"error": f"no luck with {stage}"}, status)),
                options=options,
                repo=repo,
            )


_ACTS: dict[str, tuple[Act, tuple[str, ...]]] = {
    "no answer": (drop, ("info", "create", "batch", "put", "commit", "ref")),
    "hangs": (hang, ("info", "create", "preupload", "put", "commit", "readback")),
    "ends in its middle": (cut, ("info", "tree", "commit")),
    "no HTTP": (garbage, ("info", "put", "commit")),
    "ends in the header": (early, ("put", "commit")),
    "HTML": (reply(b"<html><body>502</body></html>", Content_Type="text/html"), ("info", "tree", "batch", "commit")),
    "nothing": (reply(b""), ("info", "preupload", "commit", "readback")),
    "null": (as_json(None), ("info", "preupload", "batch", "commit")),
    "deep JSON": (reply(b"[" * 200_000), ("info", "tree", "commit")),
    "a number of 10,000 digits": (reply(b"9" * 10_000), ("info", "commit")),
    "400 MB": (endless, ("info", "batch", "commit", "readback")),
    "256 MB in gzip": (packed, ("info", "commit")),
    "a byte at a time": (drip, ("info", "commit", "readback")),
    "redirect to itself": (redirect("{path}", 307), ("info", "create", "commit")),
    "redirect to file://": (redirect("file:///etc/passwd"), ("info", "commit")),
    "redirect to another host": (redirect("http://localhost:{port}/nowhere/at/all"), ("info", "commit")),
    "redirect to nothing": (redirect("http://[::1"), ("info", "commit")),
    "redirect to a closed port": (redirect("http://127.0.0.1:9/"), ("create", "put")),
    "the token": (echo, tuple(_STATUSES)),
    "control characters": (painted, ("info", "batch", "commit")),
    "wait for a year": (reply(b"", 429, Retry_After="31536000"), ("info", "put", "commit")),
    "wait for 10^400 s": (reply(b"", 503, Retry_After="1" + "0" * 400), ("put",)),
    "rate limit of a day": (
        reply(b"", 429, RateLimit='"api";r=0;t=86400', RateLimit_Policy='"fixed window";"api";q=1;w=86400'),
        ("preupload",),
    ),
    "in conflict for ever": (
        as_json({"error": "Cannot create repo: another conflicting operation is in progress"}, 409),
        ("create",),
    ),
    "quota": (as_json({"error": "Private repository storage limit reached"}, 403), ("batch",)),
    "pages without an end": (pages, ("tree",)),
}


def _by_act() -> Iterator[Mode]:
    for number, (name, (act, stages)) in enumerate(_ACTS.items()):
        for stage in stages:
            options = ((), ("--private",), ("--branch", "edits"), ())[number % 4]
            if stage == "branch":
                options = ("--branch", "edits")
            token = ("option", "environment", "spaces", "lines", "quotes")[number % 5] if act is not echo else "option"
            # Of these answers nothing is read, or what is read of them is right.
            harmless = (stage, name) in {("confirm", "nothing"), ("tree", "null")}
            yield Mode(
                name=f"{stage}: {name}",
                hostile=at(stage, act),
                options=options,
                token=token,
                ends=ANY if harmless else FAILED,
            )
    for token in ("environment", "spaces", "lines", "quotes"):
        yield Mode(name=f"info: the token, given with {token}", hostile=at("info", echo), token=token)
        yield Mode(name=f"commit: the token, given with {token}", hostile=at("commit", echo), token=token)


def _action(**entries: object) -> Callable[[str, Any], Any]:
    """A lie about where contents are put."""

    def lie(stage: str, right: Any) -> Any:
        if stage != "batch":
            return right
        return {**right, "objects": [{**each, "actions": {**each["actions"], **entries}} for each in right["objects"]]}

    return lie


def told(stage: str, change: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    """A lie that is made of the right answer of one stage."""
    return lambda found, right: change(right) if found == stage else right


def _damaged(handler: Any, stage: str) -> bool:
    """Contents are stored otherwise than they came."""
    handler.hub.damaged |= {"model.safetensors", "README.md"}
    return False


_CLOSED = "http://127.0.0.1:9/"
_OTHER = {"oid": "5" * 64, "size": 1, "actions": {"upload": {"href": _CLOSED}}}
_GONE = reply(b"", 404, X_Error_Code="RevisionNotFound")
_WARNED = as_json({"warnings": [{"message": ANSI + FakeHub.token}]})
_TAKEN = as_json({"error": "You already created this model repo"}, 409)

_LIES_OF_COMMITS: dict[str, Callable[[str, Any], Any]] = {
    "commit that is not listed": changed("commit", commitOid="1" * 40),
    "commit without an id": changed("commit", commitOid=None),
    "commit id that is a path": changed("commit", commitOid="../../../etc/passwd"),
    "commit of another repository": changed("ref", sha="2" * 40),
    "address of the commit with the token": changed("commit", commitUrl=f"http://x/{FakeHub.token}"),
    "other sizes": each_file("readback", size=1),
    "other digests": each_file("readback", oid="3" * 40, lfs={"oid": "4" * 64, "size": 1, "pointerSize": 1}),
    "sizes that are text": each_file("readback", size="\x1b[31m9"),
    "files without names": each_file("readback", path=None),
    "nothing listed": told("readback", lambda right: []),
    "upload to file://": _action(upload={"href": "file:///tmp/x"}),
    "upload to nowhere": _action(upload={"href": "http://[::1"}),
    "upload in parts of nothing": _action(upload={"href": _CLOSED, "header": {"chunk_size": "0"}}),
    "upload in parts without an end": _action(upload={"href": _CLOSED, "header": {"chunk_size": "1", "1": _CLOSED}}),
    "upload of another object": told("batch", lambda right: {**right, "objects": [_OTHER]}),
    "names that are not asked about": told("preupload", lambda right: {"files": []}),
    "everything ignored": told(
        "preupload", lambda right: {"files": [{**each, "shouldIgnore": True} for each in right["files"]]}
    ),
    "unknown ways to upload": told(
        "preupload", lambda right: {"files": [{**each, "uploadMode": "x"} for each in right["files"]]}
    ),
}

_LIES_OF_PULL_REQUESTS: dict[str, Callable[[str, Any], Any]] = {
    "number of another": changed("commit", pullRequestUrl="http://127.0.0.1/me/model/discussions/7"),
    "no number": changed("commit", pullRequestUrl=None),
    "no address": changed("commit", pullRequestUrl=f"x{FakeHub.token}"),
}


def _by_lie() -> Iterator[Mode]:
    for name, lie in _LIES_OF_COMMITS.items():
        yield Mode(name=name, lie=lie)
    for name, lie in _LIES_OF_PULL_REQUESTS.items():
        yield Mode(name=f"pull request: {name}", lie=lie, options=("--create-pr",), repo="public")
    private, branch = ("--private",), ("--branch", "edits")
    yield Mode(name="private that is not said", lie=changed("info", private=None), options=private)
    yield Mode(name="private that is a text", lie=changed("info", private="true"), options=private)
    yield Mode(name="public, and private asked for", options=private, repo="public")
    yield Mode(name="made public meanwhile", lie=changed("ref", private=False), options=private)
    yield Mode(name="pull request without a repository", options=("--create-pr",))
    yield Mode(name="branch that vanishes", hostile=at("ref", _GONE), options=branch)
    yield Mode(name="branch that is not created", hostile=at("branch", as_json({})), options=branch)
    yield Mode(name="contents stored otherwise", hostile=_damaged)
    yield Mode(name="uploads that are thrown away", hostile=at("put", reply(b"{}")))
    yield Mode(name="the card refused, in control characters", hostile=at("yaml", reply(ANSI.encode() * 20, 400)))
    yield Mode(name="the card warned of, in control characters", hostile=at("yaml", _WARNED), ends=ANY)
    yield Mode(name="repository taken meanwhile", hostile=at("create", _TAKEN))
    yield Mode(name="the token in every reply", lie=echo_everywhere, ends=ANY)
    yield Mode(name="nothing wrong", repo="public", ends=(0,))
    yield Mode(name="nothing wrong, a branch", options=(*private, *branch), ends=(0,))
    yield Mode(name="nothing wrong, a pull request", options=("--create-pr",), repo="public", ends=(0,))


_XET: tuple[Mode, ...] = (
    Mode(name="xet: 401", hostile=at("xet", as_json({"error": "no"}, 401)), xet=True),
    Mode(name="xet: 403 with the token", hostile=at("xet", echo), xet=True),
    Mode(name="xet: 404", hostile=at("xet", as_json({}, 404)), xet=True),
    Mode(name="xet: no JSON", hostile=at("xet", reply(b"<html>")), xet=True),
    Mode(
        name="xet: a store that is not there",
        hostile=at("xet", as_json({"accessToken": "x", "casUrl": "http://127.0.0.1:9", "exp": 4102444800})),
        xet=True,
    ),
)

_FETCHED: dict[str, tuple[Act, tuple[str, ...]]] = {
    "403": (as_json({"error": "no"}, 403), ("info", "tree", "resolve", "cdn")),
    "404": (as_json({"error": "no"}, 404), ("info", "resolve", "cdn")),
    "416": (as_json({}, 416), ("cdn",)),
    "500": (as_json({}, 500), ("info", "tree", "resolve", "cdn")),
    "no answer": (drop, ("info", "tree", "resolve", "cdn")),
    "hangs": (hang, ("info", "tree", "resolve", "cdn")),
    "no HTTP": (garbage, ("info", "cdn")),
    "HTML": (reply(b"<html>hello</html>", Content_Type="text/html"), ("info", "tree")),
    "deep JSON": (reply(b"[" * 200_000), ("info", "tree")),
    "400 MB": (endless, ("info", "tree")),
    "256 MB in gzip": (packed, ("info",)),
    "a byte at a time": (drip, ("info", "cdn")),
    "redirect to itself": (redirect("{path}", 307), ("info", "resolve", "cdn")),
    "redirect to file://": (redirect("file:///etc/passwd"), ("info", "resolve", "cdn")),
    "redirect to nothing": (redirect("http://[::1"), ("resolve",)),
    "the token": (echo, ("info", "tree", "resolve", "cdn")),
    "control characters": (painted, ("info", "tree", "cdn")),
    "wait for a year": (reply(b"", 429, Retry_After="31536000"), ("info", "cdn")),
    "pages without an end": (pages, ("tree",)),
}

_UP = "../../../../../../tmp/hostile-hub-was-here"
_FETCH_LIES: tuple[Mode, ...] = (
    Mode(name="commit id that is a path", lie=changed("info", sha=_UP), verb="bake"),
    Mode(name="no commit id", lie=changed("info", sha=None), verb="bake"),
    Mode(name="files that lead elsewhere", lie=each_file("tree", path=_UP), verb="bake"),
    Mode(name="files without names", lie=each_file("tree", path=None), verb="bake"),
    Mode(name="sizes below zero", lie=each_file("tree", size=-5), verb="bake", ends=ANY),
    Mode(name="no files", lie=lambda stage, right: [] if stage == "tree" else right, verb="bake"),
    Mode(name="the token in every reply", lie=echo_everywhere, verb="bake", ends=ANY),
)


def _by_fetch() -> Iterator[Mode]:
    for name, (act, stages) in _FETCHED.items():
        for stage in stages:
            yield Mode(name=f"{stage}: {name}", hostile=at(stage, act), verb="bake", repo="public")
            if stage in ("info", "resolve") and act not in (hang, drip, endless):
                yield Mode(name=f"{stage}: {name}", hostile=at(stage, act), verb="adapter", repo="public")


MODES: tuple[Mode, ...] = (*_by_status(), *_by_act(), *_by_lie(), *_XET, *_by_fetch(), *_FETCH_LIES)
