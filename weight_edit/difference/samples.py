"""A sample of one parameter's stream vectors in both checkpoints, small enough for memory however large that is.

All that a verdict asks of a tensor is asked of its sample, with the stream's axis first.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.storage import Strip
from weight_edit.difference.pairs import Pair, RowBlock, Side, Values

NUMBERS = 1 << 18
"""Numbers of a sample, about."""

RUN = 256
"""Vectors that lie beside one another on disk are taken in runs, so that blocks of quantised formats are whole."""

_MATRICES = 4
_SMALLEST = {"F16": 2.0**-24, "BF16": 2.0**-133, "F32": 2.0**-149}


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """Some vectors of a parameter, before and after.

    Attributes:
        name: of the tensor.
        side: on which of the stored matrix's sides the vectors lie.
        a, b: (d, m), the vectors as columns.
        unit: (d, m), the distance between neighbouring numbers of the storage format around b.
        lengths_a, lengths_b: (d,), the lengths of whole rows: of all vectors' entries at one coordinate of the stream,
            in the first matrix.
        peaks: (d,), the largest |b| of each stored row of the first matrix, where vectors are columns; else empty.
        first: how many of the vectors are of the first matrix.
        whole: whether all vectors are here.
        coded: whether the second is stored by codes on a grid, and the first is not.
    """

    name: str
    side: Side
    a: Values
    b: Values
    unit: Values
    lengths_a: Values
    lengths_b: Values
    peaks: Values
    first: int
    whole: bool
    coded: bool

    @cached_property
    def change(self) -> Values:
        """D = B - A."""
        return self.b - self.a

    @cached_property
    def square(self) -> float:
        """|D|^2."""
        return float(np.vdot(self.change, self.change))

    @cached_property
    def noise(self) -> float:
        """The expected |error|^2 of rounding every number to the nearest of the format."""
        return float(np.vdot(self.unit, self.unit)) / 12

    @cached_property
    def edge(self) -> float:
        """A bound on the singular values of independent rounding errors, with 10% to spare."""
        squares = self.unit**2 / 12
        return 1.1 * float(squares.sum(0).max() ** 0.5 + squares.sum(1).max() ** 0.5)

    @property
    def width(self) -> int:
        """Of the stream."""
        return len(self.a)

    def of_first_matrix(self) -> "Sample":
        """The vectors of the first matrix alone."""
        n = self.first
        if n == self.a.shape[1]:
            return self
        return replace(self, a=self.a[:, :n], b=self.b[:, :n], unit=self.unit[:, :n])

    def every_second(self) -> "Sample":
        """Every second of the vectors."""
        return replace(self, a=self.a[:, 1::2], b=self.b[:, 1::2], unit=self.unit[:, 1::2])

    def scaled(self, gains: Values) -> "Sample":
        """The vectors behind a norm: each entry times a gain."""
        column = gains[:, None]
        return replace(self, a=self.a * column, b=self.b * column, unit=self.unit * np.abs(column))


def sample_of(pair: Pair, side: Side) -> Sample | None:
    """A sample of a parameter's vectors; None where none of them is among what differs.

    One pass over the parameter. Of vectors that are columns, runs are taken at even distances; of rows, those that
    differ, from every block in which some do.

    Args:
        pair: the parameter, after `compare`.
        side: where the stream's vectors lie.
    """
    length, others = pair.length(side), pair.others(side)
    wanted = max(RUN, NUMBERS // max(1, length) // RUN * RUN)
    slabs = sorted({int(n) for n in np.linspace(0, pair.slabs - 1, min(pair.slabs, _MATRICES))})
    per_slab = max(32, wanted // len(slabs))
    taken = [_of_slab(pair, side, slab, per_slab) for slab in slabs]
    parts = [part for part, _ in taken if part is not None]
    if not parts:
        return None
    a, b, unit = (np.concatenate([part[number] for part in parts], axis=1) for number in range(3))
    return Sample(
        name=pair.name,
        side=side,
        a=a,
        b=b,
        unit=unit,
        lengths_a=np.sqrt(taken[0][1][0]),
        lengths_b=np.sqrt(taken[0][1][1]),
        peaks=taken[0][1][2],
        first=parts[0][0].shape[1],
        whole=a.shape[1] == others * pair.slabs,
        coded=isinstance(pair.b, Coded) and not isinstance(pair.a, Coded),
    )


_Three = tuple[Values, Values, Values]


def _of_slab(pair: Pair, side: Side, slab: int, wanted: int) -> tuple[_Three | None, _Three]:
    others = pair.others(side)
    length = pair.length(side)
    squares = np.zeros(length), np.zeros(length), np.zeros(length if side == "columns" else 0)
    columns = _runs(others, wanted) if side == "columns" else np.arange(0)
    touched = max(1, sum(1 for where, _ in pair.touched if where == slab))
    quota = -(-wanted // touched)
    found: list[_Three] = []
    for block, strip in pair.blocks_with_bytes(slab):
        _add_lengths(squares, block, side)
        if side == "columns":
            found.append((block.a[:, columns], block.b[:, columns], units(pair, block, strip)[:, columns]))
        elif (slab, block.first) in pair.touched:
            rows = _some(np.flatnonzero((block.a != block.b).any(1)), quota)
            if len(rows):
                found.append((block.a[rows].T, block.b[rows].T, units(pair, block, strip)[rows].T))
    if not found:
        return None, squares
    axis = 0 if side == "columns" else 1
    a, b, unit = (np.concatenate([part[number] for part in found], axis=axis)[:, :wanted] for number in range(3))
    return ((a, b, unit) if not np.array_equal(a, b) else None), squares


def _add_lengths(squares: _Three, block: RowBlock, side: Side) -> None:
    for sums, values in ((squares[0], block.a), (squares[1], block.b)):
        if side == "columns":
            sums[block.first : block.last] = np.einsum("ij,ij->i", values, values)
        else:
            sums += np.einsum("ij,ij->j", values, values)
    if side == "columns":
        squares[2][block.first : block.last] = np.abs(block.b).max(1)


def _runs(count: int, wanted: int) -> NDArray[np.intp]:
    """Numbers of vectors: all, or runs of `RUN` at even distances."""
    if count <= wanted:
        return np.arange(count)
    runs = max(1, wanted // RUN)
    places = np.linspace(0, count // RUN - 1, runs).astype(np.intp) if count >= RUN else np.zeros(1, np.intp)
    return np.unique((places[:, None] * RUN + np.arange(min(RUN, count))).reshape(-1))


def _some(numbers: NDArray[np.intp], wanted: int) -> NDArray[np.intp]:
    if len(numbers) <= wanted:
        return numbers
    return numbers[np.linspace(0, len(numbers) - 1, wanted).astype(np.intp)]


def units(pair: Pair, block: RowBlock, strip: Strip | None) -> Values:
    """The distance between neighbouring numbers around b, in the coarser of the two formats."""
    power = np.exp2(np.floor(np.log2(np.maximum(np.abs(block.b), 1e-300))))
    floating = power * 2.0**-pair.bits
    for storage in (pair.a, pair.b):
        floating = np.maximum(floating, _SMALLEST.get(storage.parts[storage.name][0], 0.0))
    if strip is None or not isinstance(pair.b, Coded):
        return floating
    gap = pair.b.neighbours(block.b.copy(), 0, strip).gap
    return np.asarray(np.abs(gap), np.float64)
