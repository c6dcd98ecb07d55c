"""Small random models of families as GGUF files in float32, by llama.cpp's conventions."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from weight_edit.anatomy.narrow.randomise import randomise

Array = NDArray[np.float32]
Written = tuple[str, Array]
Change = Callable[[str, Array, Any], Iterator[Written]]
"""(name of the parameter, its values, config) -> names for the table of names, with values."""


def _same(name: str, values: Array, config: Any) -> Iterator[Written]:
    yield name, values


def _interleaved(name: str, values: Array, config: Any) -> Iterator[Written]:
    """Llama: rows of queries and keys in the order of a rotation that turns neighbours instead of halves."""
    kinds = {".q_proj.": config.num_attention_heads, ".k_proj.": config.num_key_value_heads}
    heads = next((count for kind, count in kinds.items() if kind in name), None)
    if heads is not None:
        halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
        values = halves.swapaxes(1, 2).reshape(values.shape)
    yield name, values


def _plus_one(name: str, values: Array, config: Any) -> Iterator[Written]:
    """Gemma and Nemotron: the gains of norms, not their weights."""
    yield name, values + 1 if name.endswith("norm.weight") else values


def _transposed(name: str, values: Array, config: Any) -> Iterator[Written]:
    """GPT-2: its linear maps lie the other way round."""
    linear = name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
    yield name, values.T if linear else values


def _by_kind(name: str, values: Array, config: Any) -> Iterator[Written]:
    """Bloom: queries, keys and values of all heads apart, and not head by head."""
    if "query_key_value" in name:
        heads = values.reshape(config.n_head, 3, config.hidden_size // config.n_head, *values.shape[1:])
        values = heads.swapaxes(0, 1).reshape(values.shape)
    yield name.removeprefix("transformer."), values


def _experts(name: str, values: Array, config: Any) -> Iterator[Written]:
    """Mixtures: gates and ups of the experts apart."""
    if name.endswith("experts.gate_up_proj"):
        half = values.shape[1] // 2
        stem = name.removesuffix("gate_up_proj")
        yield f"{stem}gate_proj.weight", values[:, :half]
        yield f"{stem}up_proj.weight", values[:, half:]
    elif name.endswith("experts.down_proj"):
        yield f"{name}.weight", values
    elif name.endswith("shared_expert_gate.weight"):
        yield name, values.reshape(-1)
    else:
        yield name, values


def _by_turns(name: str, values: Array, config: Any) -> Iterator[Written]:
    """gpt-oss: stacks with the outputs in rows; gates and ups, which lie by turns, apart; sinks."""
    stem, _, last = name.rpartition(".")
    if last.startswith("gate_up_proj"):
        values = values if last.endswith("_bias") else values.swapaxes(1, 2)
        ending = "bias" if last.endswith("_bias") else "weight"
        yield f"{stem}.gate_proj.{ending}", values[:, ::2]
        yield f"{stem}.up_proj.{ending}", values[:, 1::2]
    elif last == "down_proj_bias":
        yield f"{stem}.down_proj.bias", values
    elif last == "down_proj":
        yield f"{name}.weight", values.swapaxes(1, 2)
    else:
        yield (f"{name}.weight" if last == "sinks" else name), values


def _squeezed(name: str, values: Array, config: Any) -> Iterator[Written]:
    """LFM2: convolutions without the axis of size 1."""
    yield name, values[:, 0] if name.endswith("conv.conv.weight") else values


def _recurrent(name: str, values: Array, config: Any) -> Iterator[Written]:
    """Mamba: decay rates, and convolutions without the axis of size 1."""
    if name.endswith("A_log"):
        values = -np.exp(values)
    yield name, values[:, 0] if name.endswith("conv1d.weight") else values


def _tiled(name: str, values: Array, config: Any) -> Iterator[Written]:
    """Qwen 3.5: gains of norms, decay rates, and the value heads of linear attention by turns."""
    keys, size = config.linear_num_key_heads, config.linear_value_head_dim
    shared = config.linear_num_value_heads // keys

    def tiled(part: Array, width: int, axis: int = 0) -> Array:
        moved = np.moveaxis(part, axis, 0)
        heads = moved.reshape(keys, shared, width, *moved.shape[1:]).swapaxes(0, 1)
        return np.moveaxis(heads.reshape(moved.shape), 0, axis)

    queries = 2 * keys * config.linear_key_head_dim
    if name.endswith("norm.weight") and "linear_attn" not in name:
        values = values + 1
    elif name.endswith("A_log"):
        values = tiled(-np.exp(values), 1)
    elif name.endswith("dt_bias"):
        name, values = name.replace("dt_bias", "dt_proj.bias"), tiled(values, 1)
    elif name.endswith(("in_proj_a.weight", "in_proj_b.weight")):
        values = tiled(values, 1)
    elif name.endswith("in_proj_z.weight"):
        values = tiled(values, size)
    elif name.endswith(("in_proj_qkv.weight", "conv1d.weight")):
        values = values[:, 0] if name.endswith("conv1d.weight") else values
        values = np.concatenate([values[:queries], tiled(values[queries:], size)])
    elif name.endswith("linear_attn.out_proj.weight"):
        values = tiled(values, size, axis=1)
    yield name, values


@dataclass(frozen=True)
class Family:
    """How a small model of one family is made and written.

    Attributes:
        architecture: llama.cpp's name.
        settings: of the config.
        metadata: of a file, without the architecture's prefix; "=name" is the config's setting.
        change: of parameters.
    """

    architecture: str
    settings: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    change: Change = _same


_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_USUAL = {
    "context_length": "=max_position_embeddings",
    "embedding_length": "=hidden_size",
    "block_count": "=num_hidden_layers",
    "feed_forward_length": "=intermediate_size",
    "attention.head_count": "=num_attention_heads",
    "attention.head_count_kv": "=num_key_value_heads",
    "vocab_size": "=vocab_size",
}
_RMS = {**_USUAL, "attention.layer_norm_rms_epsilon": "=rms_norm_eps"}
_EXPERTS = {
    "expert_count": "=num_experts",
    "expert_used_count": "=num_experts_per_tok",
    "expert_feed_forward_length": "=moe_intermediate_size",
}
_GEMMA = {**_RMS, "attention.key_length": "=head_dim", "attention.sliding_window": "=sliding_window"}
_SIZES_OF_GPT2 = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 1024, "vocab_size": 97}

FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", {**_SIZES, "head_dim": 24}, {**_RMS, "rope.dimension_count": "=head_dim"}, _interleaved),
    "mistral": Family("llama", {**_SIZES, "head_dim": 24}, {**_RMS, "rope.dimension_count": "=head_dim"}, _interleaved),
    "qwen2": Family("qwen2", {**_SIZES, "use_sliding_window": False}, _RMS),
    "qwen3": Family("qwen3", {**_SIZES, "head_dim": 128}, _RMS),
    "gemma2": Family("gemma2", {**_SIZES, "head_dim": 24, "sliding_window": 32}, _GEMMA, _plus_one),
    "gemma3_text": Family("gemma3", {**_SIZES, "head_dim": 24, "sliding_window": 32}, _GEMMA, _plus_one),
    "phi3": Family("phi3", _SIZES, _RMS),
    "gpt2": Family(
        "gpt2",
        _SIZES_OF_GPT2,
        {
            "context_length": "=n_positions",
            "embedding_length": "=n_embd",
            "block_count": "=n_layer",
            "feed_forward_length": 256,
            "attention.head_count": "=n_head",
            "attention.layer_norm_epsilon": "=layer_norm_epsilon",
        },
        _transposed,
    ),
    "bloom": Family(
        "bloom",
        {"hidden_size": 64, "n_layer": 3, "n_head": 4, "vocab_size": 97},
        {
            "embedding_length": "=hidden_size",
            "block_count": "=n_layer",
            "attention.head_count": "=n_head",
            "attention.layer_norm_epsilon": "=layer_norm_epsilon",
            "vocab_size": "=vocab_size",
        },
        _by_kind,
    ),
    "falcon": Family(
        "falcon",
        {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 97},
        {
            "context_length": 2048,
            "embedding_length": "=hidden_size",
            "block_count": "=num_hidden_layers",
            "feed_forward_length": 256,
            "attention.head_count": "=num_attention_heads",
            "attention.head_count_kv": 1,
            "attention.layer_norm_epsilon": "=layer_norm_epsilon",
        },
    ),
    "starcoder2": Family("starcoder2", _SIZES, {**_USUAL, "attention.layer_norm_epsilon": "=norm_epsilon"}),
    "stablelm": Family("stablelm", _SIZES, {**_USUAL, "attention.layer_norm_epsilon": "=layer_norm_eps"}),
    "nemotron": Family("nemotron", _SIZES, {**_USUAL, "attention.layer_norm_rms_epsilon": "=norm_eps"}, _plus_one),
    "qwen2_moe": Family(
        "qwen2moe",
        {
            **_SIZES,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            # What the metadata says of these, transformers does not read: they are the class's defaults.
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
        },
        {**_RMS, **_EXPERTS},
        _experts,
    ),
    "qwen3_moe": Family(
        "qwen3moe",
        {
            **_SIZES,
            "head_dim": 24,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
        },
        {**_RMS, **_EXPERTS, "attention.key_length": "=head_dim"},
        _experts,
    ),
    "mamba": Family(
        "mamba",
        {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "vocab_size": 97, "state_size": 8},
        {
            "vocab_size": "=vocab_size",
            "context_length": 1048576,
            "embedding_length": "=hidden_size",
            "block_count": "=num_hidden_layers",
            "attention.layer_norm_rms_epsilon": "=layer_norm_epsilon",
            "ssm.conv_kernel": "=conv_kernel",
            "ssm.state_size": "=state_size",
            "ssm.time_step_rank": "=time_step_rank",
            "ssm.inner_size": "=intermediate_size",
        },
        _recurrent,
    ),
    "qwen3_5_text": Family(
        "qwen35",
        {
            **_SIZES,
            "head_dim": 16,
            "num_hidden_layers": 4,
            "full_attention_interval": 2,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "linear_key_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 6,
            "linear_value_head_dim": 8,
        },
        {
            **_RMS,
            "attention.key_length": "=head_dim",
            "full_attention_interval": 2,
            "ssm.conv_kernel": "=linear_conv_kernel_dim",
            "ssm.state_size": "=linear_key_head_dim",
            "ssm.group_count": "=linear_num_key_heads",
            "ssm.time_step_rank": "=linear_num_value_heads",
            "ssm.inner_size": 48,
            "rope.freq_base": 10000000.0,
            "rope.dimension_sections": [1, 1, 1, 0],
            "rope.dimension_count": 6,
        },
        _tiled,
    ),
    "lfm2": Family(
        "lfm2",
        {
            **_SIZES,
            "block_auto_adjust_ff_dim": False,
            "layer_types": ["conv", "full_attention", "conv"],
        },
        {
            **_USUAL,
            "attention.head_count_kv": [0, 2, 0],
            "attention.layer_norm_rms_epsilon": "=norm_eps",
            "shortconv.l_cache": "=conv_L_cache",
            "rope.freq_base": 1000000.0,
        },
        _squeezed,
    ),
}


UNREAD: Mapping[str, Family] = {
    # transformers reads its attention and leaves out its experts.
    "gpt_oss": Family(
        "gpt-oss",
        {**_SIZES, "intermediate_size": 64, "head_dim": 64, "num_local_experts": 4, "num_experts_per_tok": 2},
        {**_RMS, "expert_count": "=num_local_experts", "expert_used_count": "=num_experts_per_tok"},
        _by_turns,
    ),
    # transformers reads it as the dense model of the same architecture.
    "mixtral": Family(
        "llama",
        {**_SIZES, "num_local_experts": 4, "num_experts_per_tok": 2},
        {**_RMS, "expert_count": "=num_local_experts", "expert_used_count": "=num_experts_per_tok"},
        _experts,
    ),
    "olmo2": Family("olmo2", _SIZES, _RMS),
}
"""Families that transformers does not read wholly."""


def small_model(kind: str, *, seed: int = 0, **settings: Any) -> nn.Module:
    """A random float32 model of a family, with random gains and biases.

    Args:
        settings: of its config, besides those of `FAMILIES`.
    """
    config = AutoConfig.for_model(kind, **{**_family(kind).settings, **settings})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    randomise(model, seed)
    # Multiples of 2^-14: what is added to them and taken off again leaves them as they are.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * 16384).round() / 16384)
    return model


def gguf_tensors(model: Any, kind: str) -> dict[str, Array]:
    """The tensors of a model's GGUF file by their names there; tied ones once."""
    family = _family(kind)
    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(arch, model.config.num_hidden_layers)
    found: dict[str, Array] = {}
    tied = getattr(model, "all_tied_weights_keys", {})
    for name, parameter in model.named_parameters():
        if name in tied:
            continue
        for written, values in family.change(name, parameter.detach().numpy(), model.config):
            new = names.get_name(written, try_suffixes=(".weight", ".bias"))
            assert new is not None, written
            found[new] = np.ascontiguousarray(values, np.float32)
    return found


def write_model(
    path: Path,
    model: Any,
    kind: str,
    tensors: Mapping[str, Array] | None = None,
    types: Mapping[str, str] | None = None,
    **metadata: Any,
) -> Path:
    """The GGUF file of a model in float32, without a tokenizer.

    Args:
        tensors: others than its own.
        types: name -> another type, as which the tensor is written, of zero bytes.
        metadata: to add, with `__` for a dot.
    """
    family = _family(kind)
    writer = gguf.GGUFWriter(path, family.architecture)
    given = {f"{family.architecture}.{key}": value for key, value in family.metadata.items()}
    given |= {"general.name": "a small model", **{key.replace("__", "."): value for key, value in metadata.items()}}
    # Some families' vocabulary is as large as their tokenizer's.
    given |= {"tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.eos_token_id": 2}
    given["tokenizer.ggml.tokens"] = [f"token {number}" for number in range(model.config.vocab_size)]
    for key, value in given.items():
        said = getattr(model.config, value[1:]) if isinstance(value, str) and value.startswith("=") else value
        _add(writer, key, said)
    for name, values in (gguf_tensors(model, kind) if tensors is None else tensors).items():
        if types and name in types:
            stored = gguf.GGMLQuantizationType[types[name]]
            numbers, size = gguf.GGML_QUANT_SIZES[stored]
            blocks = np.zeros((*values.shape[:-1], values.shape[-1] // numbers * size), np.uint8)
            writer.add_tensor(name, blocks, raw_dtype=stored)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _family(kind: str) -> Family:
    return {**FAMILIES, **UNREAD}[kind]


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
