"""The HTTP client of huggingface_hub, with bounds on what a server can make it wait for, read or do.

The library's own waits for ever for a server that says nothing, reads replies of any length into memory, and sleeps for
as long as a reply asks for.
"""

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from huggingface_hub.utils import _http

SILENCE = 60.0
"""Seconds without a byte after which a request has failed."""

COMMIT = 600.0
"""The same for a commit, which the Hub may take minutes for."""

WHOLE = 300.0
"""Seconds that a whole reply may take, of those that are read into memory."""

WAIT = 330.0
"""The longest wait in seconds that a server may ask for; the Hub counts requests in windows of 300 s."""

REPLY = 1 << 26
"""The longest reply in bytes that is read into memory."""

PACKED = 1 << 16
"""The same for one that is compressed although none was asked for: gzip makes a thousand times of it at most."""

SLOWEST = 1 << 16
"""Bytes of a download that must come within `WHOLE` seconds."""

PAUSE = 1.0
"""Seconds between two attempts to create what is in conflict with another creation."""

_CONFLICTS = 20
"""Refusals of one creation as in conflict with another, which the library tries again without an end."""

_PAGES = 500
"""Pages of one list of files, which the library follows without an end; the Hub has a thousand files on each."""


@dataclass
class _Clients:
    """The client of whoever else uses huggingface_hub in this process, and ours, which is kept for the next context."""

    theirs: httpx2.Client | None = None
    ours: httpx2.Client | None = None
    contexts: int = 0


_clients = _Clients()


@contextmanager
def bounded_client() -> Iterator[None]:
    """Within the context huggingface_hub uses the bounded client, unless its user has set a client of their own.

    The library has one client for all threads of a process: another thread's calls are bounded meanwhile. Behind the
    outermost context it has the one that it had, with its open connections.
    """
    with _http._CLIENT_LOCK:
        if _http._GLOBAL_CLIENT_FACTORY is _http.default_client_factory:
            _clients.theirs = _http._GLOBAL_CLIENT
            _http._GLOBAL_CLIENT, _http._GLOBAL_CLIENT_FACTORY = _clients.ours, _bounded_client
        _clients.contexts += 1
    try:
        yield
    finally:
        with _http._CLIENT_LOCK:
            _clients.contexts -= 1
            if not _clients.contexts and _http._GLOBAL_CLIENT_FACTORY is _bounded_client:
                _clients.ours = _http._GLOBAL_CLIENT
                _http._GLOBAL_CLIENT, _http._GLOBAL_CLIENT_FACTORY = _clients.theirs, _http.default_client_factory
                _clients.theirs = None


def close_client() -> None:
    """Close the bounded client and its connections; the next context has a new one."""
    ours, _clients.ours = _clients.ours, None
    if ours is not None:
        ours.close()


atexit.register(close_client)
if hasattr(os, "register_at_fork"):
    # A connection is of one process.
    os.register_at_fork(after_in_child=close_client)


def _bounded_client() -> httpx2.Client:
    repeated = _Repeated()

    def before(request: httpx2.Request) -> None:
        # Some calls ask for no time-out in so many words.
        silence = COMMIT if request.method == "POST" and "/commit/" in request.url.path else SILENCE
        given = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            what: min(given.get(what) or silence, silence) for what in ("connect", "read", "write", "pool")
        }

    def after(response: httpx2.Response) -> None:
        _check_wait(response)
        repeated.check(response)
        if response.status_code < 300 and response.request.extensions.get("weight_edit.stream"):
            response.stream = _BoundedStream(response.stream, None)
        else:
            packing = response.headers.get("Content-Encoding", "identity").strip().lower()
            if packing not in ("identity", "gzip", "deflate"):
                raise httpx2.DecodingError("a reply is compressed in a way that was not asked for")
            response.stream = _BoundedStream(response.stream, REPLY if packing == "identity" else PACKED)

    hooks: dict[str, list[Any]] = {"request": [_http.hf_request_event_hook, before], "response": [after]}
    return _BoundedClient(event_hooks=hooks, follow_redirects=True, timeout=SILENCE)


class _Repeated:
    """How often the same is asked for, one time after the other, because of what is answered."""

    def __init__(self) -> None:
        self._path, self._count, self._began = "", 0, 0.0

    def check(self, response: httpx2.Response) -> None:
        """Count a reply.

        Raises:
            httpx2.RequestError: it is one of too many.
        """
        path = response.request.url.path
        if path != self._path:
            self._count, self._began = 0, time.monotonic()
        self._count += 1
        listed = response.links.get("next") is not None
        conflict = response.status_code == 409 and path.endswith("/api/repos/create")
        self._path = path if listed or conflict else ""
        if listed and (self._count > _PAGES or time.monotonic() - self._began > 2 * WHOLE):
            raise httpx2.RequestError("a list has no end")
        if conflict and self._count > _CONFLICTS:
            raise httpx2.RequestError("the Hub says again and again that another operation is in progress")
        if conflict and self._count > 1:
            time.sleep(PAUSE)


class _BoundedClient(httpx2.Client):
    """The same client, which knows of a request whether its reply is read in pieces."""

    def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        request.extensions["weight_edit.stream"] = stream
        if not stream:
            request.headers["Accept-Encoding"] = "identity"
        return super().send(request, stream=stream, **options)


def _check_wait(response: httpx2.Response) -> None:
    """Refuse a reply that asks for a longer wait than `WAIT`.

    Raises:
        httpx2.RequestError: says how long; the library does not try again.
    """
    if response.status_code < 400:
        return
    after = response.headers.get("Retry-After", "").strip()
    # A number of any length is cut: Python refuses to read those of thousands of digits.
    asked = int(after[:12]) if after.isascii() and after.isdigit() else 0
    try:
        limit = _http.parse_ratelimit_headers(response.headers)
    except ValueError:
        limit, asked = None, int(WAIT) + 1
    if limit is not None and limit.remaining == 0:
        asked = max(asked, limit.reset_in_seconds)
    if asked > WAIT:
        raise httpx2.RequestError(
            f"status {response.status_code}, and a wait of {min(asked, 10**9)} s is asked for before the next request"
        )


class _BoundedStream(httpx2.SyncByteStream):
    """A reply's stream, which fails where it is too long or too slow.

    Args:
        stream: what the server sends.
        most: the longest in bytes, within `WHOLE` seconds; None of a download, which has to come at a certain rate.
    """

    def __init__(self, stream: Any, most: int | None) -> None:
        self._stream = stream
        self._most = most

    def __iter__(self) -> Iterator[bytes]:
        count, end, due = 0, time.monotonic() + WHOLE, SLOWEST
        for piece in self._stream:
            count += len(piece)
            if self._most is not None and count > self._most:
                raise httpx2.DecodingError(f"a reply is longer than {self._most:,} bytes")
            if time.monotonic() > end:
                if self._most is not None:
                    raise httpx2.DecodingError(f"a reply takes longer than {WHOLE:g} s")
                if count < due:
                    raise httpx2.DecodingError(f"fewer than {SLOWEST:,} bytes came in {WHOLE:g} s")
                end, due = time.monotonic() + WHOLE, count + SLOWEST
            yield piece

    def close(self) -> None:
        """Close the connection's own stream."""
        self._stream.close()
