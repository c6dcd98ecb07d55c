"""Small quantised checkpoints made on the spot, an independent reading of their numbers, and the edit of one.

What is decoded here is decoded by torch's own types and by plain formulas, not by the code under test.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.helpers.rewriting import rewrite
from weight_edit.checkpoint.quantized.dequantize import AxisEdit, Transposed, dequantised
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.quantized.fp8 import Fp8Block, Fp8Scaled, TensorSpec
from weight_edit.checkpoint.quantized.mxfp4 import Mxfp4
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import AffineMap, EditedTensor
from weight_edit.checkpoint.tensor.header import TensorInfo, read_header
from weight_edit.checkpoint.tensor.storage import ByteReader, Storage
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])

BLOCK = (128, 128)
FINE = {"quant_method": "fp8", "weight_block_size": [128, 128]}
COMPRESSED = {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"strategy": "channel"}}}}


def infos(**tensors: tuple[str, tuple[int, ...]]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(name=name, shard="model.safetensors", dtype=dtype, shape=shape, begin=0, end=0)
        for name, (dtype, shape) in tensors.items()
    }


def block_storage(shape: tuple[int, ...], dtype: str = "F32", powers: bool = False) -> Fp8Block:
    grid = (*shape[:-2], -(-shape[-2] // BLOCK[0]), -(-shape[-1] // BLOCK[1]))
    return Fp8Block(TensorSpec("w", "F8_E4M3", shape), TensorSpec("s", dtype, grid), BLOCK, powers)


def row_storage(shape: tuple[int, ...], dtype: str = "F32") -> Fp8Block:
    return Fp8Block(TensorSpec("w", "F8_E4M3", shape), TensorSpec("s", dtype, (*shape[:-1], 1)), (1, shape[-1]))


def tensor_storage(shape: tuple[int, ...], dtype: str = "F32") -> Fp8Scaled:
    return Fp8Scaled(TensorSpec("w", "F8_E4M3", shape), TensorSpec("s", dtype, shape[:-2]))


def mxfp4_storage(experts: int, rows: int, groups: int) -> Mxfp4:
    return Mxfp4(TensorSpec("b", "U8", (experts, rows, groups, 16)), TensorSpec("s", "U8", (experts, rows, groups)))


@dataclass(frozen=True)
class Projection:
    """Ablation of orthonormal columns: `I - V V^T`."""

    left: np.ndarray
    constant: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        return self.left


def projection(width: int, k: int = 1, seed: int = 0) -> Projection:
    """Random orthonormal directions of shape (width, k)."""
    noise = np.random.default_rng(seed).standard_normal((width, k))
    return Projection(np.linalg.qr(noise)[0])


def reader(parts: Mapping[str, np.ndarray]) -> ByteReader:
    """Reads tensors that are given as flat bytes."""

    def read(name: str, offset: int, into: np.ndarray) -> None:
        into[:] = parts[name][offset : offset + into.size]

    return read


def store(storage: Storage, values: np.ndarray) -> dict[str, np.ndarray]:
    """The bytes of all parts of a tensor with these numbers."""
    whole = values.reshape(storage.slabs, storage.rows, storage.cols)
    found: dict[str, list[np.ndarray]] = {name: [] for name in storage.parts}
    for matrix in whole:
        peak = float(np.abs(matrix).max(initial=0.0))
        for first, last in storage.strips():
            strip = {name: np.full(size, 0xAA, np.uint8) for name, size in storage.strip_bytes(last - first).items()}
            if storage.keeps_grid:
                # As where a tensor comes from another format: there is no scale to be kept.
                strip = {name: np.zeros_like(raw) for name, raw in strip.items()}
            for begin, end in storage.tiles():
                storage.encode(np.array(matrix[first:last, begin:end]), begin, strip, peak)
            for name, raw in strip.items():
                if name == storage.name or not storage.one_scale:
                    found[name].append(raw)
        if storage.one_scale:
            found[list(storage.parts)[1]].append(storage.scale_bytes(peak, strip[list(storage.parts)[1]] * 0))
    return {name: np.concatenate(raws) if raws else np.empty(0, np.uint8) for name, raws in found.items()}


def numbers(storage: Storage, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The numbers of a stored tensor as the storage decodes them, shape (slabs, rows, cols)."""
    values = np.full((storage.slabs, storage.rows, storage.cols), np.nan)
    for slab, (first, last), (begin, end) in _tiles(storage):
        strip = storage.load(reader(parts), slab, first, last)
        values[slab, first:last, begin:end] = storage.decode(strip, last - first, begin, end)
    return values


def _tiles(storage: Storage) -> Iterator[tuple[int, tuple[int, int], tuple[int, int]]]:
    for slab in range(storage.slabs):
        for rows in storage.strips():
            for cols in storage.tiles():
                yield slab, rows, cols


def torch_tensor(raw: np.ndarray, dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A tensor of torch's own type."""
    return torch.from_numpy(raw.copy()).view(TORCH_DTYPES[dtype]).reshape(shape)


def spread(scale: torch.Tensor, block: tuple[int, int], rows: int, cols: int) -> torch.Tensor:
    """A scale for each number, in float64."""
    wide = scale.to(torch.float64).repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return wide[..., :rows, :cols]


def mxfp4_numbers(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """MXFP4 by its definition, number by number: (..., rows, groups, 16) to (..., rows, columns), float64."""
    signed = torch.cat([E2M1, -E2M1]).to(torch.float64)
    pairs = torch.stack([signed[(blocks & 15).long()], signed[(blocks >> 4).long()]], dim=-1)
    return (pairs.flatten(-2) * 2.0 ** (scales.to(torch.float64) - 127)[..., None]).flatten(-2)


def to_fp8(weight: torch.Tensor, block: tuple[int, int], scale_dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise a matrix the plain way: e4m3 codes and a scale for each block."""
    rows, cols = weight.shape
    down, across = -(-rows // block[0]), -(-cols // block[1])
    padded = torch.zeros(down * block[0], across * block[1])
    padded[:rows, :cols] = weight
    peaks = padded.reshape(down, block[0], across, block[1]).abs().amax(dim=(1, 3))
    scale = (peaks / 448).to(scale_dtype)
    codes = (weight / spread(scale.float(), block, rows, cols)).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, scale


def to_mxfp4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise (experts, rows, columns) the plain way: nearest number under the power that OCP's recipe gives."""
    groups = weight.reshape(*weight.shape[:-1], -1, 32)
    power = torch.floor(torch.log2(groups.abs().amax(-1))) - 2
    scaled = groups / 2.0 ** power[..., None]
    code = (scaled.abs()[..., None] - E2M1).abs().argmin(-1) + 8 * (scaled < 0)
    return (code[..., 0::2] + 16 * code[..., 1::2]).to(torch.uint8), (power + 127).to(torch.uint8)


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Gains, biases and weights large enough to matter to the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            gain = "norm" in name and name.endswith("weight")
            width = parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 4.0
            parameter.copy_(1 + 0.2 * noise if gain else noise / width)


def write_checkpoint(folder: Path, model: Any, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> Path:
    """A folder with a model's configuration, a `quantization_config` and tensors."""
    folder.mkdir(parents=True)
    whole = model.config.to_dict() | {"quantization_config": dict(config), "dtype": "bfloat16"}
    whole["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(whole))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def tensors_of(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of a checkpoint of one file."""
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        return {info.name: info for info in read_header(file, path.stat().st_size, path.name).tensors}


def folder_reader(folder: Path) -> ByteReader:
    """Reads tensors of a checkpoint of one file."""
    infos, raw = tensors_of(folder), np.fromfile(folder / "model.safetensors", np.uint8)

    def read(name: str, offset: int, into: np.ndarray) -> None:
        begin = infos[name].begin + offset
        assert begin + into.size <= infos[name].end
        into[:] = raw[begin : begin + into.size]

    return read


def edit_checkpoint(
    folder: Path,
    out: Path,
    edits: Mapping[str, tuple[int, AffineMap]],
    dequantise: bool = False,
    kind: type[EditedTensor] = EditedTensor,
) -> Path:
    """Write the edited checkpoint: `edits` has the axis on disk (-1 for the last) and the map by name."""
    source = Checkpoint.open(folder)
    quantisation = source.config["quantization_config"]
    streams: dict[str, EditedTensor | Transposed] = {}
    config = {}
    if dequantise:
        plan = dequantised({name: AxisEdit(*edit) for name, edit in edits.items()}, source.tensors, quantisation)
        streams |= plan.streams
        config["quantization_config"] = plan.config
    for name, (axis, map_) in edits.items():
        if name not in streams:
            storage = storage_of(name, source.tensors, quantisation, axis)
            streams[name] = kind(source=storage, target=storage, map=map_, along_rows=axis >= 0)
    out.mkdir(parents=True)
    rewrite(source, out, streams.values(), config=config)
    return out
