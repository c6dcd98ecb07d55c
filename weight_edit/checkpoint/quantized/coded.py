"""Quantised tensors: numbers on a known grid, chosen by codes.

An edit keeps the grid of a block, which its scale and its minimum make, and chooses codes anew. Only where an edited
block no longer fits its grid is that made anew (`fit`). What a format has to say is in these few methods; rounding is
one module for all, `balanced`.
"""

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.storage import Storage, Strip

BFLOAT16_LIMIT = 2.0**128 - 2.0**119
"""The limit on decoded numbers: runtimes decode to bfloat16, where they must be finite."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The two numbers of the grid next to each wanted one, by their codes.

    All arrays have the shape of the wanted numbers. Beyond the ends of the grid, they are its last two.

    Attributes:
        low, high: uint8, the codes of the lower and of the higher number.
        error: float32, the lower number less the wanted one.
        gap: float32, the higher number less the lower one, not negative.
    """

    low: NDArray[np.uint8]
    high: NDArray[np.uint8]
    error: NDArray[np.float32]
    gap: NDArray[np.float32]

    def shaped(self, shape: tuple[int, ...]) -> "Neighbours":
        """The same in another shape."""
        return Neighbours(
            self.low.reshape(shape), self.high.reshape(shape), self.error.reshape(shape), self.gap.reshape(shape)
        )

    def nearest(self) -> NDArray[np.uint8]:
        """The code of the nearer one."""
        return self.chosen(self.error * -2 > self.gap)

    def chosen(self, high: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The codes of the higher numbers where a mask says so, else of the lower ones."""
        # By bits: a choice by condition is several times as slow where the condition is random.
        codes = self.low ^ self.high
        codes *= high
        codes ^= self.low
        return codes


class Coded(Storage):
    """A tensor of codes on a grid.

    Where a format `keeps_grid`, `fit` writes scales of blocks that do not fit theirs, and else those of all blocks.

    Attributes:
        widens: whether `widen` can make room on a grid.
        packed: codes are stored and their neighbours asked for at columns that begin at a multiple of this, because so
            many share a word or a block's bytes; those of a scale are as many, or a multiple.
    """

    lossy = True
    limit = BFLOAT16_LIMIT
    widens: bool = False
    packed: int = 1

    @abstractmethod
    def codes(self, strip: Strip, rows: int, first: int, last: int) -> NDArray[np.uint8]:
        """The codes of a strip's columns `first` to `last` - 1, one per byte, (rows, last - first)."""

    @abstractmethod
    def put_codes(self, codes: NDArray[np.uint8], first: int, into: Strip) -> None:
        """Store codes, (rows, columns), into a strip's columns beginning at `first`, a multiple of `col_step`."""

    @abstractmethod
    def fit(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """Make the grid of blocks anew where numbers do not fit it; the number of blocks for which that was done.

        Args:
            values: whole blocks, (rows, columns); not changed.
            first: the first column.
            into: the strip, whose scales are written.
            peak: the largest absolute number of the whole slab, where `one_scale`.
        """

    def widen(self, values: NDArray[np.float64], first: int, into: Strip, must: NDArray[np.bool_]) -> int:
        """Make room on the grid for some numbers beyond its ends, whatever that costs the others of their blocks.

        Called after `fit`, where cut numbers add up along an edit's directions to more than others can settle.

        Args:
            values, first, into: as for `fit`.
            must: which numbers, in a shape that broadcasts.

        Returns:
            The number of blocks whose grid was made anew.
        """
        return 0

    @abstractmethod
    def neighbours(self, values: NDArray[np.float64], first: int, strip: Strip) -> Neighbours:
        """The numbers of a strip's grid next to wanted ones; see `fit` for the arguments."""

    def encode(self, values: NDArray[np.float64], first: int, into: Strip, peak: float) -> int:
        """See `Storage`. Each number is rounded to the nearest of the grid."""
        if not values.size:
            return 0
        anew = self.fit(values, first, into, peak)
        self.put_codes(self.neighbours(values, first, into).nearest(), first, into)
        return anew
