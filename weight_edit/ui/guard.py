"""What stands in front of the page: who may ask, for what, and what the page may load.

A page of another site that is open in the same browser must not reach it (cross-site requests, a name that is made to
point here), nor another user of the machine. So a request needs a key, which the address that the command prints
brings along and a cookie keeps; a name of this machine as its Host; and the page's own Origin where it has one.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

_ROUTES = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/manifest\.json|/robots\.txt|/(?:assets|static|svelte)/[^?]*"
    r"|/gradio_api/(?:startup-events|app_id|theme\.css|info/?|reset/?|cancel|heartbeat/[a-z0-9]+"
    r"|queue/(?:join|data)|run/[^/]+/?|api/[^/]+/?)|/report/[^/]+/[^/]+"
)
"""What the page needs of its server. All else is closed: files by their paths, uploads, what is asked elsewhere."""

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""What the browser may load for the page: this server's answers alone, whatever a text in it asks for."""

_DROPPED = (b"forwarded", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for", b"x-forwarded-prefix")
"""Headers of a proxy, which there is none of; the library would believe them."""

_CLOSED = (
    "Open the page by the address that weight-edit ui has printed in its terminal when it was started last; it has the "
    "key in it. The key of an earlier start opens nothing any more; projects, and what was started, are still there."
)


@dataclass(frozen=True)
class Guard:
    """An ASGI app that lets through what the page asks, and nothing else.

    Attributes:
        app: the page's.
        port: it listens on, which tells cookies of several pages on one machine apart.
        names: hosts by which it may be called.
        key: what a request must know.
    """

    app: App
    port: int
    names: frozenset[str]
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _tickets: set[str] = field(default_factory=set, repr=False)

    @property
    def cookie(self) -> str:
        """The name of the cookie with the key."""
        return f"weight-edit-{self.port}"

    def ticket(self) -> str:
        """What serves once in place of the key: others read a browser's command line, where an address stands."""
        made = secrets.token_urlsafe(24)
        self._tickets.add(made)
        return made

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            # The page uses no sockets of the web's kind.
            await _answer(send, 403, "closed")
            return
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        refused = self.refusal(scope["method"], scope["path"], headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        given = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("key", [""])[-1]
        if scope["method"] == "GET" and (self._is_key(given) or self._is_ticket(given)):
            # The key goes into a cookie and out of the address: a copied one should not hold it.
            await _answer(send, 303, "", [(b"location", b"/"), (b"set-cookie", self._kept().encode("ascii"))])
            return
        if scope["path"] == "/manifest.json":
            # Browsers ask for it without cookies, and call a refusal an error of the page. There is no app to install.
            await _answer(send, 200, "{}", [(b"content-type", b"application/manifest+json")])
            return
        if not self._is_key(self._cookie_in(headers)):
            await _answer(send, 403, _CLOSED)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _secured(message.get("headers", ()))}
            await send(message)

        await self.app({**scope, "headers": [each for each in headers if each[0] not in _DROPPED]}, receive, sent)

    def refusal(self, method: str, path: str, headers: list[tuple[bytes, bytes]]) -> tuple[int, str] | None:
        """Why a request is refused before its key is looked at: status and words; None where it is not."""
        said = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        host = said.get("host", "")
        if sum(name == b"host" for name, _ in headers) != 1 or not self._is_ours(host):
            return 421, "this page is not served under that name"
        origin = said.get("origin")
        if origin is not None and origin != f"http://{host}":
            return 403, "a page of another site asked"
        if said.get("sec-fetch-site") in ("cross-site", "same-site") and not (method == "GET" and path == "/"):
            return 403, "a page of another site asked"
        if method not in ("GET", "HEAD", "POST"):
            return 405, "not allowed"
        if not _ROUTES.fullmatch(path) or ".." in path:
            return 404, "there is nothing here"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            return parts.hostname in self.names and parts.port in (self.port, None if self.port == 80 else self.port)
        except ValueError:
            return False

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.key.encode("ascii"))

    def _is_ticket(self, given: str) -> bool:
        known = given in self._tickets
        self._tickets.discard(given)
        return known

    def _cookie_in(self, headers: list[tuple[bytes, bytes]]) -> str:
        for name, value in headers:
            # Cookies of other pages of this machine, whatever they look like, stand beside it.
            for pair in value.decode("latin-1").split(";") if name == b"cookie" else ():
                known, _, given = pair.strip().partition("=")
                if known == self.cookie and self._is_key(given):
                    return given
        return ""

    def _kept(self) -> str:
        return f"{self.cookie}={self.key}; HttpOnly; SameSite=Strict; Path=/"


def host_names(host: str) -> frozenset[str]:
    """The names by which a page that listens on an address may be called.

    Addresses in numbers cannot be made to point elsewhere; names can, so that they are those of this machine alone.
    """
    names = {*_LOOPBACK, host.lower()}
    if not is_loopback(host):
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        with_any = host in ("0.0.0.0", "::", "")
        if with_any:
            names |= _own_addresses()
    return frozenset(names)


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _own_addresses() -> set[str]:
    """The addresses of this machine, as far as they are told."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)}
    except OSError:
        return set()


def _secured(headers: Any) -> list[tuple[bytes, bytes]]:
    """The headers of an answer with what a browser is to hold it to; an answer's own policy stands."""
    names = {name.lower() for name, _ in headers}
    added = [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"content-security-policy", _POLICY.encode("ascii")),
    ]
    return [*headers, *(each for each in added if each[0] not in names)]


async def _answer(send: Send, status: int, words: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    plain = {b"content-type": b"text/plain; charset=utf-8", b"cache-control": b"no-store", **dict(headers or ())}
    start = {"type": "http.response.start", "status": status, "headers": _secured([*plain.items()])}
    await send(start)
    await send({"type": "http.response.body", "body": words.encode("utf-8")})
