"""Small models in quantised formats: random weights, gains and biases, written as their makers write them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.helpers.quantized_samples import (
    mxfp4_numbers,
    randomise,
    spread,
    to_fp8,
    to_mxfp4,
    write_checkpoint,
)

TOKENS = torch.tensor([[1, 5, 9, 2, 40, 33, 7, 7, 12, 3, 47, 0]])

LAYERS = 2


@dataclass(frozen=True)
class Sample:
    """A quantised checkpoint.

    Attributes:
        folder: where it is.
        writers: the quantised tensors that write to the stream, and the axis on disk along which it lies.
        biases: the plain ones.
        width: of the stream.
        block: rows and columns that share a scale; None for MXFP4.
    """

    folder: Path
    writers: Mapping[str, int]
    biases: tuple[str, ...]
    width: int
    block: tuple[int, int] | None

    def parameter(self, name: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The numbers of a quantised tensor as they lie on disk, in float64, by torch."""
        if self.block is None:
            return mxfp4_numbers(tensors[f"{name}_blocks"], tensors[f"{name}_scales"])
        codes = tensors[name].to(torch.float64)
        scale = next(tensors[name + end] for end in ("_scale_inv", "_scale") if name + end in tensors)
        if scale.numel() == 1:
            return codes * scale.to(torch.float64)
        block = (1, codes.shape[1]) if scale.shape[0] == codes.shape[0] and scale.shape[1] == 1 else self.block
        return codes * spread(scale.float(), block, *codes.shape)


def of_layers(*suffixes: str) -> tuple[str, ...]:
    """Tensors of all layers."""
    return tuple(f"model.layers.{layer}.{suffix}" for layer in range(LAYERS) for suffix in suffixes)


def quantise_linears(
    model: torch.nn.Module, suffix: str, block: tuple[int, int], scale_dtype: torch.dtype, scale_shape: tuple[int, ...]
) -> dict[str, torch.Tensor]:
    """All tensors of a model, its linear maps but the unembedding in FP8, the others in bfloat16."""
    found: dict[str, torch.Tensor] = {}
    linears = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)} - {"lm_head"}
    for name, tensor in model.state_dict().items():
        if name.removesuffix(".weight") not in linears:
            found[name] = tensor.bfloat16()
            continue
        size = tuple(min(wanted, have) if wanted > 1 else 1 for wanted, have in zip(block, tensor.shape, strict=True))
        codes, scale = to_fp8(tensor, size, scale_dtype)
        found[name], found[name + suffix] = codes, scale.reshape(scale_shape) if scale_shape else scale
    return found


COMMON: dict[str, Any] = {"vocab_size": 48, "num_hidden_layers": LAYERS, "tie_word_embeddings": False}


def qwen3_fine_grained(folder: Path, scale_dtype: torch.dtype = torch.float32) -> Sample:
    """Qwen3 with blocks of 128 by 128."""
    config = Qwen3Config(
        **COMMON, hidden_size=256, intermediate_size=384, num_attention_heads=4, num_key_value_heads=2, head_dim=64
    )
    model = Qwen3ForCausalLM(config)
    randomise(model)
    tensors = quantise_linears(model, "_scale_inv", (128, 128), scale_dtype, ())
    quantisation = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3"}
    quantisation["weight_block_size"] = [128, 128]
    if scale_dtype == torch.float8_e8m0fnu:
        quantisation["scale_fmt"] = "ue8m0"
    write_checkpoint(folder, model, tensors, quantisation)
    names = of_layers("self_attn.o_proj.weight", "mlp.down_proj.weight")
    return Sample(folder, dict.fromkeys(names, 0), (), 256, (128, 128))


def llama_compressed(folder: Path, strategy: str) -> Sample:
    """Llama as compressed-tensors writes it, a scale for each tensor or each row."""
    config = LlamaConfig(
        **COMMON,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        mlp_bias=True,
    )
    model = LlamaForCausalLM(config)
    randomise(model)
    block = (1, 10**6) if strategy == "channel" else (10**6, 10**6)
    tensors = quantise_linears(model, "_scale", block, torch.float32, () if strategy == "channel" else (1,))
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True, "dynamic": False}
    quantisation = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": None}},
    }
    write_checkpoint(folder, model, tensors, quantisation)
    names = of_layers("self_attn.o_proj.weight", "mlp.down_proj.weight")
    biases = of_layers("self_attn.o_proj.bias", "mlp.down_proj.bias")
    return Sample(folder, dict.fromkeys(names, 0), biases, 64, block)


def gpt_oss(folder: Path) -> Sample:
    """gpt-oss: experts in MXFP4, transposed; all else in bfloat16."""
    config = GptOssConfig(
        **COMMON,
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=8,
    )
    model = GptOssForCausalLM(config)
    randomise(model)
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name.endswith(("experts.down_proj", "experts.gate_up_proj")):
            tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = to_mxfp4(tensor.transpose(1, 2))
        else:
            tensors[name] = tensor.bfloat16()
    skipped = ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]
    write_checkpoint(folder, model, tensors, {"quant_method": "mxfp4", "modules_to_not_convert": skipped})
    names = of_layers("mlp.experts.down_proj")
    return Sample(folder, dict.fromkeys(names, 1), of_layers("mlp.experts.down_proj_bias"), 64, None)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits[0].to(torch.float64)


def loaded(folder: Path) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    # transformers leaves the tensors that an FP8 checkpoint has in bfloat16 as they are, whatever it is told.
    for parameter in model.parameters():
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    return model
