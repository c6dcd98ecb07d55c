"""Make the samples of tests/checkpoint/quantized/integer_samples.safetensors with the formats' own packages.

    python tools/integer_samples.py tests/checkpoint/quantized/integer_samples.safetensors

Needs transformers, gptqmodel with optimum (GPTQ and AWQ) and compressed-tensors, on any processor. Each sample is the
`down_proj` of a small random model as the package stores it, under names with the sample's as prefix, and `wanted`:
its first outputs as the package decodes them, (outputs, inputs). The file's metadata has each `quantization_config`.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.quantization.config import AWQConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

Tensors = dict[str, torch.Tensor]
INNER, WIDTH, GROUP, SHOWN = 128, 64, 32, 32
MODULE = "model.layers.0.mlp.down_proj"

GPTQ: dict[str, dict[str, Any]] = {
    "gptq": {"bits": 4, "sym": True},
    "gptq-asymmetric": {"bits": 4, "sym": False},
    "gptq-v2": {"bits": 4, "sym": False, "format": "gptq_v2"},
    "gptq-act-order": {"bits": 4, "sym": False, "desc_act": True},
    "gptq-one-group": {"bits": 4, "sym": False, "group_size": -1},
    "gptq-8": {"bits": 8, "sym": True},
    "gptq-3": {"bits": 3, "sym": False},
    "gptq-2": {"bits": 2, "sym": False},
}
AWQ: dict[str, dict[str, Any]] = {"awq": {"sym": False}, "awq-symmetric": {"sym": True}}
COMPRESSED: dict[str, tuple[str, dict[str, Any]]] = {
    "pack": ("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": GROUP}),
    "pack-asymmetric": (
        "pack-quantized",
        {"num_bits": 4, "strategy": "group", "group_size": GROUP, "symmetric": False},
    ),
    "pack-channel": ("pack-quantized", {"num_bits": 4, "strategy": "channel", "symmetric": False}),
    "pack-tensor": ("pack-quantized", {"num_bits": 4, "strategy": "tensor"}),
    "pack-8": ("pack-quantized", {"num_bits": 8, "strategy": "channel"}),
    "pack-3": ("pack-quantized", {"num_bits": 3, "strategy": "group", "group_size": GROUP, "symmetric": False}),
    "pack-odd": ("pack-quantized", {"num_bits": 4, "strategy": "channel"}),
    "int8": ("int-quantized", {"num_bits": 8, "strategy": "channel"}),
    "int8-asymmetric": ("int-quantized", {"num_bits": 8, "strategy": "channel", "symmetric": False}),
    "int8-group": ("int-quantized", {"num_bits": 8, "strategy": "group", "group_size": GROUP}),
    "int8-tensor": ("int-quantized", {"num_bits": 8, "strategy": "tensor"}),
    "naive": ("naive-quantized", {"num_bits": 8, "strategy": "channel"}),
}


def base(folder: Path) -> Path:
    """A random model on disk."""
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 1, "vocab_size": 256}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads))
    for parameter in model.parameters():
        if parameter.ndim == 2:
            rows = torch.exp(0.5 * torch.randn(parameter.shape[0], 1))
            parameter.data = 0.05 * rows * torch.randn(parameter.shape)
    model.half().save_pretrained(folder)
    return folder


def by_gptqmodel(source: Path, config: QuantizeConfig | AWQConfig, folder: Path) -> tuple[Tensors, dict[str, Any]]:
    """A layer of the model as gptqmodel quantises and stores it, and its config."""
    config.device = "cpu"
    model = GPTQModel.load(str(source), config)
    texts = [torch.randint(0, 256, (64,)).tolist() for _ in range(16)]
    model.quantize([{"input_ids": text, "attention_mask": [1] * 64} for text in texts], backend=BACKEND.TORCH)
    model.save(str(folder))
    stored = load_file(folder / "model.safetensors")
    found = {name.removeprefix(f"{MODULE}."): t for name, t in stored.items() if name.startswith(MODULE)}
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, device_map="cpu")
    wanted = loaded.get_submodule(MODULE).dequantize_weight()[:INNER]
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    said.pop("meta", None)
    return {**found, "wanted": wanted.T.contiguous()}, said


def by_compressed_tensors(weight: torch.Tensor, form: str, settings: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """A matrix as compressed-tensors stores it with scales by its own formula, and a config."""
    args = QuantizationArgs(type="int", **settings)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format=form)
    parts = weight.reshape(weight.shape[0], -1, args.group_size or weight.shape[1])
    low, high = parts.amin(-1), parts.amax(-1)
    if settings["strategy"] == "tensor":
        low, high = low.min().reshape(1), high.max().reshape(1)
    scale, zero = calculate_qparams(low, high, args)
    compressor = BaseCompressor.get_value_from_registry(form)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero.to(torch.int8)}
    found = compressor.compress(state, scheme)
    group = {"targets": ["Linear"], "weights": args.model_dump(mode="json"), "format": form}
    said = {"quant_method": "compressed-tensors", "format": form, "config_groups": {"group_0": group}}
    return {**found, "wanted": compressor.decompress(found, scheme)["weight"]}, said


def main() -> None:
    """Write all samples into the file that the first argument names."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        source = base(place / "base")
        weight = load_file(source / "model.safetensors")[f"{MODULE}.weight"].bfloat16()
        made = {}
        for name, settings in GPTQ.items():
            config = QuantizeConfig(**{"group_size": GROUP, **settings})
            if settings.get("group_size") == -1:
                config.act_group_aware = False
            made[name] = by_gptqmodel(source, config, place / name)
        for name, settings in AWQ.items():
            made[name] = by_gptqmodel(source, AWQConfig(bits=4, group_size=GROUP, **settings), place / name)
        for name, (form, settings) in COMPRESSED.items():
            given = weight[:, :101].contiguous() if name == "pack-odd" else weight
            made[name] = by_compressed_tensors(given, form, settings)
        tensors = {f"{name}.{key}": t.contiguous() for name, (found, _) in made.items() for key, t in found.items()}
        tensors |= {key: t[:SHOWN].contiguous() for key, t in tensors.items() if key.endswith(".wanted")}
        save_file(tensors, sys.argv[1], metadata={name: json.dumps(said) for name, (_, said) in made.items()})


if __name__ == "__main__":
    main()
