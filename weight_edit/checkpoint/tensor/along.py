"""The component of a tensor along an edit's directions, `|R^T W|`, summed strip by strip."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.scratch import scratch
from weight_edit.checkpoint.tensor.storage import Storage, Strip
from weight_edit.utils.fixed_sums import dot, inner_products, transposed_product


def multiply(
    tile: NDArray[np.float64],
    gains: NDArray[np.float64],
    rows: tuple[int, int],
    cols: tuple[int, int],
    along_rows: bool,
) -> None:
    """Multiply vectors by gains, entry by entry and in place.

    Args:
        tile: the numbers in these rows and columns of a matrix.
        gains: shape (d,).
        along_rows: whether the vectors are the matrix's columns.
    """
    tile *= gains[slice(*rows), None] if along_rows else gains[slice(*cols)]


class Along:
    """A running sum of `|R^T W|` over one tensor's strips, added in order.

    Args:
        right: R, shape (d, k).
        along_rows: whether the vectors along the axis are the matrix's columns.
        gains: shape (d,), what the vectors are multiplied by first.
        constant: shape (d,), what is taken off them after that: a map's own constant is nothing that it left.
    """

    def __init__(
        self,
        storage: Storage,
        right: NDArray[np.float64],
        along_rows: bool,
        gains: NDArray[np.float64] | None = None,
        constant: NDArray[np.float64] | None = None,
    ) -> None:
        self._storage, self._along_rows, self._gains = storage, along_rows, gains
        self._constant = constant
        self._right = right
        self._columns = np.zeros((right.shape[1], storage.cols if along_rows else 0))
        self._square = self._all = 0.0

    def add(self, strip: Strip, first: int, last: int) -> None:
        """Add the rows `first` to `last` - 1 of the current slab; row 0 begins a new slab."""
        rows, spans = last - first, self._storage.tiles()
        tiles = ((begin, self._storage.decode(strip, rows, begin, end, scratch)) for begin, end in spans)
        self.add_tiles(tiles, first, last)

    def add_tiles(self, tiles: Iterable[tuple[int, NDArray[np.float64]]], first: int, last: int) -> None:
        """Add rows given as (first column, tile) pairs; the tiles are overwritten."""
        if first == 0:
            self._close()
        own = np.zeros((last - first, self._right.shape[1]))
        for begin, tile in tiles:
            end = begin + tile.shape[1]
            if self._gains is not None:
                multiply(tile, self._gains, (first, last), (begin, end), self._along_rows)
            if self._constant is not None:
                tile -= self._constant[first:last, None] if self._along_rows else self._constant[begin:end]
            self._all += dot(tile, tile)
            if self._along_rows:
                self._columns[:, begin:end] += transposed_product(self._right[first:last], tile)
            else:
                own += inner_products(tile, np.ascontiguousarray(self._right[begin:end].T))
        self._square += dot(own, own)

    def _close(self) -> None:
        self._square += dot(self._columns, self._columns)
        self._columns[:] = 0.0

    @property
    def norm(self) -> float:
        """`|R^T W|` of the strips so far."""
        self._close()
        return math.sqrt(self._square)

    @property
    def whole(self) -> float:
        """`|W|` of the strips so far."""
        return math.sqrt(self._all)

    @property
    def expected(self) -> float:
        """The `|R^T W|` expected of random directions."""
        return self.whole * math.sqrt(self._right.shape[1] / self._right.shape[0])
