"""Tensors between their bytes on disk and torch, for all dtypes that both libraries have."""

from collections.abc import Mapping

import torch

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.tensor.header import TensorInfo
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
"""safetensors' dtype names -> torch dtypes.

F4 and F6 pack elements into bytes and have no plain tensor.
"""


def to_tensor(data: bytearray, info: TensorInfo) -> torch.Tensor:
    """The tensor stored in `data`, whose memory it shares and keeps alive.

    Raises:
        UnsupportedError: a dtype that torch has no plain tensor for.
    """
    dtype = TORCH_DTYPES.get(info.dtype)
    if dtype is None:
        raise UnsupportedError(
            f"{printable(info.shard)}: tensor {printable(info.name)!r} is {info.dtype}, which packs elements"
        )
    if not data:
        return torch.empty(info.shape, dtype=dtype)
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(info.shape)
