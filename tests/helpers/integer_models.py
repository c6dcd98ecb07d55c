"""A small Llama in GPTQ, AWQ and integers of compressed-tensors, quantised the plain way and packed bit by bit."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from tests.helpers.quantized_models import COMMON, of_layers
from tests.helpers.quantized_samples import randomise, write_checkpoint

Tensors = dict[str, torch.Tensor]

WIDTH, GROUP = 128, 32
WRITERS = of_layers("self_attn.o_proj.weight", "mlp.down_proj.weight")
TRANSPOSED = ("gptq", "gptq-act-order", "awq")
FORMATS = (*TRANSPOSED, "pack", "pack-asymmetric", "int8")
_PLACES = [0, 2, 4, 6, 1, 3, 5, 7]


def packed(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Rows of codes as streams of bits, lowest first, in words of 32."""
    found = (codes[..., None] >> torch.arange(bits)) & 1
    stream = found.reshape(len(codes), -1)
    stream = torch.nn.functional.pad(stream, (0, -stream.shape[1] % 32)).reshape(len(codes), -1, 32)
    words = (stream.long() << torch.arange(32)).sum(-1)
    return torch.where(words < 2**31, words, words - 2**32).int()


def unpacked(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """The reverse of `packed`."""
    stream = ((words.long()[..., None] >> torch.arange(32)) & 1).reshape(len(words), -1)[:, : count * bits]
    return (stream.reshape(len(words), count, bits) << torch.arange(bits)).sum(-1)


def interleaved(codes: torch.Tensor) -> torch.Tensor:
    """Columns in the order in which AWQ packs them."""
    return codes.reshape(len(codes), -1, 8)[..., _PLACES].reshape(len(codes), -1)


def quantised(weight: torch.Tensor, form: str) -> Tensors:
    """A matrix, (outputs, inputs), in one of `FORMATS`, by the ends of the tensors' names."""
    outputs, inputs = weight.shape
    if form == "int8":
        scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16()
        return {"weight": (weight / scale).round().clamp(-128, 127).to(torch.int8), "weight_scale": scale}
    index = torch.arange(inputs) // GROUP
    if form == "gptq-act-order":
        index = index[torch.randperm(inputs, generator=torch.Generator().manual_seed(0))]
    order = torch.argsort(index, stable=True)
    groups = weight[:, order].reshape(outputs, -1, GROUP)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    dtype = torch.bfloat16 if form.startswith("pack") else torch.float16
    scale = ((high - low) / 15).to(dtype)
    zero = (-low / scale).round().clamp(0, 15).long()
    if form == "pack":
        scale, zero = (torch.maximum(-low, high) / 7.5).to(dtype), torch.full_like(zero, 8)
    codes = (weight / scale[:, index] + zero[:, index]).round().clamp(0, 15).long()
    if form.startswith("pack"):
        found = {"weight_packed": packed(codes, 4), "weight_scale": scale, "weight_shape": torch.tensor(weight.shape)}
        return found if form == "pack" else {**found, "weight_zero_point": packed(zero.T, 4).T}
    if form == "awq":
        return {
            "qweight": packed(interleaved(codes.T), 4),
            "qzeros": packed(interleaved(zero.T), 4),
            "scales": scale.T,
        }
    # Stored less one, so that a zero point of 0 borrows from the next one of its word.
    ones = sum(1 << shift for shift in range(0, 32, 4))
    words = packed(zero.T, 4).long() - ones
    qzeros = torch.where(words < -(2**31), words + 2**32, words).int()
    return {"qweight": packed(codes, 4).T, "qzeros": qzeros, "scales": scale.T, "g_idx": index.int()}


def settings(form: str) -> dict[str, Any]:
    """The `quantization_config` of one of `FORMATS`."""
    if form == "awq":
        return {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
    if form.startswith("gptq"):
        orders = form == "gptq-act-order"
        return {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "sym": False, "desc_act": orders}
    weights: dict[str, Any] = {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}
    kind, inputs = "int-quantized", {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
    if form != "int8":
        kind, inputs = "pack-quantized", None
        weights |= {"num_bits": 4, "strategy": "group", "group_size": GROUP, "symmetric": form == "pack"}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "format": kind}
    return {
        "quant_method": "compressed-tensors",
        "format": kind,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def llama(folder: Path, form: str) -> Path:
    """A Llama whose linear maps but the unembedding are quantised."""
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
    return write_checkpoint(folder, model, tensors, settings(form))


def scattered(folder: Path, ends: tuple[str, ...]) -> Path:
    """Move tensors whose names end so to a second file of the checkpoint."""
    from safetensors.torch import load_file

    whole = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    first, second = files.values()
    for name, tensor in whole.items():
        (second if name.endswith(ends) else first)[name] = tensor
    for file, tensors in files.items():
        save_file(tensors, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, tensors in files.items() for name in tensors}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder
