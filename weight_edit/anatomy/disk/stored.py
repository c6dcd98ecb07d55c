"""The names and shapes of a checkpoint's numbers, without their bytes."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from weight_edit.checkpoint.quantized.formats import BLOCKS, PACKED_SCALES, quantised_names, scale_of
from weight_edit.checkpoint.quantized.mxfp4 import GROUP
from weight_edit.checkpoint.tensor.header import TensorInfo


@dataclass(frozen=True)
class Stored:
    """Names and shapes of stored numbers; a quantised parameter has one name, without scales.

    Attributes:
        shapes: of the numbers, by name.
        transposed: those whose last two axes lie the other way round on disk than transformers' own reader of the
            format gives them (MXFP4).
    """

    shapes: dict[str, tuple[int, ...]]
    transposed: tuple[str, ...] = ()

    @classmethod
    def of(cls, tensors: Mapping[str, TensorInfo]) -> "Stored":
        """Names and shapes by a checkpoint's headers; formats that cannot be edited pass."""
        shapes = {name: tuple(info.shape) for name, info in tensors.items()}
        transposed = []
        for name in quantised_names(tensors):
            scale = scale_of(name, tensors)
            if name in tensors:
                if scale is not None:
                    shapes.pop(scale.name, None)
                continue
            *rows, groups, _ = (*tensors[name + BLOCKS].shape, 1, 1)[:4]
            del shapes[name + BLOCKS], shapes[name + PACKED_SCALES]
            shapes[name] = (*rows, groups * GROUP)
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
