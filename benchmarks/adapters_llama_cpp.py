"""A GGUF file's adapter in llama.cpp, dosed, against the bakes at these strengths, and against PEFT's in transformers.

    python benchmarks/adapters_llama_cpp.py MODEL.gguf DIRECTIONS --server llama-server [--peft]

One server has the file and the adapter, and doses it in each request; one more for each bake. Of the greedy answers:
equal tokens, the margin where they part, and the largest difference of the log-probabilities of the likeliest tokens up
to there. With `--peft`, transformers reads the file in float32 (use an F32 file, and a model that fits), PEFT's adapter
of that model is dosed by `set_scale`, and the log-probabilities of the tokens that llama.cpp chose are compared. With
`--add-at LAYER` the edit is an addition, a control vector, held against a hook in transformers.
"""

import argparse
import json
import math
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from weight_edit.adapters.adapter import adapter
from weight_edit.baking.bake import bake
from weight_edit.utils import progress

STRENGTHS = (0.0, 0.5, 1.0)
PROMPTS = ("The capital of France is", "To sharpen a pencil, first", "def fibonacci(n):", "My favourite colour is")
TOKENS, LIKELIEST = 8, 8


@contextmanager
def server(program: str, *arguments: str | Path) -> Iterator[str]:
    """The address of a running llama-server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # In float32 all the way, so that what differs is the edit.
    exact = ["-ctk", "f32", "-ctv", "f32", "-fa", "off"]
    given = [*exact, "-t", "1", "-c", "512", "-np", "1", "--port", str(port), "--no-webui"]
    running = subprocess.Popen(
        [program, *map(str, arguments), *given], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            if running.poll() is not None:
                raise SystemExit(f"llama-server ended with {running.returncode}")
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        running.terminate()
        running.wait()


def answer(address: str, prompt: str, scale: float | None) -> list[dict[str, Any]]:
    """Each token of a greedy answer, with the log-probabilities of the likeliest ones."""
    asked: dict[str, Any] = {"prompt": prompt, "n_predict": TOKENS, "temperature": 0, "n_probs": LIKELIEST}
    asked |= {"cache_prompt": False, "post_sampling_probs": False}
    if scale is not None:
        asked["lora"] = [{"id": 0, "scale": scale}]
    request = urllib.request.Request(
        f"{address}/completion", json.dumps(asked).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as reply:
        found: list[dict[str, Any]] = json.loads(reply.read())["completion_probabilities"]
    return found


def compared(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> str:
    """Equal tokens, the widest margin where answers part, and the largest difference of log-probabilities."""
    equal = total = 0
    widest, margin = 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        for one, two in zip(a, b, strict=False):
            total += 1
            left, right = ({each["id"]: each["logprob"] for each in it["top_logprobs"]} for it in (one, two))
            both = [abs(left[token] - right[token]) for token in left.keys() & right.keys()]
            widest = max(widest, *both)
            if one["id"] != two["id"]:
                margin = max(margin, left[one["id"]] - left.get(two["id"], -math.inf))
                break
            equal += 1
    parted = "" if equal == total else f", parted at a margin of {margin:.1e}"
    return f"{equal} of {total} tokens equal{parted}; log-probabilities within {widest:.1e}"


def by_peft(file: Path, directions: Path, answers: dict[float, list[list[dict[str, Any]]]]) -> Iterator[str]:
    """The largest difference to the log-probabilities that transformers and PEFT give."""
    import torch
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    # The same numbers in a model that does not say that it came from such a file.
    config = type(read.config)(**{k: v for k, v in read.config.to_dict().items() if k != "quantization_config"})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    with tempfile.TemporaryDirectory() as place:
        model.save_pretrained(f"{place}/base")
        adapter(f"{place}/base", directions, f"{place}/lora", embeddings="skip", strengths=STRENGTHS[1:])
        adapted = PeftModel.from_pretrained(model, f"{place}/lora").eval()
    for scale, found in answers.items():
        for module in adapted.modules():
            if isinstance(module, LoraLayer):
                module.set_scale("default", scale)
        widest = _widest(adapted, tokenizer, found)
        yield f"scale {scale:g}, PEFT in transformers: log-probabilities within {widest:.1e}"


def by_hook(file: Path, vector: Any, layer: int, answers: dict[float, list[list[dict[str, Any]]]]) -> Iterator[str]:
    """The largest difference to the log-probabilities of transformers with the vector added at a block's input."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    added = torch.from_numpy(vector)
    for scale, found in answers.items():

        def add(module: Any, inputs: Any, scale: float = scale) -> Any:
            return (inputs[0] + scale * added, *inputs[1:])

        handle = model.model.layers[layer].register_forward_pre_hook(add)
        widest = _widest(model, tokenizer, found)
        yield f"scale {scale:g}, a hook in transformers: log-probabilities within {widest:.1e}"
        handle.remove()


def _widest(model: Any, tokenizer: Any, found: list[list[dict[str, Any]]]) -> float:
    """The largest difference of a model's log-probabilities from those of answers to the prompts."""
    import torch

    widest = 0.0
    for prompt, tokens in zip(PROMPTS, found, strict=True):
        ids = tokenizer(prompt)["input_ids"]
        whole = torch.tensor([ids + [each["id"] for each in tokens]])
        with torch.inference_mode():
            logprobs = model(whole).logits[0].log_softmax(-1)
        for place_of, each in enumerate(tokens, len(ids) - 1):
            widest = max(
                widest, *(abs(float(logprobs[place_of, it["id"]]) - it["logprob"]) for it in each["top_logprobs"])
            )
    return widest


def vectors(given: argparse.Namespace, place: str) -> None:
    """Print a line for each strength of an addition."""
    from gguf import GGUFReader

    made = adapter(
        given.model,
        given.directions,
        f"{place}/vector",
        kind="add",
        at=given.add_at,
        strength=given.strength,
        options={"length": "unit"},
    )
    path = made.path / made.files[0]
    (vector,) = (tensor.data.copy() for tensor in GGUFReader(path).tensors)
    dosed = {}
    for scale in STRENGTHS:
        with server(given.server, "-m", given.model, "--control-vector-scaled", f"{path}:{scale}") as address:
            dosed[scale] = [answer(address, prompt, None) for prompt in PROMPTS]
        print(f"scale {scale:g} moved: {compared(dosed[0.0], dosed[scale])}", flush=True)
    for line in by_hook(given.model, vector, given.add_at, dosed):
        print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each strength."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("directions", type=Path)
    parser.add_argument("--server", default="llama-server")
    parser.add_argument("--peft", action="store_true")
    parser.add_argument("--add-at", type=int)
    parser.add_argument("--strength", type=float, default=1.0)
    given = parser.parse_args(argv)
    with progress.quieted(True), tempfile.TemporaryDirectory() as place:
        if given.add_at is not None:
            vectors(given, place)
            return
        made = adapter(given.model, given.directions, f"{place}/lora", embeddings="skip", strengths=STRENGTHS[1:])
        size = sum((made.path / file).stat().st_size for file in made.files)
        print(f"{given.model.name}: rank {made.rank}, {len(made.modules)} tensors, {size / 1e3:.0f} kB", flush=True)
        with server(given.server, "-m", given.model, "--lora", made.path / made.files[0]) as address:
            dosed = {scale: [answer(address, prompt, scale) for prompt in PROMPTS] for scale in STRENGTHS}
        for scale in STRENGTHS:
            file = given.model
            if scale:
                bake(given.model, given.directions, f"{place}/{scale}", strength=scale, embeddings="skip")
                file = Path(place) / str(scale) / given.model.name
            with server(given.server, "-m", file) as address:
                baked = [answer(address, prompt, None) for prompt in PROMPTS]
            print(f"scale {scale:g}, bake in llama.cpp: {compared(dosed[scale], baked)}", flush=True)
            print(f"  moved: {compared(dosed[0.0], dosed[scale])}", flush=True)
        if given.peft:
            for line in by_peft(given.model, given.directions, dosed):
                print(line, flush=True)


if __name__ == "__main__":
    main()
