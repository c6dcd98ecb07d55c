"""A chat server on this machine that speaks OpenAI's protocol, with faults by script.

    with ChatServer(lambda body: "refused") as server:
        server.faults += [Fault(status=429, headers={"Retry-After": "0"}), Fault(kind="drop")]
        client = ChatClient(server.url, "model", ...)

The first request meets the first fault, the second one the second, and so on; those after the last fault are answered.
`fault_of` decides by what is asked, whatever comes first.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | Mapping[str, Any]
"""The text of an answer, or the first choice as a whole."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way in which a request goes wrong.

    `kind` is "status" (with `status`, `headers` and `body`), "drop" (no answer at all), "cut" (half of a body), "slow"
    (an answer after `seconds`), "drip" (a byte now and then), "huge" (an endless body), or "none" (a right answer).
    """

    kind: str = "status"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request that came in."""

    path: str
    body: Mapping[str, Any]
    authorization: str | None


class ChatServer:
    """A server in a thread; it answers what `reply` says to the body of a request."""

    def __init__(self, reply: Callable[[Mapping[str, Any]], Reply]) -> None:
        self.reply = reply
        self.faults: list[Fault] = []
        self.fault_of: Callable[[Mapping[str, Any]], Fault | None] = lambda body: None
        self.asked: list[Asked] = []
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0
        server = self

        class Handler(_Handler):
            pass

        Handler.chat = server
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ChatServer":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def take_fault(self, body: Mapping[str, Any]) -> Fault:
        """The fault that a request meets: that of its body, else the next by script."""
        own = self.fault_of(body)
        if own is not None:
            return own
        with self.lock:
            return self.faults.pop(0) if self.faults else Fault(kind="none")


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = Asked(path=self.path, body=body, authorization=self.headers.get("Authorization"))
        with self.chat.lock:
            self.chat.asked.append(asked)
            self.chat.at_once += 1
            self.chat.most_at_once = max(self.chat.most_at_once, self.chat.at_once)
        try:
            self.answer(body, self.chat.take_fault(body))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.chat.lock:
                self.chat.at_once -= 1

    def answer(self, body: Mapping[str, Any], fault: Fault) -> None:
        if fault.kind == "drop":
            self.close_connection = True
            return
        if fault.kind == "status":
            self.send(fault.status, fault.body.encode(), fault.headers)
            return
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        if fault.kind == "huge":
            self.send_response(200)
            self.send_header("Content-Length", str(10**9))
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(b" " * 100_000)
            return
        data = json.dumps(self.completion(body)).encode()
        if fault.kind in ("cut", "drip"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for number in range(len(data) // 2):
                self.wfile.write(data[number : number + 1])
                if fault.kind == "drip":
                    time.sleep(fault.seconds)
            self.close_connection = True
            return
        self.send(200, data)

    def completion(self, body: Mapping[str, Any]) -> dict[str, Any]:
        said = self.chat.reply(body)
        choice = {"message": {"role": "assistant", "content": said}} if isinstance(said, str) else dict(said)
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", **choice}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        }

    def send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
