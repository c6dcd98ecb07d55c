"""Quantised tensors that store codes of a small format, times scales."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.minifloat import MiniFloat
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import Storage, Strip

BFLOAT16_LIMIT = 2.0**128 - 2.0**119
"""The limit on decoded numbers: runtimes decode to bfloat16, where they must be finite."""


class Coded(Storage):
    """A tensor of codes and scales.

    Attributes:
        format: of the codes.
    """

    format: MiniFloat
    lossy = True
    limit = BFLOAT16_LIMIT

    @abstractmethod
    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """The codes of a strip's columns `first` to `last` - 1, one per byte, (rows, last - first)."""

    @abstractmethod
    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """Store codes, (rows, columns), into a strip's columns beginning at `first`."""

    @abstractmethod
    def scales(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float64]:
        """The scales of a strip's columns, in a shape that broadcasts to that of the codes."""

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        values = self.format.decode(self.codes(strip, rows, first, last))
        values *= self.scales(strip, rows, first, last)
        return values
