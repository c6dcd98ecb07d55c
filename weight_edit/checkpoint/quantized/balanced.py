"""Rounding that preserves an edit: up or down, so that little is left along the directions.

An edit of one direction in thousands changes each number by less than half a step of 4 or 8 bits, so that the nearest
code is often the one that was there: rounded to nearest, an edit can be undone by being stored. Here the errors of a
vector are balanced instead. Entry by entry, the sum of what rounding has added to it along each direction is kept, and
a number goes from the nearer to the other neighbour on its grid where that makes

    error^2 + weight * |sum|^2

smaller. The entries with the most of the directions come first, so that the last ones, which have the least, settle
what is left: in any other order several times as much is left where norms behind writers make directions uneven. From
the beginning, the sum has a part of what the entries to come would add (see `AHEAD`).

Vectors that two neighbours cannot settle get a third one (see `unsettled`), and if numbers beyond the ends of their
grids are why even these cannot, the grids are widened for them. Within its grid no number is off by more than one and a
half steps.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded, Neighbours
from weight_edit.checkpoint.quantized.unsettled import Candidates, add_outer, along, unsettled
from weight_edit.checkpoint.tensor.edited import EditedStrip, EditedTensor, Rounding
from weight_edit.checkpoint.tensor.mapping import SlabMap
from weight_edit.checkpoint.tensor.scratch import Memory, fresh, scratch
from weight_edit.checkpoint.tensor.storage import TILE, ByteReader, Bytes, Strip
from weight_edit.utils.fixed_sums import column_squares, dot, row_squares

WEIGHT = 16.0
"""The price of a square of the sums, in squares of errors, for directions spread evenly over the entries."""

AHEAD = 0.5
"""The share of what rounding to nearest adds to the sums that is in them from the beginning; the rest comes by entry.

With all of it, steps gather on the heaviest entries: the fewest there can be, but in the same entries of all vectors,
which adds up in a model's outputs. With none they are spread, and a third more of them are needed. On SmolLM2 in Q4_1
(llama.cpp, from the edit that is not rounded) the divergence is .080 with all, .076 with none, and .071 with half.
"""

_TOGETHER = 1 << 21
"""Numbers decided together: entries go one by one, and each takes some calls, whatever their number."""


@dataclass(frozen=True, eq=False)
class BalancedTensor(EditedTensor):
    """An edited tensor whose rounding errors are balanced along the edit's directions.

    Where the target is of codes and there is a map; else rounding is to nearest.
    """

    def blocks(
        self, part: str, read: ByteReader, rounding: Rounding | None = None, memory: Memory = fresh
    ) -> Iterator[Bytes]:
        """See `EditedTensor`. Scales do not depend on the choice of codes, but in formats that can be widened."""
        widens = isinstance(self.target, Coded) and self.target.widens
        if part != self.target.name and rounding is None and not widens:
            plain = EditedTensor(
                source=self.source,
                target=self.target,
                map=self.map,
                along_rows=self.along_rows,
                gains=self.gains,
                keep_norms=self.keep_norms,
            )
            return plain.blocks(part, read, None, memory)
        return super().blocks(part, read, rounding, memory)

    def strips(self, read: ByteReader, memory: Memory = fresh) -> Iterator[EditedStrip]:
        """See `EditedTensor`."""
        if self.map is None or not isinstance(self.target, Coded):
            yield from super().strips(read, memory)
            return
        of_slab = self._by_columns if self.along_rows else self._by_rows
        for slab in range(self.source.slabs):
            yield from of_slab(self.target, self.map.right, read, slab, memory)

    def _by_rows(
        self, target: Coded, right: NDArray[np.float64], read: ByteReader, slab: int, memory: Memory
    ) -> Iterator[EditedStrip]:
        """The strips of one slab whose vectors are rows: each strip has whole ones."""
        peak = self._peak(read, slab, memory) if target.one_scale else 0.0
        for strip in self._mapped(read, slab, memory, numbers=_TOGETHER):

            def tiles(strip: EditedStrip = strip) -> Iterator[_Tile]:
                for first, values in strip.tiles:
                    yield _Tile(slice(first, first + values.shape[1]), values, first, strip.stored)

            anew = _decide(target, right, tiles, strip.last - strip.first, peak=peak, turned=True)
            strip.rescaled = self._counted(anew, strip)
            yield strip

    def _by_columns(
        self, target: Coded, right: NDArray[np.float64], read: ByteReader, slab: int, memory: Memory
    ) -> Iterator[EditedStrip]:
        """The strips of one slab whose vectors are columns: all of its rows are decided before the first is given."""
        change = SlabMap(self, read, slab)
        stored, rescaled = self._decided(target, right, change, read, slab=slab, memory=memory)
        for strip in self._mapped(read, slab, memory, change):
            strip.rescaled = rescaled if strip.first == 0 else 0
            for part, raw in target.rows_of(stored, strip.first, strip.last).items():
                np.copyto(strip.stored[part], raw)
            yield strip

    def _decided(
        self,
        target: Coded,
        right: NDArray[np.float64],
        change: SlabMap,
        read: ByteReader,
        *,
        slab: int,
        memory: Memory,
    ) -> tuple[Strip, int]:
        """The bytes of one slab, and how many of its blocks have new scales.

        It is held in its stored form, and decided some columns at a time.
        """
        rescaled = 0
        source, rows = self.source, self.source.rows
        before = source.load(read, slab, 0, rows)
        stored = self._unwritten(before, rows, fresh)
        # Scales of whole rows need these as a whole.
        by_rows = target.one_scale or target.col_step >= target.cols > 1
        if by_rows:
            peak = self._peak(read, slab, memory) if target.one_scale else 0.0
            for strip in self._mapped(read, slab, memory, change):
                for first, values in strip.tiles:
                    rescaled += target.fit(values, first, target.rows_of(stored, strip.first, strip.last), peak)
        for first, last in _panels(source.cols, rows, target.packed if by_rows else target.col_step):

            def tiles(first: int = first, last: int = last) -> Iterator[_Tile]:
                for top, end in source.strips(numbers=TILE * source.cols // (last - first)):
                    values = source.decode(source.rows_of(before, top, end), end - top, first, last, scratch)
                    change.apply(values, (top, end), (first, last))
                    yield _Tile(slice(top, end), values, first, target.rows_of(stored, top, end))

            rescaled += _decide(target, right, tiles, last - first, peak=None if by_rows else 0.0)
        return stored, rescaled


def _panels(cols: int, rows: int, step: int) -> Iterator[tuple[int, int]]:
    """(first column, column after the last) of the columns that are decided together."""
    width = max(1, _TOGETHER // max(1, rows) // step) * step
    for first in range(0, cols, width):
        yield first, min(first + width, cols)


@dataclass(frozen=True, eq=False)
class _Tile:
    """Some entries of vectors that are decided together.

    Attributes:
        entries: which.
        values: the wanted numbers as they lie in the tensor.
        first: their first column there.
        strip: where they are stored.
    """

    entries: slice
    values: NDArray[np.float64]
    first: int
    strip: Strip


def _decide(
    target: Coded,
    right: NDArray[np.float64],
    tiles: Callable[[], Iterator[_Tile]],
    vectors: int,
    *,
    peak: float | None,
    turned: bool = False,
) -> int:
    """Choose the codes of vectors and store them; returns the number of blocks whose scales are new.

    Args:
        right: the directions, (entries, k).
        tiles: all entries of the vectors, given again at each call.
        vectors: how many there are.
        peak: as for `Coded.fit`; None where the scales fit already.
        turned: whether the vectors are rows.
    """
    found = _Undecided.of(right.shape[0], vectors)
    rescaled, places = 0, []
    for tile in tiles():
        if peak is not None:
            rescaled += target.fit(tile.values, tile.first, tile.strip, peak)
        found.put(tile.entries, target.neighbours(tile.values, tile.first, tile.strip), turned)
        places.append((tile.entries, tile.first, tile.strip))
    high, thirds, left = _settled(target, right, tiles, found, turned)
    if target.widens and left.any():
        widened = 0
        for tile in tiles():
            more = target.widen(tile.values, tile.first, tile.strip, left[:, None] if turned else left[None])
            if more:
                found.put(tile.entries, target.neighbours(tile.values, tile.first, tile.strip), turned)
            widened += more
        if widened:
            high, thirds, left = _settled(target, right, tiles, found, turned)
            rescaled += widened
    for entries, first, strip in places:
        codes = found.codes(entries, high)
        if thirds is not None:
            codes[:, thirds.vectors] = thirds.codes[entries]
        target.put_codes(np.ascontiguousarray(codes.T) if turned else codes, first, strip)
    return rescaled


@dataclass(frozen=True, eq=False)
class _Thirds:
    """The codes of the vectors that a third neighbour settles, (entries, vectors), and a mask of these."""

    vectors: NDArray[np.bool_]
    codes: NDArray[np.uint8]


# Of numbers near a format's largest the squares are too large for float32: such a step is not taken.
@np.errstate(over="ignore", invalid="ignore")
def _settled(
    target: Coded, right: NDArray[np.float64], tiles: Callable[[], Iterator[_Tile]], found: "_Undecided", turned: bool
) -> tuple[NDArray[np.bool_], _Thirds | None, NDArray[np.bool_]]:
    """The choice among two neighbours, that among three where these do not settle a vector, and what is left."""
    high, sums = found.decided(right)
    left = unsettled(right, found.gap, sums)
    if not left.any():
        return high, None, left
    three = Candidates.room(right.shape[0], int(np.count_nonzero(left)))
    for tile in tiles():
        three.put(tile.entries, Candidates.of(target, tile.values, tile.first, tile.strip), left, turned)
    codes, again = three.decided(right, WEIGHT * right.shape[0] / dot(right, right))
    still = left.copy()
    still[left] = unsettled(right, found.gap[:, left], again)
    return high, _Thirds(left, codes), still


@dataclass(frozen=True, eq=False)
class _Undecided:
    """The neighbours of many vectors' numbers: an entry of all of them is a row, (entries, vectors).

    Attributes:
        low: uint8, the lower one's code.
        differs: uint8, in which bits the higher one's differs.
        error, gap: float32, see `Neighbours`.
    """

    low: NDArray[np.uint8]
    differs: NDArray[np.uint8]
    error: NDArray[np.float32]
    gap: NDArray[np.float32]

    @classmethod
    def of(cls, entries: int, vectors: int) -> "_Undecided":
        """Room for so many, in memory that the next one uses again."""
        low, differs = (scratch(f"undecided {n}", entries * vectors, np.uint8) for n in range(2))
        error, gap = (scratch(f"undecided {n}", entries * vectors, np.float32) for n in range(2, 4))
        return cls(*(each.reshape(entries, vectors) for each in (low, differs, error, gap)))

    def put(self, entries: slice, found: Neighbours, turned: bool = False) -> None:
        """Take in some entries of all vectors; `turned`, where these are rows."""
        for into, given in (
            (self.low, found.low),
            (self.differs, found.low ^ found.high),
            (self.error, found.error),
            (self.gap, found.gap),
        ):
            np.copyto(into[entries], given.T if turned else given)

    def codes(self, entries: slice, high: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """The codes of some entries: of the higher neighbours where a mask of all says so."""
        codes = self.differs[entries] * high[entries]
        codes ^= self.low[entries]
        return codes

    def decided(self, right: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """A mask of the numbers that go to their higher neighbour, and each vector's |sum|^2 at the end.

        Args:
            right: the directions, (entries, k).
        """
        sizes = row_squares(right)
        weight = WEIGHT * right.shape[0] / dot(right, right) if sizes.any() else 0.0
        high = np.greater(self.error * -2, self.gap)
        rows, sums = right.astype(np.float32), np.zeros((right.shape[1], self.low.shape[1]), np.float32)
        if not weight:
            return high, np.zeros(self.low.shape[1], np.float32)
        near, step, slope = np.empty((3, self.low.shape[1]), np.float32)
        change = np.empty(self.low.shape[1], np.bool_)
        # All sums are made number by number, and none by a product of matrices, which other processors make in another
        # order: one decision that falls otherwise changes all that follow, and whoever verifies would find other codes.
        for entry, own in enumerate(rows):
            np.multiply(self.gap[entry], high[entry], out=near)
            near += self.error[entry]
            add_outer(sums, np.float32(AHEAD) * own, near)
        for entry in np.argsort(-sizes, kind="stable"):
            own, mask = rows[entry], high[entry]
            # From the nearer neighbour to the other one.
            np.multiply(self.gap[entry], mask, out=near)
            np.subtract(self.gap[entry], 2 * near, out=step)
            near += self.error[entry]
            add_outer(sums, np.float32(1 - AHEAD) * own, near)
            # What the step changes of the cost, over the step.
            np.multiply(step, np.float32(1 + weight * sizes[entry]), out=slope)
            slope += 2 * near
            slope += along(sums, np.float32(2 * weight) * own)
            slope *= step
            np.less(slope, 0, out=change)
            np.logical_xor(mask, change, out=mask)
            step *= change
            add_outer(sums, own, step)
        return high, column_squares(sums)
