"""Quantised tensors that store codes of a small format, times scales."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.minifloat import MiniFloat
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import Storage, Strip

BFLOAT16_LIMIT = 2.0**128 - 2.0**119
"""What runtimes make of quantised numbers has to be finite as bfloat16, whatever the scales could hold."""


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
        """The codes of a strip's columns from `first` to before `last`, one in each byte, (rows, last - first)."""

    @abstractmethod
    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """Store codes, (rows, columns), into a strip's columns from `first` on."""

    @abstractmethod
    def scales(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.float64]:
        """The scales of these columns, of the codes' shape or fit to be broadcast to it."""

    def decode(self, strip: Strip, rows: int, first: int, last: int, memory: Memory = fresh) -> NDArray[np.float64]:
        """See `Storage`."""
        values = self.format.decode(self.codes(strip, rows, first, last))
        values *= self.scales(strip, rows, first, last)
        return values
