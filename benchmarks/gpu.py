"""What `find` asks of a large model, on a GPU: rates against the bare forward pass, and variants to a pass.

    python benchmarks/gpu.py [--shape 8b|1b|tiny] [--prompts N] [--candidates N]

A Llama of the given shape with random bfloat16 weights is made on the device (8b on CUDA, else tiny). Its prompts are
random tokens behind a common beginning, as long as Qwen's chat template and instructions of a line. Told are tokens per
second of collecting activations and of the bare backbone, ablated candidates per minute one by one and mixed, the
variants that share a pass, additions resumed from the plain stream against additions run whole, and the peak of memory.
All of it takes some minutes on one H100 or H200, and seconds as `tiny` on a processor.
"""

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from weight_edit.plan.hooks import ablation_hooks
from weight_edit.runtime import passes, request
from weight_edit.runtime.activations import residuals
from weight_edit.runtime.batching import batches
from weight_edit.runtime.forward import next_token
from weight_edit.runtime.hooks import addition_hook
from weight_edit.runtime.loading import Model
from weight_edit.runtime.memory import sequences_at_once
from weight_edit.runtime.points import Point
from weight_edit.runtime.trunk import Trunk
from weight_edit.runtime.variants import PLAIN, Variant
from weight_edit.utils.progress import set_quiet

SHAPES = {
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "tiny": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 8},
}
VOCABULARY = {"8b": 128256, "1b": 128256, "tiny": 8192}
PREFIX = 24


def model_of(shape: str, device: str) -> Model:
    """A model of a shape, with random weights."""
    config = LlamaConfig(
        **SHAPES[shape], num_key_value_heads=8, vocab_size=VOCABULARY[shape], rope_theta=5e5, pad_token_id=0
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return Model.from_parts(model, None, name=f"random {shape}")


def prompts_of(model: Model, count: int) -> list[list[int]]:
    """Prompts of 34 to 60 tokens, 24 of them in common."""
    generator = torch.Generator().manual_seed(1)

    def drawn(length: int) -> list[int]:
        return torch.randint(1, model.vocabulary, (length,), generator=generator).tolist()

    common = drawn(PREFIX)
    return [common + drawn(10 + number % 27) for number in range(count)]


class Clock:
    """Times of what runs on a device."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"

    def of(self, way: Callable[[], object]) -> float:
        """Seconds of one run, after one to warm up."""
        way()
        return self.once(way)

    def once(self, way: Callable[[], object]) -> float:
        """Seconds of one run."""
        self._wait()
        start = time.perf_counter()
        way()
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


@contextmanager
def rows_per_pass():
    """Within the context, the rows and variants of passes are noted in the list that is handed over."""
    found: list[tuple[int, int]] = []
    as_pass = request.as_pass

    def noted(batch, step):
        found.append((len(batch.rows), len(batch.runs)))
        return as_pass(batch, step)

    with mock.patch.object(request, "as_pass", noted):
        yield found


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=32)
    options = parser.parse_args()
    set_quiet(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shape = options.shape or ("8b" if device == "cuda" else "tiny")
    started = time.perf_counter()
    model, clock = model_of(shape, device), Clock(device)
    prompts = prompts_of(model, options.prompts)
    tokens = sum(map(len, prompts))
    parameters = sum(each.numel() for each in model.model.parameters())
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    print(f"{shape}: {parameters / 1e9:.2f}B bfloat16 on {name}, made in {time.perf_counter() - started:.0f} s")
    print(f"prompts: {len(prompts)}, {tokens} tokens, {PREFIX} of each in common", flush=True)

    points = [Point("resid_pre", layer) for layer in range(model.anatomy.n_layers)]
    size = sequences_at_once(model, max(map(len, prompts)), 0)

    def bare() -> None:
        with torch.no_grad():
            for batch in batches(prompts, batch_size=size):
                ids, mask = batch.ids.to(device), batch.mask.to(device)
                model.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)

    def ours() -> None:
        residuals(model, prompts, points, (-1, -2, -3, -4, -5), description=None)

    def whole() -> None:
        with mock.patch.object(passes, "common_prefix", return_value=[]):
            ours()

    times = {way.__name__: clock.of(way) for way in (bare, whole, ours)}
    for way, found in times.items():
        print(f"activations, {way}: {tokens / found:.0f} tokens/s, {times['bare'] / found:.2f} of bare", flush=True)

    validation = prompts[:32]
    width, layers = model.anatomy.d_model, model.anatomy.n_layers
    vectors = torch.randn(options.candidates, width, generator=torch.Generator().manual_seed(2))
    ablated = [Variant(tuple(ablation_hooks(model, vector[None]))) for vector in vectors]

    def read(rows, logits):
        return logits.float().logsumexp(dim=-1).tolist()

    def mixed() -> None:
        next_token(model, validation, read, variants=ablated, description=None)

    def apart() -> None:
        for variant in ablated:
            next_token(model, validation, read, variants=[variant], description=None)

    for way in (apart, mixed):
        with rows_per_pass() as noted:
            seconds = clock.of(way)
        rows, variants = max(noted)
        print(
            f"ablated candidates on {len(validation)} prompts, {way.__name__}: {60 * len(ablated) / seconds:.0f} a "
            f"minute, {variants} variants and {rows} rows to a pass",
            flush=True,
        )

    added = [
        Variant((addition_hook(model, layers * number // len(vectors), vector),))
        for number, vector in enumerate(vectors)
    ]
    trunk = Trunk(model, validation, range(layers))
    next_token(model, validation, read, variants=[PLAIN], trunk=trunk, description=None)
    for told, kept in (("run whole", None), ("resumed", trunk)):
        seconds = clock.of(
            lambda kept=kept: next_token(model, validation, read, variants=added, trunk=kept, description=None)
        )
        print(f"added candidates, {told}: {60 * len(added) / seconds:.0f} a minute", flush=True)
    if device == "cuda":
        print(f"peak of memory: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")
    print(f"all: {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
