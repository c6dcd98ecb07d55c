"""The anatomy of the supported families, and refusals that name what is not understood."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from tests.helpers.families import FAMILIES, family_config
from weight_edit.anatomy.derive import anatomy_of
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.errors import UnsupportedError
from weight_edit.proofs.architecture import measure_ablation

EXPECTED = {
    "llama": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj", None),
    "qwen2": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj", None),
    "qwen3": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj", None),
    "mistral": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj", None),
    "gemma2": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj", "post_attention_layernorm"),
    "gemma3": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.mlp.down_proj", "post_attention_layernorm"),
    "gpt2": ("transformer.h.{}.attn.c_proj", "transformer.h.{}.mlp.c_proj", None),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_writers_norms_axes_and_biases(family: str) -> None:
    anatomy = anatomy_of(family_config(family))
    attention, mlp, norm = EXPECTED[family]
    assert [block.layer for block in anatomy.blocks] == [0, 1, 2]
    for block in anatomy.blocks:
        first, second = block.writers
        assert (first.role, first.module) == ("attention", attention.format(block.layer))
        assert (second.role, second.module) == ("mlp", mlp.format(block.layer))
        assert block.mid is not None
        for writer in block.writers:
            assert writer.axis == (1 if family == "gpt2" else 0)
            assert (writer.bias is not None) == (family == "gpt2")
            assert (writer.norm is not None) == (norm is not None)
            assert writer.scale == 1.0
        if norm is not None:
            assert first.norm is not None
            assert first.norm.module.endswith(norm)
            assert (first.norm.kind, first.norm.gain_offset) == ("rms", 1.0)
    roles = [writer.role for writer in anatomy.embeddings]
    assert roles == (["embedding", "position"] if family == "gpt2" else ["embedding"])
    assert anatomy.tied == (family in ("gemma2", "gemma3", "gpt2"))


def test_readers_are_the_maps_behind_the_norms() -> None:
    block = anatomy_of(family_config("llama")).blocks[1]
    attention, mlp = block.readers
    assert attention.norm == "model.layers.1.input_layernorm"
    assert [name.rsplit(".", 1)[1] for name in attention.modules] == ["q_proj", "k_proj", "v_proj"]
    assert mlp.norm == "model.layers.1.post_attention_layernorm"
    assert [name.rsplit(".", 1)[1] for name in mlp.modules] == ["gate_proj", "up_proj"]


def test_the_real_width_is_reported_not_the_narrow_one() -> None:
    config = AutoConfig.for_model("llama", num_hidden_layers=2, hidden_size=320, num_attention_heads=4, head_dim=48)
    anatomy = anatomy_of(config)
    assert anatomy.d_model == 320
    assert anatomy.shapes["model.layers.1.self_attn.o_proj.weight"] == (320, 192)


@pytest.mark.parametrize(
    ("model_type", "named"),
    [
        ("minimax", "the norm 'model.layers.0.post_attention_layernorm' lies in the residual stream"),
        ("t5", "encoder-decoder"),
        (
            "rwkv",
            r"in 'rwkv\.blocks\.0\.feed_forward', what aten\.mul\.Tensor gives is written into the residual stream",
        ),
    ],
)
def test_what_is_not_understood_is_refused_by_name(model_type: str, named: str) -> None:
    config = AutoConfig.for_model(model_type)
    if hasattr(config, "num_hidden_layers") and model_type != "t5":
        config.num_hidden_layers = 2
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:2]
    with pytest.raises(UnsupportedError, match=named):
        anatomy_of(config)


class Hidden:
    """Ways to add something to the stream beside the parts of a block; x is the stream, read a norm of it."""

    @staticmethod
    def square(x: Any, read: Any) -> Any:
        return 0.01 * x.square()

    @staticmethod
    def constant(x: Any, read: Any) -> Any:
        return torch.linspace(0, 0.1, x.shape[-1])

    @staticmethod
    def number(x: Any, read: Any) -> Any:
        return 0.01

    @staticmethod
    def map_of_a_matrix_that_is_no_parameter(x: Any, read: Any) -> Any:
        return read @ torch.linspace(-1, 1, x.shape[-1] ** 2).view(x.shape[-1], -1).cos()

    @staticmethod
    def gated_copy_of_the_norm(x: Any, read: Any) -> Any:
        return torch.sigmoid(read.mean(-1, keepdim=True)) * read

    @staticmethod
    def gate_per_channel(x: Any, read: Any) -> Any:
        return torch.sigmoid(read) * x

    @staticmethod
    def neighbour(x: Any, read: Any) -> Any:
        return x.roll(1, -1)


WAYS = sorted(name for name in vars(Hidden) if not name.startswith("_"))


@pytest.mark.parametrize("way", WAYS)
def test_a_hidden_writer_is_noticed_and_named(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What adds something to the stream on the side stops the analysis, and is not passed over."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    original = LlamaDecoderLayer.forward

    def forward(self, hidden_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        added = getattr(Hidden, way)(hidden_states, self.input_layernorm(hidden_states))
        return original(self, hidden_states, *args, **kwargs) + added

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    with pytest.raises(UnsupportedError, match=r"model\.layers\.0.* (is written into|lies in) the residual stream"):
        anatomy_of(family_config("llama"))


def test_a_hidden_parameter_is_a_writer_like_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector that a block adds beside its parts needs no name that anyone knows."""
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer

    original = LlamaDecoderLayer.forward

    def forward(self, hidden_states, *args, **kwargs):  # type: ignore[no-untyped-def]
        return original(self, hidden_states, *args, **kwargs) + self.self_attn.q_proj.weight[0]

    monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
    anatomy = anatomy_of(family_config("llama"))
    assert [w.weight.rsplit(".", 2)[1] for w in anatomy.blocks[1].writers] == ["o_proj", "down_proj", "q_proj"]


FAULTS = [
    *((family, "dropped writer") for family in FAMILIES),
    *((family, fault) for family in ("gemma2", "gemma3") for fault in ("ignored norm", "wrong gain")),
    ("gpt2", "dropped position embedding"),
]


@pytest.mark.parametrize(("family", "fault"), FAULTS)
def test_a_broken_anatomy_is_caught_by_the_proof(family: str, fault: str) -> None:
    config = family_config(family)
    anatomy = anatomy_of(config)
    block = anatomy.blocks[1]
    attention, mlp = block.writers
    writers = block.writers
    if fault == "dropped writer":
        writers = (attention,)
    elif fault == "dropped position embedding":
        anatomy = replace(anatomy, embeddings=anatomy.embeddings[:1])
    elif fault == "ignored norm":
        writers = (attention, replace(mlp, norm=None))
    else:
        assert mlp.norm is not None
        writers = (attention, replace(mlp, norm=replace(mlp.norm, gain_offset=0.0)))
    blocks = (anatomy.blocks[0], replace(block, writers=writers), *anatomy.blocks[2:])
    rows = torch.nn.functional.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)))
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    proof = measure_ablation(narrow_model(config), replace(anatomy, blocks=blocks), rows, [{"input_ids": ids}])
    assert proof.leak > 1e-4


def test_a_transposed_axis_is_caught_by_the_proof() -> None:
    """A square output projection edited on its input side raises no error, but leaks."""
    config = AutoConfig.for_model(
        "llama", num_hidden_layers=2, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, vocab_size=97
    )
    config.head_dim = 16
    anatomy = anatomy_of(config)
    from weight_edit.anatomy.narrow.small import build, randomise

    model = build(config)
    randomise(model, 0)
    attention, mlp = anatomy.blocks[0].writers
    assert model.get_parameter(attention.weight).shape == (64, 64)
    wrong = replace(anatomy.blocks[0], writers=(replace(attention, axis=1), mlp))
    rows = torch.nn.functional.normalize(torch.randn(1, 64, generator=torch.Generator().manual_seed(0)))
    ids = torch.randint(3, 90, (2, 9), generator=torch.Generator().manual_seed(1))
    assert (
        measure_ablation(model, replace(anatomy, blocks=(wrong, anatomy.blocks[1])), rows, [{"input_ids": ids}]).leak
        > 1e-2
    )


def test_rotary_scaling_lists_of_the_real_width_do_not_stop_the_narrow_copy() -> None:
    """Phi-3 with a long context has one factor for each of half the head's channels."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "long_factor": [1.0] * 48, "short_factor": [1.0] * 48}
    config = AutoConfig.for_model(
        "phi3", num_hidden_layers=2, original_max_position_embeddings=4096, rope_parameters=rope
    )
    assert anatomy_of(config).n_layers == 2
