"""A sample of one parameter's stream vectors in both checkpoints, small enough for memory however large that is.

All that a verdict asks of a tensor is asked of its sample, with the stream's axis first.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.storage import Strip
from weight_edit.difference.pairs import Pair, RowBlock, Side, Values, binade

NUMBERS = 1 << 18
"""Numbers of a sample, about."""

RUN = 256
"""Vectors that lie beside one another on disk are taken in runs, so that blocks of quantised formats are whole."""

_MATRICES = 4
_ENOUGH = 64
"""Differing vectors that a sample has where the matrix has as many: an operator is fitted to half of them."""

_STAYED = 16
"""Of how many vectors that differ one more is taken that does not: an edit predicts that these stay, too."""

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
        slab: which of the matrices is the first.
        whole: whether all vectors are here.
        vectors: how many vectors the sampled matrices have.
        changed: how many of those differ.
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
    slab: int
    whole: bool
    vectors: int
    changed: int
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

    @cached_property
    def halves(self) -> tuple["Sample", "Sample"]:
        """The vectors that an operator is fitted to, and those that it is judged on: every second one that differs."""
        numbers = np.flatnonzero(self.differing)
        halves = np.zeros((2, self.a.shape[1]), np.bool_)
        halves[0, numbers[::2]] = True
        halves[1, numbers[1::2]] = True
        return self.of_vectors(halves[0]), self.of_vectors(halves[1])

    @cached_property
    def differing(self) -> NDArray[np.bool_]:
        """Which vectors differ, (m,)."""
        return np.asarray((self.a != self.b).any(0))

    def of_vectors(self, which: NDArray[np.bool_]) -> "Sample":
        """Some of the vectors; whole lengths and counts are still those of all."""
        first = int(np.count_nonzero(which[: self.first]))
        return replace(self, a=self.a[:, which], b=self.b[:, which], unit=self.unit[:, which], first=first)

    def scaled(self, gains: Values) -> "Sample":
        """The vectors behind a norm: each entry times a gain."""
        column = gains[:, None]
        return replace(self, a=self.a * column, b=self.b * column, unit=self.unit * np.abs(column))


def sample_of(pair: Pair, side: Side, least: int = RUN) -> Sample | None:
    """A sample of a parameter's vectors; None where none of them is among what differs.

    One pass over the parameter, and one more where few of its columns differ. Of vectors that are columns, runs are
    taken at even distances; of rows, those that differ, from every block in which some do, and a few that do not.

    Args:
        pair: the parameter, after `compare`.
        side: where the stream's vectors lie.
        least: the fewest vectors that are taken, if there are so many; in whole runs.
    """
    length, others = pair.length(side), pair.others(side)
    wanted = max(RUN, -(-least // RUN) * RUN, NUMBERS // max(1, length) // RUN * RUN)
    touched = sorted({slab for slab, _ in pair.touched})
    if not touched:
        return None
    slabs = [touched[int(n)] for n in np.linspace(0, len(touched) - 1, min(len(touched), _MATRICES))]
    per_slab = max(32, wanted // len(slabs))
    taken = [_of_slab(pair, side, slab, per_slab) for slab in slabs]
    parts = [each.vectors for each in taken if each.vectors is not None]
    if not parts:
        return None
    a, b, unit = (np.concatenate([part[number] for part in parts], axis=1) for number in range(3))
    first = next(number for number, each in enumerate(taken) if each.vectors is not None)
    return Sample(
        name=pair.name,
        side=side,
        a=a,
        b=b,
        unit=unit,
        lengths_a=np.sqrt(taken[first].squares[0]),
        lengths_b=np.sqrt(taken[first].squares[1]),
        peaks=taken[first].squares[2],
        first=parts[0][0].shape[1],
        slab=slabs[first],
        whole=a.shape[1] == others * pair.slabs,
        vectors=others * len(slabs),
        changed=sum(each.changed for each in taken),
        coded=isinstance(pair.b, Coded) and not isinstance(pair.a, Coded),
    )


_Three = tuple[Values, Values, Values]


@dataclass(frozen=True, eq=False)
class _Taken:
    """Vectors of one matrix before, after, and their units; None where none differs. See `Sample` for the rest."""

    vectors: _Three | None
    squares: _Three
    changed: int


def _of_slab(pair: Pair, side: Side, slab: int, wanted: int) -> _Taken:
    others = pair.others(side)
    if side == "rows":
        return _rows_of_slab(pair, slab, wanted)
    taken, differing = _columns_of_slab(pair, slab, _runs(others, wanted), wanted)
    least = min(len(differing), wanted)
    found = 0 if taken.vectors is None else np.count_nonzero((taken.vectors[0] != taken.vectors[1]).any(0))
    if found < min(least, _ENOUGH):
        # Few differ, and not where the runs lie: those are taken instead.
        return _columns_of_slab(pair, slab, _some(differing, wanted), wanted)[0]
    return taken


def _columns_of_slab(pair: Pair, slab: int, columns: NDArray[np.intp], wanted: int) -> tuple[_Taken, NDArray[np.intp]]:
    """Vectors that are columns, and the numbers of all that differ."""
    squares = np.zeros(pair.a.rows), np.zeros(pair.a.rows), np.zeros(pair.a.rows)
    differs = np.zeros(pair.a.cols, np.bool_)
    found: list[_Three] = []
    for block, strip in pair.blocks_with_bytes(slab):
        _add_lengths(squares, block, "columns")
        found.append((block.a[:, columns], block.b[:, columns], units(pair, block, strip)[:, columns]))
        if (slab, block.first) in pair.touched:
            differs |= (block.a != block.b).any(0)
    a, b, unit = (np.concatenate([part[number] for part in found])[:, :wanted] for number in range(3))
    numbers = np.flatnonzero(differs)
    return _Taken(None if np.array_equal(a, b) else (a, b, unit), squares, len(numbers)), numbers


def _rows_of_slab(pair: Pair, slab: int, wanted: int) -> _Taken:
    """Vectors that are rows: of those that differ, some of each block."""
    squares = np.zeros(pair.a.cols), np.zeros(pair.a.cols), np.zeros(0)
    quota = -(-wanted // max(1, sum(1 for where, _ in pair.touched if where == slab)))
    found: list[_Three] = []
    changed = 0
    for block, strip in pair.blocks_with_bytes(slab):
        _add_lengths(squares, block, "rows")
        if (slab, block.first) not in pair.touched:
            continue
        differing = np.flatnonzero((block.a != block.b).any(1))
        changed += len(differing)
        stayed = np.flatnonzero((block.a == block.b).all(1) & block.a.any(1))
        rows = np.sort(np.concatenate([_some(differing, quota), _some(stayed, max(2, quota // _STAYED))]))
        if len(differing):
            found.append((block.a[rows].T, block.b[rows].T, units(pair, block, strip)[rows].T))
    if not found:
        return _Taken(None, squares, changed)
    a, b, unit = (np.concatenate([part[number] for part in found], axis=1) for number in range(3))
    return _Taken((a, b, unit), squares, changed)


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
    floating = binade(block.b) * 2.0**-pair.bits
    for storage in (pair.a, pair.b):
        floating = np.maximum(floating, _SMALLEST.get(storage.parts[storage.name][0], 0.0))
    if strip is None or not isinstance(pair.b, Coded):
        return floating
    gap = pair.b.neighbours(block.b.copy(), 0, strip).gap
    return np.asarray(np.abs(gap), np.float64)
