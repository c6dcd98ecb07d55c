"""The difference of one parameter: its size, numerical rank above rounding, and directions.

`D = B - A`. Its largest singular values and vectors come from a randomised range finder with one power iteration
(Halko, Martinsson, Tropp 2011, algorithm 4.4), block by block, so that no tensor is ever whole in memory.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.difference.pairs import Pair, RowBlock, Side, Values

LIMIT = 16
"""The largest rank reported as such; above it, a difference counts as full-rank."""

_SKETCH = LIMIT + 8
NEGLIGIBLE = 0.01
"""The share of the largest singular value below which others are not counted."""

SHADOW = 0.5
"""A further such share, multiplied by the share of rounding in the whole difference.

Rounding is not independent of what is rounded (it swallows what is less than half a unit), and leaves shadows of the
largest values.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class ParameterChange:
    """The change D = B - A between two versions of a parameter.

    Attributes:
        entries: how many numbers differ.
        square: |D|^2.
        noise: the part of `square` that is rounding, as far as the storage format explains it.
        finite: whether both sides are finite; if not, nothing else is meant.
        values: the largest singular values of D, of all slabs side by side, in order.
        edge: what rounding alone could make of a singular value.
        vectors: unit vectors in the order of `values`, by the side on which they lie, shape (length, LIMIT at most):
            what the stream would have written into it (or read from it) along.
        size: how many singular values D has.
    """

    entries: int
    square: float
    noise: float
    finite: bool
    values: NDArray[np.float64]
    edge: float
    vectors: dict[Side, NDArray[np.float32]]
    size: int

    @property
    def rank(self) -> int | None:
        """The number of singular values above the noise; None if all that were computed are."""
        largest = float(self.values.max(initial=0.0))
        coarseness = min(1.0, self.noise / self.square) ** 0.5 if self.square else 0.0
        floor = max(self.edge, max(NEGLIGIBLE, SHADOW * coarseness) * largest)
        found = int(np.count_nonzero(self.values > floor))
        return None if found > LIMIT or (found == self.size and self.size > 1) else found


def change_of(pair: Pair, width: int | None) -> ParameterChange | None:
    """The change between two versions of a parameter; None if they are equal byte for byte.

    Args:
        width: of the residual stream; None where it is not known.
    """
    sides = pair.sides(width) or ["rows"]
    side = sides[0]
    length, others = pair.length(side), pair.others(side)
    count = min(_SKETCH, length, others * pair.slabs)
    first = _First(pair, side, count)
    with np.errstate(invalid="ignore", over="ignore"):
        for block in pair.compare():
            first.add(block)
        if not pair.touched:
            return None
        if not first.finite:
            return ParameterChange(
                entries=first.entries,
                square=float("nan"),
                noise=0.0,
                finite=False,
                values=np.zeros(0),
                edge=0.0,
                vectors={},
                size=0,
            )
    range_ = np.linalg.qr(first.sketch)[0]
    range_ = np.linalg.qr(_power(pair, side, range_))[0]
    gram, right = _inside(pair, side, range_, want_right=len(sides) > 1)
    squares, basis = np.linalg.eigh(gram)
    squares, basis = np.maximum(squares[::-1], 0.0), basis[:, ::-1]
    values = np.sqrt(squares)
    vectors: dict[Side, NDArray[np.float32]] = {}
    if width is not None and length == width:
        vectors[side] = (range_ @ basis[:, :LIMIT]).astype(np.float32)
    if right is not None:
        turned = right.T @ basis[:, :LIMIT]
        vectors[sides[1]] = (turned / np.maximum(values[:LIMIT], 1e-30)).astype(np.float32)
    size = min(length, others * pair.slabs)
    return ParameterChange(
        entries=first.entries,
        square=first.square,
        noise=first.noise,
        finite=True,
        values=values,
        edge=first.edge(),
        vectors=vectors,
        size=size,
    )


class _First:
    """The first pass over a parameter: sizes, rounding noise, and a sketch of the range of D."""

    def __init__(self, pair: Pair, side: Side, count: int) -> None:
        self._pair, self._side = pair, side
        self._count = count
        self.entries, self.square, self.noise, self.finite = 0, 0.0, 0.0, True
        self.sketch = np.zeros((pair.length(side), count))
        self._rows = np.zeros(pair.a.rows)
        self._columns = np.zeros(pair.a.cols)
        self._largest = {"rows": 0.0, "columns": 0.0}
        self._slab = -1
        self._mixing = np.zeros((0, 0), np.float32)

    def add(self, block: RowBlock) -> None:
        change = block.change
        off = change != 0
        self.entries += int(np.count_nonzero(off))
        self.square += _square(change)
        if not np.isfinite(self.square):
            self.finite = False
            return
        self._add_noise(block, off)
        if block.slab != self._slab:
            self._slab = block.slab
            self._mixing = (
                _random(block.slab, change.shape[1], self._count) if self._side == "columns" else self._mixing
            )
        if self._side == "columns":
            self.sketch[block.first : block.last] += change @ self._mixing
        else:
            self.sketch += change.T @ _random(block.slab * 1_000_003 + block.first, len(change), self._count)

    def _add_noise(self, block: RowBlock, off: NDArray[np.bool_]) -> None:
        if block.slab != self._slab:
            self._close()
        # The exponent's bits alone are the power of two at or below a number.
        power = (block.b.astype(np.float32).view(np.uint32) & np.uint32(0x7F800000)).view(np.float32)
        unit = power * np.float32(2.0**-self._pair.bits)
        squares = np.where(off, unit.astype(np.float64) ** 2 / 12, 0.0)
        self._rows[block.first : block.last] += squares.sum(1)
        self._columns += squares.sum(0)
        self.noise += float(squares.sum())

    def _close(self) -> None:
        """End a matrix: restart the sums that do not run on over the concatenation of matrices."""
        for name, sums in (("rows", self._rows), ("columns", self._columns)):
            self._largest[name] = max(self._largest[name], float(sums.max(initial=0.0)))
        # Matrices lie side by side: what runs along the stream's axis goes on, the rest begins anew.
        (self._columns if self._side == "columns" else self._rows)[:] = 0.0

    def edge(self) -> float:
        """A bound on the singular values of independent rounding errors, with 10% to spare.

        For independent entries the norm is about the largest norm of a row plus that of a column.
        """
        self._close()
        return 1.1 * (self._largest["rows"] ** 0.5 + self._largest["columns"] ** 0.5)


def _square(change: NDArray[np.float32]) -> float:
    wide = change.astype(np.float64).reshape(-1)
    return float(wide @ wide)


def _random(seed: int, rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng([7, seed]).standard_normal((rows, columns), dtype=np.float32)


def _power(pair: Pair, side: Side, range_: Values) -> Values:
    """`D D^T Q`, shape (length, count)."""
    q = range_.astype(np.float32)
    result = np.zeros(range_.shape)
    for slab in range(pair.slabs):
        if side == "rows":
            for block in pair.changed(slab):
                result += block.change.T @ (block.change @ q)
            continue
        inside = _columns_inside(pair, slab, q)
        for block in pair.changed(slab):
            result[block.first : block.last] += block.change @ inside.T
    return result


def _columns_inside(pair: Pair, slab: int, q: NDArray[np.float32]) -> NDArray[np.float32]:
    """`Q^T D` of one matrix whose columns are the vectors."""
    inside = np.zeros((q.shape[1], pair.a.cols), np.float32)
    for block in pair.changed(slab):
        inside += q[block.first : block.last].T @ block.change
    return inside


def _inside(pair: Pair, side: Side, range_: Values, want_right: bool) -> tuple[Values, Values | None]:
    """`Q^T D D^T Q`; and `Q^T D` itself if wanted, for one matrix only."""
    q = range_.astype(np.float32)
    gram = np.zeros((q.shape[1], q.shape[1]))
    right = None
    for slab in range(pair.slabs):
        if side == "rows":
            for block in pair.changed(slab):
                inside = (block.change @ q).astype(np.float64)
                gram += inside.T @ inside
            continue
        columns = _columns_inside(pair, slab, q).astype(np.float64)
        gram += columns @ columns.T
        if want_right and pair.slabs == 1:
            right = columns
    return gram, right
