"""Tensors in every stored format, and their numbers counted in units of the last place."""

from collections.abc import Callable

import numpy as np
import torch

from weight_edit.checkpoint.tensor.storage import Bytes

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "F64": torch.float64}
# Digits of the significand, the hidden one included, and the exponent of the smallest normal number.
FORMATS = {"BF16": (8, -126), "F16": (11, -14), "F32": (24, -126), "F64": (53, -1022)}
SHAPES = [(4096,), (300, 700), (3, 96, 800)]
AXES = [(shape, axis) for shape in SHAPES for axis in range(len(shape))]


def order(raw: bytes, dtype: str) -> np.ndarray:
    """Stored numbers as integers that count units in the last place from zero."""
    signed = np.frombuffer(raw, {"BF16": "<i2", "F16": "<i2", "F32": "<i4", "F64": "<i8"}[dtype]).astype(np.int64)
    least = np.iinfo(np.int64).min if dtype == "F64" else -(1 << (8 * TORCH[dtype].itemsize - 1))
    return np.where(signed < 0, least - signed, signed)


def reader(raw: bytes) -> Callable[[str, int, Bytes], None]:
    data = np.frombuffer(raw, np.uint8)

    def read(name: str, offset: int, into: Bytes) -> None:
        assert name == "w"
        into[:] = data[offset : offset + into.size]

    return read


def random_tensor(shape: tuple[int, ...], dtype: str, seed: int) -> torch.Tensor:
    """Normal numbers, some of them larger or smaller by orders of magnitude."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 2, shape)
    return torch.from_numpy(np.asarray(values)).to(TORCH[dtype])
