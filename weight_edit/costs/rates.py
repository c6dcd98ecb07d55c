"""The speed of a device and a disk: given, or measured in a second."""

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from weight_edit.checkpoint.rewrite.disk_rate import disk_rate
from weight_edit.costs.amounts import Amounts, Range
from weight_edit.costs.model_size import ModelSize, torch_dtype
from weight_edit.errors import UsageError
from weight_edit.runtime.loading import SMALL
from weight_edit.utils.threads import one_thread

SPREAD = 2.0
"""A pass may take so many times less or more than a plain block as wide tells: other shapes, padding, copies."""

NARROW = ("bfloat16", "float16")
"""Dtypes that some processors compute by way of float32, several times as slowly."""

_TOKENS, _LENGTH, _DECODED = 2048, 32, 64
"""Tokens in the pass that is timed, of a prompt in it, and answers that are generated at once."""

_HEAD = 64
_LONGEST, _MOST = 0.3, 8192
_PROBE, _PIECE = 128 * 1024 * 1024, 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a device computes, and what a disk reads and writes, in a second.

    Attributes:
        flops: in a pass over prompts.
        decode_flops: where answers are generated.
        disk: bytes read.
        disk_write: bytes written.
        device: where this was measured; None where it was given.
        float32_flops: in a pass in float32, measured beside a narrower dtype on a processor, which may have no
            arithmetic of its own for that; None elsewhere.
    """

    flops: float
    decode_flops: float
    disk: float
    disk_write: float
    device: str | None
    float32_flops: float | None = None

    def computing(self, amounts: Amounts, processes: int) -> Range:
        """Seconds of the arithmetic, shared by processes that have a device each.

        `SPREAD` times less or more than the rates tell.
        """
        seconds = (amounts.flops - amounts.decoded) / self.flops + amounts.decoded / self.decode_flops
        return Range(seconds / SPREAD / processes, SPREAD * seconds / processes)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def rates_of(
    size: ModelSize,
    *,
    device: str,
    calibrate: bool,
    flops: float | None,
    disk: float | None,
    file: Path | None,
) -> Rates | None:
    """The rates for a model: those given, and the others measured; None where one is neither given nor measured.

    Args:
        device: where matrix products are timed.
        calibrate: whether to measure.
        flops, disk: given rates per second, of FLOPs and of bytes.
        file: whose reading is timed; one is written for that where there is none.

    Raises:
        UsageError: a rate is not above 0.
    """
    for name, given in (("flops", flops), ("disk_rate", disk)):
        if given is not None and not 0 < given < float("inf"):
            raise UsageError(f"`{name}={given}`: must be above 0", option=name)
    if not calibrate and (flops is None or disk is None):
        return None
    computed = decoded = flops
    wide = None
    if flops is None:
        computed, decoded = _block_rates(size, device)
        if device == "cpu" and size.dtype in NARROW:
            wide = _block_rates(replace(size, dtype="float32"), device, decoded=False)[0]
    assert computed is not None
    assert decoded is not None
    written = disk_rate(Path.cwd() / "model") if disk is None else disk
    return Rates(
        flops=computed,
        decode_flops=decoded,
        disk=_read_rate(file) if disk is None else disk,
        disk_write=written,
        device=device if flops is None else None,
        float32_flops=wide,
    )


def _block_rates(size: ModelSize, device: str, *, decoded: bool = True) -> tuple[float, float]:
    """FLOPs in a second of a block as wide as the model's, in a pass over prompts and where answers are generated.

    Args:
        decoded: whether the latter are timed; else they are taken to be the former.
    """
    small = device == "cpu" and size.parameters < SMALL
    with torch.no_grad(), one_thread() if small else nullcontext():
        block = _Block.like(size, device)
        rates = []
        for rows, tokens, kept in ((_TOKENS // _LENGTH, _LENGTH, 0), (_DECODED, 1, _LENGTH))[: 1 + decoded]:
            given = torch.ones(rows, tokens, block.width, dtype=torch_dtype(size.dtype), device=device)
            past = given.new_ones(rows, block.heads, kept, _HEAD)
            seconds = _seconds(lambda given=given, past=past: block(given, past), device)  # type: ignore[misc]
            rates.append(block.flops(rows, tokens, kept + tokens) / seconds)
    return rates[0], rates[-1]


@dataclass(frozen=True)
class _Block:
    """A plain block: a norm, attention, a norm, a gated map; weights of one number each.

    Its matrices alone would tell what a device can do, and leave out what comes between them.
    """

    width: int
    wide: int
    heads: int
    weights: Mapping[str, Tensor]

    @classmethod
    def like(cls, size: ModelSize, device: str) -> "_Block":
        """One as wide as a model's, as far as it takes no more than some hundred megabytes."""
        width, wide = min(size.d_model, _MOST // 2), min(size.widest, 2 * _MOST)
        heads = max(1, min(round(size.counts.per_pair / (4 * size.layers * _HEAD)), _MOST // _HEAD))
        inner = heads * _HEAD
        shapes = {
            "qkv": (3 * inner, width),
            "out": (width, inner),
            "gate": (wide, width),
            "up": (wide, width),
            "down": (width, wide),
        }
        dtype = torch_dtype(size.dtype)
        weights = {name: torch.full(shape, 1e-4, dtype=dtype, device=device) for name, shape in shapes.items()}
        return cls(width, wide, heads, weights)

    def flops(self, rows: int, tokens: int, keys: int) -> float:
        """FLOPs of a call with so many keys for each row."""
        numbers = sum(weight.numel() for weight in self.weights.values())
        return 2.0 * rows * tokens * numbers + 4.0 * rows * tokens * keys * self.heads * _HEAD

    def __call__(self, stream: Tensor, past: Tensor) -> Tensor:
        """The stream after the block, (rows, tokens, width).

        Args:
            past: what is kept of earlier tokens, keys and values alike, (rows, heads, tokens, numbers of a head).
        """
        rows, tokens, _ = stream.shape
        parts = functional.linear(_normed(stream), self.weights["qkv"]).view(rows, tokens, 3, self.heads, _HEAD)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = _turned(query), _turned(key)
        # A cache grows by a copy for each token.
        key, value = (torch.cat((past, new), dim=2) for new in (key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=tokens > 1)
        stream = stream + functional.linear(mixed.transpose(1, 2).reshape(rows, tokens, -1), self.weights["out"])
        given = _normed(stream)
        gate = functional.silu(functional.linear(given, self.weights["gate"]))
        return stream + functional.linear(gate * functional.linear(given, self.weights["up"]), self.weights["down"])


def _normed(stream: Tensor) -> Tensor:
    """Divided by its root mean square, in float32, as most families do."""
    wide = stream.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(stream.dtype)


def _turned(heads: Tensor) -> Tensor:
    """As rotary positions turn queries and keys."""
    first, second = heads.chunk(2, dim=-1)
    return heads * 0.5 + torch.cat((-second, first), dim=-1) * 0.5


def _seconds(work: Callable[[], object], device: str) -> float:
    """The median of several runs."""

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    work()
    wait()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < _LONGEST:
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def _read_rate(file: Path | None) -> float:
    """Bytes read in a second, from the disk and not from memory where the system can be told so."""
    with tempfile.TemporaryDirectory() as folder:
        if file is None:
            file = Path(folder) / "probe"
            with file.open("wb") as stream:
                for _ in range(_PROBE // _PIECE):
                    stream.write(os.urandom(_PIECE))
                stream.flush()
                os.fsync(stream.fileno())
        with file.open("rb", buffering=0) as stream:
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, _PROBE, os.POSIX_FADV_DONTNEED)
            began, count, into = time.perf_counter(), 0, bytearray(_PIECE)
            while count < _PROBE and (got := stream.readinto(into)):
                count += got
            return max(count, 1) / max(time.perf_counter() - began, 1e-6)
