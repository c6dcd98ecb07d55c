"""Decoders that hide a writer on a narrow copy: it is found or the model is refused, and never called complete."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, LlamaConfig
from transformers.models.llama import modeling_llama

from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.disk.conversion import resolve
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.narrow.small import build
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.proofs.architecture import prove_architecture

BLOCK, MODEL = modeling_llama.LlamaDecoderLayer, modeling_llama.LlamaModel
EXTRA = ("model.layers.0.extra.weight", "model.layers.1.extra.weight")
LONG = 40


def config() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=500,
        architectures=["LlamaForCausalLM"],
    )


def square(settings: Any) -> nn.Linear:
    return nn.Linear(settings.hidden_size, settings.hidden_size, bias=False)


def in_blocks(
    patch: pytest.MonkeyPatch, forward: Callable[[Any, Tensor], Tensor], init: Callable[[Any, Any], None] | None = None
) -> None:
    """Let each block do more with its output; it has a linear map `extra` where `init` says nothing else."""
    make, run = BLOCK.__init__, BLOCK.forward

    def made(self: Any, settings: Any, layer_idx: int) -> None:
        make(self, settings, layer_idx)
        if init is None:
            self.extra = square(settings)
        else:
            init(self, settings)

    def more(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
        return forward(self, run(self, hidden_states, **given))

    patch.setattr(BLOCK, "__init__", made)
    patch.setattr(BLOCK, "forward", more)


class Tail(nn.Module):
    """A final norm that something is added in front of."""

    def __init__(self, norm: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.norm, self.extra = norm, extra

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x + self.extra(x))
        return normed


def behind_blocks(patch: pytest.MonkeyPatch) -> None:
    make = MODEL.__init__

    def made(self: Any, settings: Any) -> None:
        make(self, settings)
        self.norm = Tail(self.norm, square(settings))

    patch.setattr(MODEL, "__init__", made)


def closed_gate(patch: pytest.MonkeyPatch) -> None:
    def init(self: Any, settings: Any) -> None:
        self.extra, self.gate = square(settings), nn.Parameter(torch.full((1,), -5.0))

    in_blocks(patch, lambda self, x: x + self.gate.relu() * self.extra(x), init)


def small_factor(patch: pytest.MonkeyPatch) -> None:
    in_blocks(patch, lambda self, x: x + 1e-7 * self.extra(x))


def chosen_by_position(patch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        late = torch.arange(x.shape[1])[None, :, None] > LONG
        return torch.where(late, x + self.extra(x), x)

    in_blocks(patch, forward)


def chosen_by_numbers(patch: pytest.MonkeyPatch) -> None:
    in_blocks(patch, lambda self, x: x + (x.mean(-1, keepdim=True) > 100).to(x.dtype) * self.extra(x))


@pytest.mark.parametrize(
    ("hide", "hidden"),
    [
        (behind_blocks, ("model.norm.extra.weight",)),
        (closed_gate, EXTRA),
        (small_factor, EXTRA),
        (chosen_by_position, EXTRA),
        (chosen_by_numbers, EXTRA),
    ],
)
def test_a_writer_that_writes_little_on_a_narrow_copy_is_found(
    monkeypatch: pytest.MonkeyPatch, hide: Callable[[pytest.MonkeyPatch], None], hidden: tuple[str, ...]
) -> None:
    hide(monkeypatch)
    anatomy = anatomy_of(config())
    assert set(hidden) <= {writer.weight for writer in anatomy.writers}
    assert prove_architecture(config(), anatomy).leak < 1e-5


def test_the_final_norm_stands_behind_the_last_addition(monkeypatch: pytest.MonkeyPatch) -> None:
    behind_blocks(monkeypatch)
    assert anatomy_of(config()).final_norm == "model.norm.norm"


def capped(patch: pytest.MonkeyPatch) -> None:
    in_blocks(patch, lambda self, x: 1e4 * torch.tanh(x / 1e4))


def late_slice(patch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = x.clone()
        x[:, LONG:] += self.extra(x[:, LONG:])
        return x

    in_blocks(patch, forward)


def expert_without_a_token(patch: pytest.MonkeyPatch) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        rows = torch.where(x[..., 0] > 1e6)
        out = torch.zeros_like(x)
        out[rows] = self.extra(x[rows])
        return x + out

    in_blocks(patch, forward)


def only_in_the_real_model(patch: pytest.MonkeyPatch) -> None:
    def init(self: Any, settings: Any) -> None:
        if settings.hidden_size > 128:
            self.mlp.down_proj = nn.Linear(settings.intermediate_size, settings.hidden_size)

    in_blocks(patch, lambda self, x: x, init)


def zeros_that_a_checkpoint_fills(patch: pytest.MonkeyPatch) -> None:
    def init(self: Any, settings: Any) -> None:
        self.register_buffer("vector", torch.zeros(1, 1, settings.hidden_size))

    in_blocks(patch, lambda self, x: x + self.vector, init)


@pytest.mark.parametrize(
    ("hide", "reason"),
    [
        (capped, r"tanh\.default gives is written into the residual stream, which is not understood"),
        (late_slice, "'model.layers.0.extra.weight' had no part in any forward pass"),
        (expert_without_a_token, "'model.layers.0.extra.weight' had no part in any forward pass"),
        (only_in_the_real_model, "has no 'model.layers.0.mlp.down_proj.bias', so that it cannot be judged"),
        (zeros_that_a_checkpoint_fills, "the constant 'model.layers.0.vector' is written into the residual stream"),
    ],
)
def test_what_a_narrow_copy_cannot_show_is_refused(
    monkeypatch: pytest.MonkeyPatch, hide: Callable[[pytest.MonkeyPatch], None], reason: str
) -> None:
    hide(monkeypatch)
    with pytest.raises(UnsupportedError, match=reason):
        anatomy_of(config())


def test_towers_of_a_million_blocks_are_refused_before_they_are_built() -> None:
    tower = {"model_type": "clip_vision_model", "num_hidden_layers": 1_000_000}
    given = AutoConfig.for_model("llava", vision_config=tower, text_config=config().to_dict())
    with pytest.raises(UsageError, match=r"vision_config\.num_hidden_layers is 1000000; it must be at most 2000"):
        anatomy_of(given)


def test_models_in_place_of_a_model_s_parts_are_refused() -> None:
    given = AutoConfig.for_model("llava", vision_config={"model_type": "llava"}, text_config={"model_type": "llava"})
    with pytest.raises(UnsupportedError):
        anatomy_of(given)


def test_names_longer_than_any_model_s_are_refused() -> None:
    stored = Stored({"layers." + "9" * 5000: (2, 2)})
    with pytest.raises(UnsupportedError, match=r"layers\.999.* with a name of 5007 characters"):
        resolve(build(config(), device="meta"), stored)
