"""A small Llama in NVFP4 and in bitsandbytes' formats, quantised the plain way and stored as their makers store it."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.quantized_models import COMMON, of_layers
from tests.helpers.quantized_samples import E2M1, randomise, write_checkpoint
from weight_edit.checkpoint.quantized.bnb4 import TABLES
from weight_edit.checkpoint.quantized.bnb_state import STATES

Tensors = dict[str, torch.Tensor]

WIDTH = 128
WRITERS = of_layers("self_attn.o_proj.weight", "mlp.down_proj.weight")
FORMATS = ("nf4", "fp4", "nf4-nested", "int8", "nvfp4-modelopt", "nvfp4-compressed")

_BNB = {"quant_method": "bitsandbytes", "llm_int8_skip_modules": None, "llm_int8_threshold": 6.0}
_ARGS = {
    "num_bits": 4,
    "type": "float",
    "strategy": "tensor_group",
    "group_size": 16,
    "symmetric": True,
    "dynamic": False,
}


def by_table(scaled: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """The codes of the nearest levels."""
    return (scaled[..., None] - table).abs().argmin(-1).to(torch.uint8)


def to_4bit(weight: torch.Tensor, kind: str, nested: bool) -> Tensors:
    """A matrix in bitsandbytes' 4 bits."""
    table = torch.from_numpy(TABLES[kind].copy())
    blocks = weight.reshape(-1, 64)
    absmax = blocks.abs().amax(-1)
    state: dict[str, Any] = {"quant_type": kind, "blocksize": 64, "dtype": "bfloat16", "shape": list(weight.shape)}
    beside: Tensors = {"absmax": absmax}
    if nested:
        offset = absmax.mean()
        levels = torch.linspace(-1, 1, 256)
        scale = torch.stack([part.abs().max() for part in (absmax - offset).split(256)])
        spread = scale.repeat_interleave(256)[: len(absmax)]
        named = by_table((absmax - offset) / spread, levels)
        absmax = levels[named.long()] * spread + offset
        beside = {"absmax": named, "nested_absmax": scale, "nested_quant_map": levels}
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": offset.item()}
    codes = by_table(blocks / absmax[:, None], table).reshape(-1)
    text = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    beside |= {"quant_map": table, STATES[kind].removeprefix("."): text}
    packed = (codes[0::2] << 4 | codes[1::2]).reshape(-1, 1)
    return {"weight": packed, **{f"weight.{name}": tensor for name, tensor in beside.items()}}


def to_8bit(weight: torch.Tensor) -> Tensors:
    """A matrix in bitsandbytes' INT8."""
    scale = weight.abs().amax(-1)
    codes = (weight * (127 / scale[:, None])).round().to(torch.int8)
    return {"weight": codes, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}


def to_nvfp4(weight: torch.Tensor, divides: bool) -> Tensors:
    """A matrix in NVFP4, by compressed-tensors where its whole scale divides, else by ModelOpt."""
    whole = weight.abs().max() / (6 * 448)
    groups = weight.reshape(weight.shape[0], -1, 16)
    scale = (groups.abs().amax(-1) / 6 / whole).to(torch.float8_e4m3fn)
    codes = by_table(groups / (scale.float() * whole)[..., None], torch.cat([E2M1, -E2M1])).flatten(1)
    packed = codes[:, 0::2] | codes[:, 1::2] << 4
    if divides:
        return {"weight_packed": packed, "weight_scale": scale, "weight_global_scale": (1 / whole).reshape(1)}
    return {"weight": packed, "weight_scale": scale, "weight_scale_2": whole, "input_scale": torch.tensor(0.5)}


def quantised(weight: torch.Tensor, form: str) -> Tensors:
    """A matrix in one of `FORMATS`, by the ends of the tensors' names."""
    if form.startswith("nvfp4"):
        return to_nvfp4(weight, form == "nvfp4-compressed")
    return to_8bit(weight) if form == "int8" else to_4bit(weight, form.partition("-")[0], "nested" in form)


def settings(form: str) -> dict[str, Any]:
    """The `quantization_config` of one of `FORMATS`."""
    if form == "nvfp4-modelopt":
        return {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
    if form == "nvfp4-compressed":
        group = {"targets": ["Linear"], "weights": _ARGS, "input_activations": None, "format": "nvfp4-pack-quantized"}
        return {
            "quant_method": "compressed-tensors",
            "format": "nvfp4-pack-quantized",
            "quantization_status": "compressed",
            "ignore": ["lm_head"],
            "config_groups": {"group_0": group},
        }
    if form == "int8":
        return {**_BNB, "load_in_8bit": True, "load_in_4bit": False}
    kind = {"bnb_4bit_quant_type": form.partition("-")[0], "bnb_4bit_use_double_quant": "nested" in form}
    return {**_BNB, "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_compute_dtype": "float32", **kind}


def llama(folder: Path, form: str, own_file: bool = False) -> Path:
    """A Llama whose linear maps but the unembedding are quantised.

    Args:
        own_file: whether ModelOpt says so in hf_quant_config.json alone.
    """
    config = LlamaConfig(
        **COMMON, hidden_size=WIDTH, intermediate_size=192, num_attention_heads=4, num_key_value_heads=2
    )
    model = LlamaForCausalLM(config)
    randomise(model)
    tensors: Tensors = {}
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    for name, tensor in model.state_dict().items():
        module = name.removesuffix(".weight")
        if module in linears:
            tensors |= {f"{module}.{end}": part for end, part in quantised(tensor.float(), form).items()}
        else:
            tensors[name] = tensor.bfloat16()
    write_checkpoint(folder, model, tensors, settings(form))
    if own_file:
        whole = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        del whole["quantization_config"]
        (folder / "config.json").write_text(json.dumps(whole), encoding="utf-8")
        own = {
            "producer": {"name": "modelopt"},
            "quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]},
        }
        (folder / "hf_quant_config.json").write_text(json.dumps(own), encoding="utf-8")
    return folder
