"""The grids of quantised blocks: even steps, a table of levels, or a small floating format.

Each function gives the two numbers of a grid next to wanted ones. Codes are in the order of a grid's levels, and blocks
may count them downwards, with a negative step.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.quantized.coded import Neighbours
from weight_edit.checkpoint.quantized.minifloat import MiniFloat

Floats = NDArray[np.float32]


def on_steps(values: NDArray[np.float64], offset: Floats | float, step: Floats, last: int) -> Neighbours:
    """The neighbours on a grid of even steps: `offset + step * code`, codes from 0 to `last`.

    In float32: the numbers of such grids are exact in it, and so are their differences.

    Args:
        values: the wanted numbers.
        offset, step: of each number, in shapes that broadcast. Where a step is 0, all codes mean the same.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        place = values.astype(np.float32)
        if not isinstance(offset, float) or offset:
            place -= offset
        flat = _flat(place, step)
        place /= step
    code = np.clip(np.floor(place), 0, last - 1)
    if flat is not None:
        np.copyto(code, 0, where=step == 0)
    low = code.astype(np.uint8)
    high = low + np.uint8(1)
    down = step < 0
    if down.any():
        # The larger code is the smaller number.
        low, high = np.where(down, high, low), np.where(down, low, high)
        code += down
    with np.errstate(invalid="ignore"):
        code -= place
        code *= step
    if flat is not None:
        np.copyto(code, flat, where=step == 0)
    return Neighbours(low, high, code, np.broadcast_to(np.abs(step), low.shape))


def _flat(above: Floats, step: Floats) -> Floats | None:
    """The errors where a step is 0, from what the numbers are above that one number; None where no step is."""
    return -above if not step.all() else None


@dataclass(frozen=True, eq=False)
class Levels:
    """A table of uneven levels.

    Attributes:
        numbers: float32, ascending; two zeros stand for one of each sign.
    """

    numbers: Floats

    @cached_property
    def _bins(self) -> tuple[np.float32, np.float32, NDArray[np.uint8]]:
        """(begin, bins per unit, the code at or below each bin's begin): no bin holds two different levels."""
        gaps = np.diff(self.numbers)
        size = np.float32(gaps[gaps > 0].min() / 2)
        begin = self.numbers[0]
        count = int(np.ceil((self.numbers[-1] - begin) / size)) + 1
        starts = begin + size * np.arange(count)
        codes = np.clip(np.searchsorted(self.numbers, starts, "right") - 1, 0, len(self.numbers) - 2)
        return begin, np.float32(1) / size, codes.astype(np.uint8)

    def below(self, places: Floats) -> NDArray[np.uint8]:
        """The codes of the largest levels not above numbers; of the last but one beyond the end."""
        begin, scale, codes = self._bins
        bins = (places - begin) * scale
        np.clip(bins, 0, len(codes) - 1, out=bins)
        found = codes[bins.astype(np.intp)]
        # The next level may lie within the bin; rounding may have led to the bin beside it.
        last = np.uint8(len(self.numbers) - 2)
        found = np.minimum(found + (places >= self.numbers[found + 1]), last)
        found -= (places < self.numbers[found]) & (found > 0)
        return found

    @cached_property
    def second_zero(self) -> int | None:
        """The code of the positive zero, behind the negative one; None where there is one zero alone."""
        zeros = np.flatnonzero(self.numbers == 0)
        return int(zeros[-1]) if len(zeros) > 1 else None

    @cached_property
    def gaps(self) -> Floats:
        """From each level but the last to the next one."""
        return np.diff(self.numbers)


def on_levels(values: NDArray[np.float64], step: Floats, levels: Levels) -> Neighbours:
    """The neighbours on a grid of uneven levels: `step * levels.numbers[code]`; see `on_steps`."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        place = values.astype(np.float32)
        flat = _flat(place, step)
        place /= step
    if flat is not None:
        np.copyto(place, 0, where=step == 0)
    code = levels.below(place)
    lower = levels.numbers[code]
    gap = levels.gaps[code]
    high = code + np.uint8(1)
    if levels.second_zero is not None:
        code -= (code == levels.second_zero) & (place == 0) & np.signbit(place)
    down = step < 0
    if down.any():
        code, high = np.where(down, high, code), np.where(down, code, high)
        lower += gap * down
    lower -= place
    lower *= step
    gap *= np.abs(step)
    if flat is not None:
        np.copyto(lower, flat, where=step == 0)
    return Neighbours(code, high, lower, gap)


def on_floats(values: NDArray[np.float64], scales: NDArray[np.float64], form: MiniFloat) -> Neighbours:
    """The neighbours among a floating format's numbers times scales; beyond its largest, that alone.

    Args:
        scales: positive, in a shape that broadcasts.
    """
    codes = form.encode(values / scales)
    error = form.decode(codes)
    error *= scales
    error -= values
    # By tables and bits: a choice by condition is several times as slow where the condition is random.
    which = codes.astype(np.intp)
    which += (error < 0).astype(np.intp) << form.bits
    other = form.either[which]
    gap = form.decode(other)
    gap *= scales
    gap -= values
    gap -= error
    below = gap < 0
    low, high = np.where(below, other, codes), np.where(below, codes, other)
    error += np.minimum(gap, 0)
    return Neighbours(low, high, error.astype(np.float32), np.abs(gap).astype(np.float32))
