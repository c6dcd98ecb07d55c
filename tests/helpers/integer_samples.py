"""Layers that GPTQ, AWQ and compressed-tensors quantised (tools/integer_samples.py), as tensors of a checkpoint."""

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.helpers.quantiser_samples import Sample
from weight_edit.checkpoint.quantized.formats import storage_of
from weight_edit.checkpoint.quantized.integers import Integers

FILE = Path(__file__).parents[1] / "checkpoint/quantized/integer_samples.safetensors"

GPTQ = tuple(f"gptq{end}" for end in ("", "-asymmetric", "-v2", "-act-order", "-one-group", "-8", "-3", "-2"))
AWQ = ("awq", "awq-symmetric")
PACKED = tuple(f"pack{end}" for end in ("", "-asymmetric", "-channel", "-tensor", "-8", "-3", "-odd"))
INT8 = (*(f"int8{end}" for end in ("", "-asymmetric", "-group", "-tensor")), "naive")
NAMES = (*GPTQ, *AWQ, *PACKED, *INT8)


@cache
def _all() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(FILE, "pt") as file:
        configs = {name: json.loads(text) for name, text in file.metadata().items()}
    return load_file(FILE), configs


@dataclass
class IntegerSample(Sample):
    """One layer; see `Sample`.

    Attributes:
        config: its `quantization_config`.
    """

    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str) -> "IntegerSample":
        """A sample, which can be changed."""
        tensors, configs = _all()
        own = {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}
        sample = cls(name, {}, {}, own.pop("wanted"), json.loads(json.dumps(configs[name])))
        for key, tensor in own.items():
            sample.put(f"x.{key}", tensor)
        return sample

    def tensor(self, key: str) -> torch.Tensor:
        """One of its tensors."""
        return _all()[0][f"{self.name}.{key.removeprefix('x.')}"].clone()

    def storage(self) -> Integers:
        """Its storage."""
        found = storage_of("x.weight", self.infos, self.config, -2, lambda key: self.raw[key].tobytes())
        assert isinstance(found, Integers)
        return found

    def matrix(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers as they lie on disk, (outputs, inputs)."""
        return numbers.T if self.name in (*GPTQ, *AWQ) else numbers
