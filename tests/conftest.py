"""Small random models of several families in memory, the command line, a Hub on this machine."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from fake_hub import FakeHub
from small_tokenizer import word_tokenizer
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
)

from weight_edit import cli, progress
from weight_edit.runtime import Model

# Small models gain nothing from threads, and on a busy machine wait for one another.
torch.set_num_threads(1)

COMMON = {"vocab_size": 48, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def small_config(family: str):
    """A config of four blocks and width 32; Gemma's window of 4 tokens is shorter than the test prompts."""
    if family == "llama":
        return LlamaConfig(**COMMON, **HEADS, eos_token_id=4, pad_token_id=0, bos_token_id=None)
    if family == "gpt2":
        return GPT2Config(vocab_size=48, n_embd=32, n_layer=4, n_head=4, n_positions=64, eos_token_id=4)
    if family == "gemma3":
        return Gemma3TextConfig(
            **COMMON,
            **HEADS,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"] * 2,
            query_pre_attn_scalar=8,
            eos_token_id=4,
            pad_token_id=0,
            bos_token_id=None,
        )
    raise ValueError(family)


def random_model(family: str, seed: int = 0) -> Model:
    """Weights large enough that attention, positions and norm gains matter to the result."""
    model = AutoModelForCausalLM.from_config(small_config(family), dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(parameter + 0.2 * noise if is_gain else 0.2 * noise)
    return Model.from_parts(model, word_tokenizer(), name=f"random {family}")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share a cache of proven anatomies with one another, and none with the user."""
    before = os.environ.get("WEIGHT_EDIT_CACHE")
    os.environ["WEIGHT_EDIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["WEIGHT_EDIT_CACHE"]
    if before is not None:
        os.environ["WEIGHT_EDIT_CACHE"] = before


@pytest.fixture(scope="session")
def small_model() -> Callable[[str], Model]:
    """`small_model(family)`: one shared model per family; tests leave its weights alone."""
    made: dict[str, Model] = {}

    def get(family: str) -> Model:
        if family not in made:
            made[family] = random_model(family)
        return made[family]

    return get


class Result:
    """Exit code and output of one call of the command line; how far it had come is in `progress`, not in `err`."""

    def __init__(self, code: int, out: str, err: str, progress: list[str]) -> None:
        self.code, self.out, self.err, self.progress = code, out, err, progress

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`call("bake", "organism", ...)`: the command line in this process."""

    def run(*args: str | Path) -> Result:
        told: list[str] = []
        monkeypatch.setattr(progress, "_tell", lambda line: None if progress.is_quiet() else told.append(line))
        monkeypatch.setattr(sys, "argv", ["weight-edit", *map(str, args)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err, told)

    return run


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A Hub on this machine, which huggingface_hub talks to during the test."""
    hub = FakeHub()
    hub.start()
    hub.use(monkeypatch, tmp_path / "cache")
    yield hub
    hub.stop()
