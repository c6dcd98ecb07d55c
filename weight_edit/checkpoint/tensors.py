"""Between a tensor's bytes on disk and torch, for every dtype that torch shares with safetensors."""

from collections.abc import Mapping

import torch

from weight_edit.checkpoint.files import shown
from weight_edit.checkpoint.header import TensorInfo
from weight_edit.errors import UnsupportedError

TORCH_DTYPES: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
"""safetensors' dtype names -> torch dtypes. F4 and F6 pack elements into bytes and have no plain tensor."""

DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}

_BLOCK = 1 << 20


def _can_be_non_finite(dtype: torch.dtype) -> bool:
    return dtype.is_floating_point or dtype.is_complex


def to_tensor(data: bytearray, info: TensorInfo) -> torch.Tensor:
    """The tensor whose bytes are `data`; it uses that memory and keeps it alive.

    Raises:
        UnsupportedError: a dtype that torch has no plain tensor for.
    """
    dtype = TORCH_DTYPES.get(info.dtype)
    if dtype is None:
        raise UnsupportedError(
            f"{shown(info.shard)}: tensor {shown(info.name)!r} is {info.dtype}, which packs elements"
        )
    if not data:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(info.shape)


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor in row-major order, as safetensors stores them; copied only if needed."""
    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    if not flat.numel():
        return memoryview(b"")
    return flat.view(torch.uint8).numpy().data


def count_non_finite(tensor: torch.Tensor) -> int:
    """How many entries are NaN or infinite; zero for integers. Works block by block, in little memory."""
    if not _can_be_non_finite(tensor.dtype):
        return 0
    bad = 0
    for block in tensor.detach().reshape(-1).split(_BLOCK):
        # torch has no isfinite for the 8-bit floats; float32 holds all their values.
        wide = block.to(torch.float32) if block.element_size() == 1 else block
        # One fast pass tells that all is well: a NaN becomes both extremes, an infinity one of them.
        if not block.numel():
            continue
        if not wide.is_complex() and bool(torch.stack(torch.aminmax(wide)).isfinite().all()):
            continue
        bad += block.numel() - int(torch.isfinite(wide).sum())
    return bad


def count_non_finite_bytes(data: bytearray, dtype: str) -> int:
    """As `count_non_finite`, for a run of whole elements given as bytes and safetensors' dtype name."""
    torch_dtype = TORCH_DTYPES.get(dtype)
    if not data or torch_dtype is None or not _can_be_non_finite(torch_dtype):
        return 0
    return count_non_finite(torch.frombuffer(data, dtype=torch.uint8).view(torch_dtype))
