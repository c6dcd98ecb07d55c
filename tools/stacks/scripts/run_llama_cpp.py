"""Greedy tokens by llama.cpp's server, of a GGUF file or of what its own converter makes of a folder, in F16.

One token is asked for at a time: of several, the server leaves out the probabilities of those that end within a
character, and does not say which these are.
"""

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exchange import serve
from gguf_conversion import convert

OPTIONS = ("--threads", "1", "--parallel", "1", "--ctx-size", "512", "--no-warmup")
# Keys and values are kept in float16 otherwise.
CACHE = ("--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off")
START = 300
"""Seconds that the server may take until it answers."""


def run(model: dict, asked: dict) -> list:
    file = Path(model["folder"])
    if file.is_dir():
        made = Path(asked["scratch"]) / "model.gguf"
        convert(file, made, converter=Path(asked["converter"]), pre_tokenizer=asked["pre_tokenizer"])
        file = made
    with _server(file, asked) as address:
        pairs = zip(asked["prompts"], asked["texts"], strict=True)
        return [_reply(address, prompt, text, asked["new_tokens"]) for prompt, text in pairs]


@contextmanager
def _server(file: Path, asked: dict) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = Path(asked["scratch"]) / "server.log"
    with log.open("w") as out:
        command = [asked["program"], "--model", str(file), "--port", str(port), *OPTIONS, *CACHE]
        server = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        _wait(server, f"http://127.0.0.1:{port}", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen, address: str, log: Path) -> None:
    until = time.monotonic() + START
    while server.poll() is None:
        if time.monotonic() > until:
            raise ValueError(f"server: no answer within {START} s")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    said = [line for line in log.read_text(errors="replace").splitlines() if "error" in line.lower()]
    raise ValueError(f"server: {said[0] if said else 'it ended'}")


def _reply(address: str, prompt: list, text: str, new_tokens: int) -> dict:
    settings = {"n_predict": 1, "temperature": 0, "samplers": ["temperature"], "n_probs": 2, "return_tokens": True}
    tokens, top = [], []
    for _ in range(new_tokens):
        done = _post(f"{address}/completion", {"prompt": [*prompt, *tokens], **settings})
        tokens += done["tokens"]
        # Left out where the token ends within a character.
        steps = done.get("completion_probabilities") or [None]
        top.append(steps[0] and [[each["id"], each["logprob"]] for each in steps[0]["top_logprobs"]])
    read = _post(f"{address}/tokenize", {"content": text, "add_special": False})["tokens"]
    return {"tokens": tokens, "top": top, "read": read}


def _post(address: str, body: dict) -> dict:
    sent = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(sent, timeout=600) as reply:
        return json.load(reply)


serve(run)
