"""The server of the local page: one address, on loopback unless told otherwise, and no requests of its own."""

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.checkpoint.files import printable
from weight_edit.errors import UsageError
from weight_edit.ui.guard import Guard, host_names, is_loopback
from weight_edit.utils.extras import need

if TYPE_CHECKING:
    from weight_edit.ui.guard import App

PORT = 7860
_PATIENCE = 3.0
"""Seconds that answers have that are being given at the end."""

_PORTS = 20
"""Ports that are tried where none is asked for."""

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_SSR_MODE": "False",
    "GRADIO_MCP_SERVER": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""The library's own requests, and its other servers, off; it reads this when it is imported."""


def serve(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    run: str | None = None,
    opened: bool = True,
    say: Callable[[str], None] = print,
    ready: Callable[[Mapping[str, object]], None] | None = None,
) -> None:
    """Serve the page until Ctrl-C; jobs that it started go on.

    Args:
        folder: where projects are; made where it is missing.
        host: the address it listens on.
        port: likewise; None takes the first free one from 7860 on.
        run: a run of the command line to be opened.
        opened: open it in the user's browser.
        say: takes lines for the user, the page's address among them.
        ready: takes address (with its key), host, port and folder as JSON values, once it listens.

    Raises:
        UsageError: the library is missing, the port is taken, the folder cannot be written, or `run` is none.
    """
    need("gradio", "the local page")
    folder = _made(folder)
    if run is not None:
        from weight_edit.ui.project import open_run

        open_run(folder, run)
    listening = _listen(host, port)
    number = int(listening.getsockname()[1])
    guard = Guard(page_app(folder), number, host_names(host))
    shown = f"[{host}]" if ":" in host else host
    if not is_loopback(host):
        say(
            f"weight-edit: anybody who reaches {shown}:{number} and has the key below can read files and run commands "
            "as you do, and what is sent is not encrypted; 127.0.0.1 is for this machine alone"
        )
    place = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else shown}:{number}/?key="
    address = f"{place}{guard.key}"
    say(f"projects are in {printable(str(folder))}")
    say(f"the page is at {address}")
    say("Ctrl-C ends the page; what it has started goes on, and is there when it is opened again")
    if ready is not None:
        ready({"address": address, "host": host, "port": number, "folder": str(folder)})
    if opened:
        threading.Timer(1.0, webbrowser.open, [f"{place}{guard.ticket()}"]).start()
    _run(guard, listening)


def page_app(folder: Path) -> "App":
    """The page as an ASGI app, without its guard."""
    for name, value in _QUIET.items():
        os.environ[name] = value
    # Nothing is uploaded; what the library keeps for a moment is no other user's to read.
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="weight-edit-ui-")
    import gradio
    from fastapi import FastAPI

    from weight_edit.ui.page import STYLE, page, script, theme
    from weight_edit.ui.report_route import add_report

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    add_report(app, folder)
    blocks = page(folder)
    blocks.queue(api_open=False, default_concurrency_limit=8)
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name="127.0.0.1",
        theme=theme(),
        css_paths=STYLE,
        head=script(),
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        blocked_paths=[str(folder)],
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )


def _run(guard: Guard, listening: socket.socket) -> None:
    import uvicorn

    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # A shell starts what is behind `&` so, and jobs would inherit it: nothing could stop them.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config = uvicorn.Config(
        guard, log_level="critical", access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    threading.Thread(target=_end, args=(server,), daemon=True, name="end").start()
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        _remove_temporary()


def _end(server: Any) -> None:
    """End the process soon after it was asked to: an open tab or a chat's pass would hold it, and nothing is lost."""
    while not server.should_exit:
        time.sleep(0.2)
    time.sleep(_PATIENCE)
    _remove_temporary()
    os._exit(0)


def _remove_temporary() -> None:
    """Remove the folder that `page_app` made for the library."""
    shutil.rmtree(os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{printable(str(folder))} cannot be made: {error.strerror}", option="folder") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{printable(str(folder))} cannot be written", option="folder")
    return folder.resolve()


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens on an address."""
    tried = [port] if port is not None else [*range(PORT, PORT + _PORTS), 0]
    problem: OSError | None = None
    for number in tried:
        try:
            family = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, number), family=family)
        except OverflowError as error:
            raise UsageError(f"{number} is no port; take one of 1 to 65535", option="port") from error
        except socket.gaierror as error:
            raise UsageError(f"{printable(host)} is no address of this machine", option="host") from error
        except OSError as error:
            problem = error
    assert problem is not None
    said = f"port {port} of {printable(host)}" if port is not None else printable(host)
    raise UsageError(f"{said} cannot be listened on: {problem.strerror}", option="port" if port is not None else "host")
