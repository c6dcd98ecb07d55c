"""Rounding that keeps an edit: to one of a number's two neighbours, such that little is left along the directions.

An edit of one direction in thousands changes each number by less than half a step of 4 or 8 bits, so that the nearest
code is often the one that was there: rounded to nearest, an edit can be undone by being stored. Here the errors of a
column are balanced instead. Going down its rows, the sum of what rounding has added along each direction is kept, and
a number goes to its farther neighbour where that lowers

    error^2 + weight * |sum|^2

by more than it costs. No number is off by more than one step, and the sum stays at about the share of a single step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.edited import Edited, EditedStrip, Rounding
from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.scratch import Memory, fresh
from weight_edit.checkpoint.storage import Bytes, Read


@dataclass(frozen=True)
class Balanced(Edited):
    """An edited tensor whose rounding errors are balanced along the edit's directions.

    They are where the vectors that the map is for are columns, as those of all quantised writers are, and the target is
    of codes; else rounding is to nearest.
    """

    def blocks(
        self, part: str, read: Read, rounding: Rounding | None = None, memory: Memory = fresh
    ) -> Iterator[Bytes]:
        """See `Edited`. The scales are those of rounding to nearest."""
        if part != self.target.name and rounding is None:
            return Edited(self.source, self.target, self.map, self.along_rows).blocks(part, read, None, memory)
        return super().blocks(part, read, rounding, memory)

    def strips(self, read: Read, memory: Memory = fresh) -> Iterator[EditedStrip]:
        """See `Edited`."""
        if self.map is None or not self.along_rows or not isinstance(self.target, Coded):
            yield from super().strips(read, memory)
            return
        right = self.map.right
        for strip in super().strips(read, memory):
            if strip.first == 0:
                sums = np.zeros((right.shape[1], self.target.cols))
            _balance(self.target, strip, right, sums)
            yield strip


def _balance(target: Coded, strip: EditedStrip, right: NDArray[np.float64], sums: NDArray[np.float64]) -> None:
    """Choose between the neighbours of each number of a strip that was rounded to nearest.

    Args:
        sums: what rounding has added along the directions so far, (k, columns); this strip's is added.
    """
    size = float(np.vdot(right, right))
    weight = right.shape[0] / size if size else 0.0
    rows = right[strip.first : strip.last]
    for first, values in strip.tiles:
        count, last = values.shape[0], first + values.shape[1]
        codes = target.codes(strip.stored, count, first, last)
        scales = target.scales(strip.stored, count, first, last)
        places = _places(codes, target.format.bits)
        error = _numbers_at(target, places) * scales
        step = -error
        error -= values
        other = _neighbours(target, places, error)
        step += _numbers_at(target, other) * scales
        chosen = _choose(error, step, rows, sums[:, first:last], weight)
        target.put_codes(_codes(np.where(chosen, other, places), target.format.bits), first, strip.stored)


def _choose(
    error: NDArray[np.float64],
    step: NDArray[np.float64],
    rows: NDArray[np.float64],
    sums: NDArray[np.float64],
    weight: float,
) -> NDArray[np.bool_]:
    """Which numbers go to the other neighbour, whose error is `error + step`; row by row, for each needs the sums."""
    chosen = np.empty(error.shape, np.bool_)
    twice = 2 * error + step
    for row, direction in enumerate(rows):
        # The change of what is to be lowered, over the step.
        slope = (2 * weight) * (direction @ sums)
        slope += (1 + weight * float(direction @ direction)) * twice[row]
        np.less(slope * step[row], 0, out=chosen[row])
        sums += direction[:, None] * (error[row] + chosen[row] * step[row])
    return chosen


def _places(codes: NDArray[np.uint8], bits: int) -> NDArray[np.int16]:
    """Where codes' numbers are on the line of all numbers, 0 in the middle; both zeros are there."""
    sign = 1 << (bits - 1)
    magnitude = (codes & (sign - 1)).astype(np.int16)
    return np.where(codes & sign, -magnitude, magnitude)


def _codes(places: NDArray[np.int16], bits: int) -> NDArray[np.uint8]:
    return (np.abs(places) | np.where(places < 0, 1 << (bits - 1), 0)).astype(np.uint8)


def _numbers_at(target: Coded, places: NDArray[np.int16]) -> NDArray[np.float64]:
    line = target.format.line
    return line[places + line.size // 2]


def _neighbours(target: Coded, places: NDArray[np.int16], error: NDArray[np.float64]) -> NDArray[np.int16]:
    """The places on the other side of the wanted numbers; their own where they are exact or beyond the largest."""
    end = target.format.line.size // 2
    toward = np.sign(error).astype(np.int16)
    return np.clip(places - toward, -end, end)
