"""Matrices that the formats' own packages quantised (tools/quantiser_samples.py), as tensors of a checkpoint."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tests.helpers.quantized_samples import reader
from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.storage import Strip
from weight_edit.checkpoint.tensor.torch_dtypes import TORCH_DTYPES

FILE = Path(__file__).parents[1] / "checkpoint/quantized/quantiser_samples.safetensors"

NAMES = (
    *(f"{kind}{end}" for kind in ("nf4", "fp4") for end in ("", "-nested", "-crossing", "-nested-crossing")),
    *("nf4-odd", "int8", "nvfp4-modelopt", "nvfp4-compressed"),
)

_DTYPES = {dtype: name for name, dtype in TORCH_DTYPES.items()}


@cache
def _all() -> dict[str, torch.Tensor]:
    return load_file(FILE)


@dataclass
class Sample:
    """One matrix.

    Attributes:
        name: of the sample.
        raw: the bytes of its tensors, by name; `weight` is the parameter's.
        infos: their headers.
        wanted: its numbers as the package decodes them.
    """

    name: str
    raw: dict[str, np.ndarray]
    infos: dict[str, TensorInfo]
    wanted: torch.Tensor

    @classmethod
    def of(cls, name: str) -> "Sample":
        """A sample, which can be changed."""
        tensors = {key.removeprefix(name + "."): t for key, t in _all().items() if key.startswith(name + ".")}
        wanted = tensors.pop("wanted")
        sample = cls(name, {}, {}, wanted)
        for key, tensor in tensors.items():
            sample.put(key, tensor)
        return sample

    def put(self, key: str, tensor: torch.Tensor) -> None:
        """Set one of its tensors."""
        self.raw[key] = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().copy()
        self.infos[key] = TensorInfo(
            name=key,
            shard="model.safetensors",
            dtype=_DTYPES[tensor.dtype],
            shape=tuple(tensor.shape),
            begin=0,
            end=self.raw[key].size,
        )

    def storage(self) -> Coded:
        """Its storage."""
        found = storage_of("weight", self.infos, {}, -2, lambda key: self.raw[key].tobytes())
        assert isinstance(found, Coded)
        return found

    def strip(self, storage: Coded, first: int, last: int) -> Strip:
        """Some rows, as an edited strip begins: a copy of the source's."""
        return {name: raw.copy() for name, raw in storage.load(reader(self.raw), 0, first, last).items()}


def stored_again(sample: Sample, values: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    """The bytes of a sample's parts with other numbers, to nearest, and the number of blocks made anew."""
    storage, made = sample.storage(), 0
    found: dict[str, list[np.ndarray]] = {name: [] for name in storage.parts}
    for first, last in storage.strips():
        strip = sample.strip(storage, first, last)
        for begin, end in storage.tiles():
            tile = np.ascontiguousarray(values[first:last, begin:end])
            made += storage.fit(tile, begin, strip, 0.0)
            storage.put_codes(storage.neighbours(tile, begin, strip).nearest(), begin, strip)
        for name, raws in found.items():
            raws.append(strip[name])
    return {name: np.concatenate(raws) for name, raws in found.items()}, made
