"""The arithmetic of an edit on one matrix: gains, then the map, then restored lengths.

Where vectors are columns, `P = R^T W` needs all rows: a pass over the matrix makes it before another applies it. Where
lengths are kept too, a third pass in between measures them before and after the map. They are measured and not
computed from P: where the map leaves little of a vector, the formula for its length loses all digits.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.tensor.along import multiply
from weight_edit.checkpoint.tensor.scratch import scratch
from weight_edit.checkpoint.tensor.storage import ByteReader, Storage
from weight_edit.utils.arrays import norm_restoring_factors
from weight_edit.utils.fixed_sums import column_squares, inner_products, row_squares, transposed_product, uncopied

Floats = NDArray[np.float64]


class AffineMap(Protocol):
    """A map's float64 factors of shape (d, k), and its constant of shape (d,) or None."""

    @property
    def left(self) -> Floats: ...
    @property
    def right(self) -> Floats: ...
    @property
    def constant(self) -> Floats | None: ...


class TensorChange(Protocol):
    """The change of a tensor's vectors; see `EditedTensor`."""

    @property
    def source(self) -> Storage: ...
    @property
    def map(self) -> AffineMap | None: ...
    @property
    def along_rows(self) -> bool: ...
    @property
    def gains(self) -> Floats | None: ...
    @property
    def keep_norms(self) -> bool: ...


class SlabMap:
    """A change of one matrix, with the column sums and factors that a row's map needs."""

    def __init__(self, change: TensorChange, read: ByteReader, slab: int) -> None:
        self._source, self._map, self._along_rows = change.source, change.map, change.along_rows
        self._gains, self._keep = change.gains, change.keep_norms
        self._sums = self._factors = None
        if self._along_rows and self._map is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                self._sums = self._column_sums(self._map, read, slab)
                if self._keep:
                    self._factors = self._column_factors(self._map, self._sums, read, slab)

    def tiles(self, values: Floats, first: int, last: int) -> Iterator[tuple[int, Floats]]:
        """Map the rows `first` to `last` - 1 in place; yields (first column, numbers) of each tile.

        Args:
            values: the rows, shape (last - first, columns).
        """
        if self._gains is not None:
            multiply(values, self._gains, (first, last), (0, values.shape[1]), self._along_rows)
        before = _lengths(values) if self._keep and not self._along_rows else None
        sums = self._sums
        if self._map is not None and sums is None:
            sums = inner_products(values, np.ascontiguousarray(self._map.right.T))
        waiting = []
        for begin, end in self._source.tiles():
            tile = values[:, begin:end]
            if self._map is not None and sums is not None:
                self._apply(self._map, tile, sums, (first, last), (begin, end))
            if before is None:
                yield begin, tile
            else:
                waiting.append((begin, tile))
        if before is not None:
            values *= norm_restoring_factors(before, _lengths(values))[:, None]
            yield from waiting

    def apply(self, tile: Floats, rows: tuple[int, int], cols: tuple[int, int]) -> None:
        """Map a tile in place, where vectors are columns: all that is needed of other rows is known.

        Args:
            tile: the numbers of these rows and columns.
        """
        if self._gains is not None:
            multiply(tile, self._gains, rows, cols, True)
        if self._map is not None and self._sums is not None:
            self._apply(self._map, tile, self._sums, rows, cols)

    def _apply(
        self, stream_map: AffineMap, tile: Floats, sums: Floats, rows: tuple[int, int], cols: tuple[int, int]
    ) -> None:
        """Map one tile in place."""
        (first, last), (begin, end) = rows, cols
        shift = stream_map.constant
        if self._along_rows:
            _subtract_product(tile, stream_map.left[first:last], sums[:, begin:end])
            if self._factors is not None:
                tile *= self._factors[begin:end]
            if shift is not None:
                tile += shift[first:last, None]
        else:
            _subtract_product(tile, sums, stream_map.left[begin:end].T)
            if shift is not None:
                tile += shift[begin:end]

    def _decoded(self, read: ByteReader, slab: int) -> Iterator[tuple[tuple[int, int], tuple[int, int], Floats]]:
        """(rows, columns, numbers) of each tile of the source; the numbers may be overwritten."""
        for first, last in self._source.strips():
            strip = self._source.load(read, slab, first, last, scratch)
            for begin, end in self._source.tiles():
                yield (first, last), (begin, end), self._source.decode(strip, last - first, begin, end, scratch)

    def _column_sums(self, stream_map: AffineMap, read: ByteReader, slab: int) -> Floats:
        """`R^T W`, shape (k, columns), of W after the gains."""
        sums = np.zeros((stream_map.right.shape[1], self._source.cols))
        for rows, cols, tile in self._decoded(read, slab):
            if self._gains is not None:
                multiply(tile, self._gains, rows, cols, True)
            sums[:, slice(*cols)] += transposed_product(stream_map.right[slice(*rows)], tile)
        return sums

    def _column_factors(self, stream_map: AffineMap, sums: Floats, read: ByteReader, slab: int) -> Floats:
        """The factors that restore the columns' lengths after the map, shape (columns,)."""
        before, after = np.zeros((2, self._source.cols))
        for rows, cols, tile in self._decoded(read, slab):
            before[slice(*cols)] += column_squares(tile)
            _subtract_product(tile, stream_map.left[slice(*rows)], sums[:, slice(*cols)])
            after[slice(*cols)] += column_squares(tile)
        return norm_restoring_factors(np.sqrt(before), np.sqrt(after))


def _lengths(rows: Floats) -> Floats:
    return np.sqrt(row_squares(rows))


def _subtract_product(tile: Floats, left: Floats, right: Floats) -> None:
    """Subtract the product of (n, k) and (k, m) from a tile, in place, term by term."""
    product = scratch("product", tile.size, np.float64).reshape(tile.shape)
    with uncopied():
        for number in range(left.shape[1]):
            np.multiply(left[:, number, None], right[number], out=product)
            np.subtract(tile, product, out=tile)
