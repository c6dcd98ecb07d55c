"""Make the samples of tests/checkpoint/quantized/quantiser_samples.safetensors with the formats' own packages.

    python tools/quantiser_samples.py tests/checkpoint/quantized/quantiser_samples.safetensors

Needs torch, bitsandbytes, nvidia-modelopt and compressed-tensors, on any processor. Each sample is a small matrix as
the package stores it, under names with the sample's as prefix, and `wanted`: its numbers as the package decodes them.
"""

import sys
from pathlib import Path

import torch
from bitsandbytes import functional
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from compressed_tensors.compressors.nvfp4 import NVFP4PackedCompressor
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from modelopt.torch.quantization.qtensor.nvfp4_tensor import NVFP4QTensor
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]


def numbers(rows: int, cols: int) -> torch.Tensor:
    """Numbers of all sizes, with a row of zeros and a tiny one."""
    found = torch.randn(rows, cols, generator=torch.Generator().manual_seed(rows))
    found *= 2.0 ** torch.randn(rows, 1, generator=torch.Generator().manual_seed(cols))
    found[1], found[2] = found[1] * 1e-4, 0.0
    return found


def four_bits(weight: torch.Tensor, kind: str, nested: bool, block: int = 64) -> Tensors:
    """By bitsandbytes. Its own kernel for processors is wrong where blocks cross rows; its generic code decodes."""
    codes, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=nested, blocksize=block)
    absmax = state.absmax
    if nested:
        absmax = functional.dequantize_blockwise(absmax, state.state2) + state.offset
    wanted = _dequantize_4bit_compute(codes.reshape(-1), absmax, state.code, block, weight.shape, torch.float32)
    beside = {f"weight.{key}": value for key, value in state.as_dict(packed=True).items()}
    return {"weight": codes, **beside, "wanted": wanted}


def eight_bits(weight: torch.Tensor) -> Tensors:
    """By bitsandbytes."""
    codes, scale, _ = functional.int8_vectorwise_quant(weight.half())
    wanted = functional.int8_vectorwise_dequant(codes, scale)
    return {"weight": codes, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8), "wanted": wanted}


def by_modelopt(weight: torch.Tensor) -> Tensors:
    """NVFP4 by ModelOpt."""
    found, scale, whole = NVFP4QTensor.quantize(weight.clone(), 16)
    wanted = found.dequantize(dtype=torch.float32, scale=scale, double_scale=whole, block_sizes={-1: 16})
    codes = found._quantized_data
    return {"weight": codes, "weight_scale": scale, "weight_scale_2": whole.reshape(()), "wanted": wanted}


def by_compressed_tensors(weight: torch.Tensor) -> Tensors:
    """NVFP4 by compressed-tensors, which decodes to bfloat16."""
    scheme = preset_name_to_scheme("NVFP4A16", ["Linear"])
    whole = generate_gparam(weight.min(), weight.max()).reshape(1)
    groups = weight.reshape(weight.shape[0], -1, 16)
    scale, _ = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights, global_scale=whole)
    state = {"weight": weight, "weight_scale": scale, "weight_global_scale": whole}
    found = NVFP4PackedCompressor.compress(state, scheme)
    return {**found, "wanted": NVFP4PackedCompressor.decompress(found, scheme)["weight"]}


def main() -> None:
    """Write all samples into the file that the first argument names."""
    samples = {
        **{
            f"{kind}{'-nested' if nested else ''}{'-crossing' if cols % 64 else ''}": four_bits(
                numbers(rows, cols), kind, nested
            )
            for kind in ("nf4", "fp4")
            for nested in (False, True)
            for rows, cols in ((20, 128), (13, 96))
        },
        "nf4-odd": four_bits(numbers(5, 21), "nf4", nested=False),
        "int8": eight_bits(numbers(20, 96)),
        "nvfp4-modelopt": by_modelopt(numbers(20, 96)),
        "nvfp4-compressed": by_compressed_tensors(numbers(20, 96)),
    }
    tensors = {f"{sample}.{name}": tensor.contiguous() for sample, of in samples.items() for name, tensor in of.items()}
    save_file(tensors, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
