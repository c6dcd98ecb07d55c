"""The server: where it listens, and what it says when it cannot."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from weight_edit.errors import UsageError
from weight_edit.ui import server
from weight_edit.utils import extras


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_it_listens_on_loopback_alone() -> None:
    with server._listen("127.0.0.1", 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "port", "option"), [("127.0.0.1", 99999, "port"), ("no.such.host.invalid", None, "host")]
)
def test_what_cannot_be_listened_on_is_said(host: str, port: int | None, option: str) -> None:
    with pytest.raises(UsageError) as refused:
        server._listen(host, port)
    assert refused.value.options == (option,)


def test_a_port_that_is_taken_is_an_error_where_it_was_asked_for(taken: int) -> None:
    with pytest.raises(UsageError, match=f"port {taken} of 127.0.0.1 cannot be listened on"):
        server._listen("127.0.0.1", taken)


def test_without_the_library_it_is_one_line(call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    done = call("ui", "--folder", tmp_path / "f")
    assert done.code == 2
    assert "needs gradio, which is not installed" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "f").exists()


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        server.serve(tmp_path / "file")


def test_elsewhere_than_on_loopback_it_warns_and_asks_for_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guards = []

    async def app(*_: object) -> None:
        return

    monkeypatch.setattr(server, "page_app", lambda folder: app)
    monkeypatch.setattr(server, "_run", lambda guard, listening: (guards.append(guard), listening.close()))
    for host, warned in (("0.0.0.0", True), ("127.0.0.1", False)):
        said: list[str] = []
        server.serve(tmp_path, host=host, port=0, opened=False, say=said.append)
        assert any("anybody who reaches" in line for line in said) is warned
        assert any(f"/?key={guards[-1].key}" in line for line in said)


def test_the_browser_that_is_opened_gets_no_key_in_its_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    guards, opened = [], []

    class AtOnce:
        def __init__(self, _: float, function: object, given: list[str]) -> None:
            opened.append((function, *given))

        def start(self) -> None:
            return

    monkeypatch.setattr(server, "page_app", lambda folder: None)
    monkeypatch.setattr(server, "_run", lambda guard, listening: (guards.append(guard), listening.close()))
    monkeypatch.setattr(server.threading, "Timer", AtOnce)
    said: list[str] = []
    server.serve(tmp_path, port=0, say=said.append)
    (function, address), (guard,) = opened[0], guards
    assert function is server.webbrowser.open
    assert guard.key not in address
    assert any(guard.key in line for line in said)
    assert guard._is_ticket(address.partition("?key=")[2])


def test_the_librarys_folder_goes_with_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import uvicorn

    kept = tmp_path / "kept"
    (kept / "x").mkdir(parents=True)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(kept))
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: None)
    monkeypatch.setattr(server, "_end", lambda served: None)
    server._run(None, None)  # type: ignore[arg-type]
    assert not kept.exists()
