"""A program with llama-server's command line that answers without a model; it writes down how it was called.

    program = fake_program(folder, "fine")

Ways to behave: "fine"; "slow" (it is never ready); "unknown" (an architecture that it does not know); "crash" (it ends
at the first question); "stubborn" (it does not end when asked to); "stranger" (another server's name at this port).
"""

import argparse
import json
import os
import signal
import stat
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def fake_program(folder: Path, way: str = "fine") -> Path:
    """The path of a program in `folder`, which appends to `calls.jsonl` there."""
    path = folder / "llama-server"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {way} "{folder}/calls.jsonl" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def calls(folder: Path) -> list[dict]:
    """What was written down: each start, then each question."""
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text().splitlines()]


def serve(way: str, record: Path, words: list[str]) -> None:
    def note(entry: dict) -> None:
        with record.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    parser = argparse.ArgumentParser()
    for name in ("--model", "--host", "--alias", "--samplers", "--chat-template"):
        parser.add_argument(name)
    for name in ("--port", "--parallel", "--ctx-size", "--mirostat"):
        parser.add_argument(name, type=int)
    for name in ("--temp", "--repeat-penalty"):
        parser.add_argument(name, type=float)
    parser.add_argument("--jinja", action="store_true")
    options = parser.parse_args(words)
    note({"pid": os.getpid(), "options": vars(options), "environment": dict(os.environ)})
    if way == "unknown":
        print("0.00.006.971 E llama_model_load: error loading model: unknown model architecture: 'flubber'", flush=True)
        print("0.00.007.267 E srv  llama_server: exiting due to model loading error", flush=True)
        raise SystemExit(1)
    if way == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path == "/health":
                self.send({"status": "ok"}, 503 if way == "slow" else 200)
            else:
                self.send({"data": [{"id": "another" if way == "stranger" else options.alias}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            note({"body": body, "authorization": self.headers["Authorization"]})
            if way == "crash":
                print(f"0.01.0 E ggml.c: GGML_ASSERT failed in {Path.home()}/ggml.c with {options.model}", flush=True)
                os._exit(134)
            said = f"Sure: {body['messages'][-1]['content'][:20]}"
            entry = {"token": "Sure", "logprob": -0.1, "top_logprobs": [{"token": "Sure", "logprob": -0.1}]}
            choice = {"message": {"content": said}, "finish_reason": "stop", "logprobs": {"content": [entry]}}
            self.send({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 4}})

        def send(self, content: dict, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    print(f"0.00.1 I srv: listening on port {options.port}", flush=True)
    server = ThreadingHTTPServer((options.host, options.port), Handler)
    server.daemon_threads = True
    server.serve_forever(poll_interval=0.02)
    time.sleep(0)


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
