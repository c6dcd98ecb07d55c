"""Vectors whose sums two neighbours cannot settle: a third candidate for each number, on the other side of its nearest.

The numbers of the source lie on their grid. Where an edit changes them by little, the two neighbours of a wanted number
are the old one and the next beyond it: the errors of all old ones along a direction have one sign, that of what the
edit takes away, and together they are no more than that. Where one entry has most of a direction and its own error has
the other sign, all others cannot make up for it, unless they may go one step to the other side as well.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.storage import Strip
from weight_edit.utils.fixed_sums import column_squares, row_squares

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]

_PROBE = 1e-3
"""How far beside a number of the grid, in gaps, its neighbour on that side is asked for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidates:
    """The nearest numbers of the grid and those on both sides of them; all arrays (entries, vectors).

    Attributes:
        nearest, lower, higher: uint8, their codes.
        error: float32, the nearest number less the wanted one.
        down, up: float32, the lower and the higher number less the nearest one; 0 where there is none.
    """

    nearest: Codes
    lower: Codes
    higher: Codes
    error: Floats
    down: Floats
    up: Floats

    @classmethod
    def room(cls, entries: int, vectors: int) -> "Candidates":
        """Room for so many."""
        nearest, lower, higher = np.empty((3, entries, vectors), np.uint8)
        error, down, up = np.empty((3, entries, vectors), np.float32)
        return cls(nearest=nearest, lower=lower, higher=higher, error=error, down=down, up=up)

    @classmethod
    def of(cls, target: Coded, values: NDArray[np.float64], first: int, strip: Strip) -> "Candidates":
        """The candidates of a tile's numbers as they lie there; see `Coded.neighbours`."""
        found = target.neighbours(values, first, strip)
        is_high = found.error * -2 > found.gap
        error = found.error + found.gap * is_high
        # The other neighbour is on one side; the third is found by a number a little to the other side.
        side = np.where(is_high, np.float32(1), np.float32(-1))
        beside = error + side * found.gap * np.float32(_PROBE)
        third = target.neighbours(values + beside, first, strip)
        above = third.error + third.gap + beside - error
        below = third.error + beside - error
        codes = found.nearest()
        return cls(
            nearest=codes,
            lower=np.where(is_high, found.low, third.low),
            higher=np.where(is_high, third.high, found.high),
            error=error,
            down=np.minimum(np.where(is_high, -found.gap, below), 0),
            up=np.maximum(np.where(is_high, above, found.gap), 0),
        )

    def put(self, entries: slice, tile: "Candidates", vectors: NDArray[np.bool_], turned: bool) -> None:
        """Take in some entries of some vectors of a tile, whose rows these are where `turned`."""
        for name in ("nearest", "lower", "higher", "error", "down", "up"):
            given = getattr(tile, name)
            getattr(self, name)[entries] = (given.T if turned else given)[:, vectors]

    def decided(self, right: NDArray[np.float64], weight: float) -> tuple[Codes, Floats]:
        """The codes that balance each vector's errors along the directions, and its |sum|^2 at the end.

        Args:
            right: the directions, (entries, k).
            weight: the price of a square of the sums.
        """
        sizes = row_squares(right)
        rows = right.astype(np.float32)
        codes = self.nearest.copy()
        sums = np.zeros((right.shape[1], codes.shape[1]), np.float32)
        for own, error in zip(rows, self.error, strict=True):
            add_outer(sums, own, error)
        for entry in np.argsort(-sizes, kind="stable"):
            error, own = self.error[entry], rows[entry]
            factor = np.float32(1 + weight * sizes[entry])
            pull = 2 * error + along(sums, np.float32(2 * weight) * own)
            step = np.zeros_like(error)
            best = np.zeros_like(error)
            for moved, code in ((self.down[entry], self.lower[entry]), (self.up[entry], self.higher[entry])):
                cost = (factor * moved + pull) * moved
                better = cost < best
                np.copyto(step, moved, where=better)
                np.copyto(best, cost, where=better)
                np.copyto(codes[entry], code, where=better)
            add_outer(sums, own, step)
        return codes, column_squares(sums)


def unsettled(right: NDArray[np.float64], gap: Floats, sums: Floats) -> NDArray[np.bool_]:
    """A mask of the vectors whose sums are more than what steps are along the directions on average.

    Args:
        right: the directions, (entries, k).
        gap: of the neighbours, (entries, vectors).
        sums: the square of each vector's sum at the end.
    """
    lengths = np.sqrt(row_squares(right)).astype(np.float32)
    steps = np.zeros(gap.shape[1], np.float32)
    for length, gaps in zip(lengths, gap, strict=True):
        steps += length * gaps
    return np.sqrt(sums) * len(right) > steps


def add_outer(sums: Floats, own: Floats, numbers: Floats) -> None:
    """Add numbers, one for each vector, times an entry's part of each direction to sums, (k, vectors)."""
    for each, part in zip(sums, own, strict=True):
        each += part * numbers


def along(sums: Floats, own: Floats) -> Floats:
    """Sums, (k, vectors), along an entry's part of the directions; added up in the order of these."""
    found = own[0] * sums[0] if own.size else np.zeros(sums.shape[1], np.float32)
    for part, each in zip(own[1:], sums[1:], strict=True):
        found += part * each
    return found
