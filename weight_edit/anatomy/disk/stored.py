"""The names and shapes of a checkpoint's numbers, without their bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.checkpoint.quantized.format import SmallReader, StoredTensors, no_content
from weight_edit.checkpoint.quantized.formats import format_of, quantised_names
from weight_edit.checkpoint.tensor.header import TensorInfo


@dataclass(frozen=True)
class Stored:
    """Names and shapes of stored numbers; a quantised parameter has one name, without scales.

    Attributes:
        shapes: of the numbers, by name.
        transposed: those whose last two axes lie the other way round on disk than transformers' own reader of the
            format gives them (MXFP4, GPTQ, AWQ).
    """

    shapes: dict[str, tuple[int, ...]]
    transposed: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        tensors: Mapping[str, TensorInfo],
        config: Mapping[str, Any] | None = None,
        read: SmallReader = no_content,
    ) -> "Stored":
        """Names and shapes by a checkpoint's headers; formats that cannot be edited pass.

        Args:
            config: `quantization_config` of config.json.
            read: gives the bytes of small tensors, for formats that keep a shape in one.
        """
        given = StoredTensors(tensors, config or {}, read)
        shapes = {name: tuple(info.shape) for name, info in tensors.items()}
        transposed = []
        for name in quantised_names(tensors, given.config):
            kind = format_of(name, given)
            if kind is None:
                continue
            for part in kind.tensors_of(name, tensors):
                shapes.pop(part, None)
            shapes[name] = tuple(tensors[name].shape) if kind.shape is None else kind.shape(name, given)
            if kind.transposed:
                transposed.append(name)
        return cls(shapes, tuple(transposed))

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives an equal object."""
        return json.dumps({"shapes": dict(sorted(self.shapes.items())), "transposed": sorted(self.transposed)})

    @classmethod
    def from_json(cls, text: str) -> "Stored":
        """The object of a `to_json` text."""
        found = json.loads(text)
        shapes = {name: tuple(shape) for name, shape in found["shapes"].items()}
        return cls(shapes, tuple(found["transposed"]))

    def digest(self) -> bytes:
        """SHA-256 of names and shapes, independent of their order."""
        return hashlib.sha256(self.to_json().encode()).digest()
