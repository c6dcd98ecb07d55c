"""Directions as orthonormal rows, with metadata and tensors: the plain data of an edit."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.edits.direction_facts import check_facts
from weight_edit.errors import UsageError
from weight_edit.utils.arrays import Floats, as_float64

MADE_BY = {"left": "leace", "right": "leace"}
"""Tensor -> the method that alone writes it; means of the classes are written by all."""


@dataclass(frozen=True, eq=False)
class DirectionRows:
    """Directions in a model's residual stream, with all that an edit needs beside them.

    Attributes:
        rows: orthonormal rows, (k, d_model) float32; may be given as a torch tensor.
        metadata: JSON values, as in `weight_edit.directions.directions.Directions`.
        tensors: more that edits need, as there; float32, (d_model,) or (n, d_model).

    Raises:
        UsageError: metadata that no manifest can hold, see `check_facts`.
    """

    rows: NDArray[np.float32]
    metadata: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", as_float64(self.rows).astype(np.float32))
        kept = {name: as_float64(values).astype(np.float32) for name, values in self.tensors.items()}
        object.__setattr__(self, "tensors", kept)
        check_facts(self.metadata)

    def __repr__(self) -> str:
        count, width = self.rows.shape
        return f"DirectionRows({count} x {width}, tensors: {', '.join(sorted(self.tensors)) or 'none'})"

    def need(self, name: str, edit: str) -> Floats:
        """A tensor stored beside the directions, float64.

        Raises:
            UsageError: the file has none of that name.
        """
        if name not in self.tensors:
            raise lacking(name, edit)
        return as_float64(self.tensors[name])

    def check_width(self, d_model: int) -> None:
        """Refuse directions of another model's width.

        Raises:
            UsageError: names both widths.
        """
        width = self.rows.shape[1]
        if width != d_model:
            raise UsageError(
                f"the directions are {width} wide, but the model's residual stream is {d_model} wide; "
                "use directions found on this model"
            )


def lacking(name: str, edit: str) -> UsageError:
    """The error of directions without a tensor that an edit needs."""
    by = f", by the method {MADE_BY[name]}" if name in MADE_BY else ""
    return UsageError(
        f"the edit '{edit}' needs the tensor `{name}` beside the directions, which these do not have; find them "
        f"again{by}"
    )
