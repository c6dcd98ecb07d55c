"""Rounding that preserves an edit: up or down, so that little is left along the directions.

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

from weight_edit.checkpoint.quantized.coded import Coded
from weight_edit.checkpoint.tensor.edited import EditedStrip, EditedTensor, Rounding
from weight_edit.checkpoint.tensor.scratch import Memory, fresh
from weight_edit.checkpoint.tensor.storage import ByteReader, Bytes


@dataclass(frozen=True, eq=False)
class BalancedTensor(EditedTensor):
    """An edited tensor whose rounding errors are balanced along the edit's directions.

    They are where the vectors that the map is for are columns, as those of all quantised writers are, and the target is
    of codes; else rounding is to nearest.
    """

    def blocks(
        self, part: str, read: ByteReader, rounding: Rounding | None = None, memory: Memory = fresh
    ) -> Iterator[Bytes]:
        """See `EditedTensor`. The scales are those of rounding to nearest."""
        if part != self.target.name and rounding is None:
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
    """Choose between the two neighbours of each number of a strip that was rounded to nearest.

    Args:
        sums: what rounding has added along the directions so far, (k, columns); this strip's is added.
    """
    size = float(np.vdot(right, right))
    weight = right.shape[0] / size if size else 0.0
    rows, format_ = right[strip.first : strip.last], target.format
    neighbours = np.concatenate([format_.below, format_.above])
    for first, values in strip.tiles:
        count, last = values.shape[0], first + values.shape[1]
        codes = target.codes(strip.stored, count, first, last)
        scales = target.scales(strip.stored, count, first, last)
        error = format_.decode(codes)
        # By tables and bits: a choice by condition is several times as slow where the condition is random.
        which = codes.astype(np.intp)
        which += (error * scales < values).astype(np.intp) << format_.bits
        other = neighbours[which]
        step = format_.decode(other)
        step -= error
        step *= scales
        error *= scales
        error -= values
        chosen = _choose(error, step, rows, sums[:, first:last], weight)
        other ^= codes
        other *= chosen
        other ^= codes
        target.put_codes(other, first, strip.stored)


def _choose(
    error: NDArray[np.float64],
    step: NDArray[np.float64],
    rows: NDArray[np.float64],
    sums: NDArray[np.float64],
    weight: float,
) -> NDArray[np.bool_]:
    """A mask of the numbers rounded to the other neighbour, with the error `error + step`.

    Rows are decided one after the other, because each depends on the sums so far.
    """
    chosen = np.empty(error.shape, np.bool_)
    # The change of what is to be lowered is the step times this and what the sums add.
    slopes = 2 * error + step
    slopes *= 1 + weight * np.einsum("ij,ij->i", rows, rows)[:, None]
    added = np.empty(error.shape[1])
    for row, direction in enumerate(rows):
        slope = slopes[row]
        slope += np.dot(2 * weight * direction, sums)
        slope *= step[row]
        np.less(slope, 0, out=chosen[row])
        np.multiply(step[row], chosen[row], out=added)
        added += error[row]
        sums += direction[:, None] * added
    return chosen
