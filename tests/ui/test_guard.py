"""Who may ask the page, and for what: names, origins, routes and the key."""

import asyncio
from typing import Any

import pytest

from weight_edit.ui.guard import Guard, host_names, is_loopback

PORT = 7860


async def inner(scope: Any, receive: Any, send: Any) -> None:
    forwarded = [name for name, _ in scope["headers"] if name.startswith(b"x-forwarded")]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": repr(forwarded).encode()})


GUARD = Guard(inner, PORT, host_names("127.0.0.1"))
COOKIE = f"{GUARD.cookie}={GUARD.key}"


def asked(
    path: str = "/", method: str = "GET", query: str = "", guard: Guard = GUARD, **headers: str
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer; the page's own Host and cookie unless told."""
    given = {
        "host": f"127.0.0.1:{PORT}",
        "cookie": COOKIE,
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items() if value],
    }
    asyncio.run(guard(scope, None, send))  # type: ignore[arg-type]
    said = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], said, sent[1]["body"].decode()


def test_the_page_gets_through_and_loads_nothing_of_others() -> None:
    status, headers, _ = asked()
    assert status == 200
    policy = dict(each.strip().split(" ", 1) for each in headers["content-security-policy"].split(";"))
    assert all("http" not in allowed and "*" not in allowed for allowed in policy.values())
    assert policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST:7860"])
def test_names_of_this_machine_are_its_own(host: str) -> None:
    assert asked(host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example:7860", "127.0.0.1.evil.example:7860", "127.0.0.1:1", "127.0.0.1", "a@127.0.0.1:x", "[::1"],
)
def test_another_name_is_refused(host: str) -> None:
    assert asked(host=host)[0] == 421


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:7860", "http://127.0.0.1:7861"])
def test_another_sites_request_is_refused(origin: str) -> None:
    assert asked("/gradio_api/queue/join", "POST", origin=origin)[0] == 403
    assert asked("/gradio_api/queue/join", "POST", origin=f"http://127.0.0.1:{PORT}")[0] == 200


def test_another_site_may_link_to_the_page_and_no_further() -> None:
    assert asked(sec_fetch_site="cross-site")[0] == 200
    assert asked("/config", sec_fetch_site="cross-site")[0] == 403
    assert asked("/", "POST", sec_fetch_site="same-site")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/file=/etc/passwd",
        "/gradio_api/proxy=https://example.com/",
        "/gradio_api/upload",
        "/gradio_api/upload_progress",
        "/gradio_api/stream/x",
        "/gradio_api/component_server",
        "/gradio_api/call/x",
        "/gradio_api/runs",
        "/gradio_api/dev/reload",
        "/monitoring",
        "/login",
        "/docs",
        "/assets/../../secret",
        "/static/..%2f..%2fsecret/../x",
        "/custom_component/x/client/component/../../../x",
        "/report/a/b/c",
        "/svelte/..",
    ],
)
def test_what_the_page_does_not_need_is_closed(path: str) -> None:
    assert asked(path)[0] == 404


def test_the_manifest_needs_no_key_and_says_nothing() -> None:
    """Browsers ask for it without cookies."""
    status, headers, said = asked("/manifest.json", cookie="")
    assert (status, headers["content-type"], said) == (200, "application/manifest+json", "{}")
    assert asked("/manifest.json", cookie="", host="evil.example:7860")[0] == 421


def test_other_methods_are_not_allowed() -> None:
    assert asked(method="DELETE")[0] == 405
    assert asked(method="OPTIONS")[0] == 405


def test_without_the_key_nothing_is_told() -> None:
    for cookie in ("", f"{GUARD.cookie}=", f"{GUARD.cookie}={GUARD.key}x", "a=b", f"weight-edit-1={GUARD.key}"):
        status, _, said = asked(cookie=cookie)
        assert status == 403
        assert GUARD.key not in said


@pytest.mark.parametrize(
    "other", ['a={"x":1}', "a[b]=1", "foo bar", "noequals", "x=caf\u00e9", "a:b=1", "", f"{GUARD.cookie}=older"]
)
def test_cookies_of_other_pages_do_not_lock_out(other: str) -> None:
    assert asked(cookie=f"{other}; {COOKIE}")[0] == 200
    assert asked(cookie=f"{COOKIE}; {other}")[0] == 200


def test_every_address_of_this_machine_that_it_listens_on_is_a_name() -> None:
    assert Guard(inner, PORT, host_names("127.0.0.2")).refusal("GET", "/", [(b"host", b"127.0.0.2:7860")]) is None


def test_the_key_goes_from_the_address_into_a_cookie() -> None:
    status, headers, _ = asked(query=f"key={GUARD.key}", cookie="")
    assert (status, headers["location"]) == (303, "/")
    assert headers["set-cookie"].startswith(COOKIE)
    assert "HttpOnly" in headers["set-cookie"]
    assert "SameSite=Strict" in headers["set-cookie"]
    assert asked(query="key=wrong", cookie="")[0] == 403
    assert Guard(inner, PORT, frozenset()).key != GUARD.key


def test_a_ticket_serves_once_and_its_cookie_holds_the_key() -> None:
    ticket = GUARD.ticket()
    assert ticket not in (GUARD.key, GUARD.ticket())
    status, headers, _ = asked(query=f"key={ticket}", cookie="")
    assert (status, headers["set-cookie"].split(";")[0]) == (303, COOKIE)
    assert asked(query=f"key={ticket}", cookie="")[0] == 403
    assert asked(cookie=f"{GUARD.cookie}={GUARD.ticket()}")[0] == 403


def test_what_a_proxy_would_say_is_not_believed() -> None:
    assert asked(x_forwarded_host="evil.example", x_forwarded_proto="https")[2] == "[]"


def test_the_key_is_in_no_representation() -> None:
    assert GUARD.key not in repr(GUARD)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("127.3.0.1", True),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("::", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_all_else(host: str, known: bool) -> None:
    assert is_loopback(host) is known


def test_sockets_of_the_webs_kind_are_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(GUARD({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent[0]["status"] == 403
