"""An edited tensor on disk against the formula, applied again to the base's; and what is left along the directions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.along import Along
from weight_edit.checkpoint.edited import Edited, EditedStrip, Stream
from weight_edit.checkpoint.nonfinite import count_non_finite
from weight_edit.checkpoint.numbers import STORED
from weight_edit.checkpoint.scratch import scratch
from weight_edit.checkpoint.storage import Read, Storage, Strip

ARITHMETIC = 2.0**-46
"""What float64 sums may leave beside the largest number near by: other processors add up in another order. It matters
only where the edit leaves next to nothing of a number."""

_UNITS: Mapping[str, tuple[int, int]] = {"BF16": (7, -133), "F16": (10, -24), "F32": (23, -149), "F64": (52, -1074)}
"""Bits after a number's first one, and the exponent of the smallest number above zero."""


@dataclass(frozen=True)
class TensorCheck:
    """One edited tensor, re-read.

    Attributes:
        tensor: its name in the edited checkpoint.
        entries: how many numbers it has.
        inexact: those that are not the formula's bit for bit, but no further from it than one unit in the last place
            (in a quantised format: as near to the exact result as the formula's).
        different: those that are further.
        non_finite: those that are NaN or infinite.
        left: |R^T (W' - c)| / |R^T W| of the numbers in the file; a tensor that has less along R than along random
            directions is measured against the latter. W is the base's, with the edit's gains. None where only the
            format changed.
        rounding: |stored - exact| / |exact|; None where storing is plain rounding.
    """

    tensor: str
    entries: int
    inexact: int
    different: int
    non_finite: int
    left: float | None
    rounding: float | None

    @property
    def ok(self) -> bool:
        """Whether it is the formula's."""
        return not self.different and not self.non_finite

    @property
    def exact(self) -> bool:
        """Whether it is the formula's bit for bit."""
        return self.ok and not self.inexact


def check_formula(
    edited: Stream, base: Read, given: Read, advance: Callable[[int], None] = lambda n: None
) -> TensorCheck:
    """Compare an edited tensor with the edit applied to the base's, strip by strip.

    Args:
        base, given: read tensors of the base and of the edited side.
        advance: called with the number of bytes that are done.

    Raises:
        UsageError: a file cannot be read, or the edit of the base's tensor is not finite.
    """
    if not isinstance(edited, Edited):
        return _check_blocks(edited, base, given, advance)
    check = _Check(edited)
    with np.errstate(invalid="ignore", over="ignore"):
        for strip in edited.strips(base, scratch):
            there = edited.target.load(given, strip.slab, strip.first, strip.last)
            check.add(strip, there)
            advance(sum(len(part) for part in there.values()))
        check.single_scale(base, given)
        return check.result()


def _check_blocks(edited: Stream, base: Read, given: Read, advance: Callable[[int], None]) -> TensorCheck:
    """Compare a tensor that is written in another order than its strips', byte by byte."""
    name, dtype = edited.target.name, edited.target.parts[edited.target.name][0]
    offset = different = non_finite = 0
    for block in edited.blocks(name, base):
        there = np.empty(block.size, np.uint8)
        given(name, offset, there)
        bad = count_non_finite(there, dtype)
        non_finite += bad
        different += int(np.count_nonzero(there.view(STORED[dtype]) != block.view(STORED[dtype]))) - bad
        offset += block.size
        advance(block.size)
    entries = edited.target.slabs * edited.target.rows * edited.target.cols
    return TensorCheck(name, entries, 0, max(0, different), non_finite, None, None)


class _Check:
    """The figures of one tensor as its strips come."""

    def __init__(self, edited: Edited) -> None:
        self._edited, self._target = edited, edited.target
        self._inexact = self._different = self._non_finite = 0
        self._error = self._wanted = 0.0
        self._before = self._after = None
        self._entries = self._target.slabs * self._target.rows * self._target.cols
        if edited.map is not None and self._entries:
            self._before = Along(edited.source, edited.map.right, edited.along_rows, edited.gains)
            self._after = Along(edited.target, edited.map.right, edited.along_rows, constant=edited.map.constant)

    def add(self, strip: EditedStrip, there: Strip) -> None:
        # A scale that stands for the whole tensor is compared by itself.
        if any(part in there and not np.array_equal(raw, there[part]) for part, raw in strip.stored.items()):
            self._count(strip, there)
        if self._target.lossy:
            for first, values in strip.tiles:
                end = first + values.shape[1]
                gap = self._target.decode(there, strip.last - strip.first, first, end) - values
                self._error += float(np.vdot(gap, gap))
                self._wanted += float(np.vdot(values, values))
        if self._before is not None and self._after is not None:
            # The last use of the strip: its numbers are in memory that is used again here.
            self._before.add(strip.before, strip.first, strip.last)
            self._after.add(there, strip.first, strip.last)

    def _count(self, strip: EditedStrip, there: Strip) -> None:
        rows = strip.last - strip.first
        for first, values in strip.tiles:
            end = first + values.shape[1]
            found = self._target.decode(there, rows, first, end)
            formula = self._target.decode(strip.stored, rows, first, end)
            off = found != formula
            near = _near(self._target, found, formula, values)
            finite = np.isfinite(found)
            self._non_finite += int(finite.size - np.count_nonzero(finite))
            self._inexact += int(np.count_nonzero(off & near))
            self._different += int(np.count_nonzero(off & ~near & finite))
        same_numbers = not self._inexact and not self._different and not self._non_finite
        if same_numbers:
            # Zeros of either sign, or scales and codes that say the same in other bits.
            self._inexact += 1

    def single_scale(self, base: Read, given: Read) -> None:
        """Compare the one scale of a tensor that has one."""
        if not self._target.one_scale:
            return
        for part, (dtype, _) in self._target.parts.items():
            if part == self._target.name:
                continue
            for block in self._edited.blocks(part, base):
                found = np.empty(len(block), np.uint8)
                given(part, 0, found)
                bad = count_non_finite(found, dtype)
                self._non_finite += bad
                self._different += int(not bad and not np.array_equal(found, block))

    def result(self) -> TensorCheck:
        left = rounding = None
        if self._before is not None and self._after is not None:
            reference = max(self._before.norm, self._before.expected)
            left = self._after.norm / reference if reference else 0.0
        if self._target.lossy:
            rounding = float((self._error / self._wanted) ** 0.5) if self._wanted else 0.0
        return TensorCheck(
            self._target.name, self._entries, self._inexact, self._different, self._non_finite, left, rounding
        )


def _near(
    target: Storage, found: NDArray[np.float64], formula: NDArray[np.float64], exact: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which of some stored numbers are as good as the formula's, entry by entry."""
    slack = ARITHMETIC * float(np.abs(exact).max(initial=0.0))
    dtype = target.parts[target.name][0]
    if target.lossy or dtype not in _UNITS:
        return np.abs(found - exact) <= np.abs(formula - exact) + slack
    bits, smallest = _UNITS[dtype]
    unit = np.ldexp(1.0, np.maximum(np.frexp(formula)[1] - 1 - bits, smallest))
    return np.abs(found - formula) <= unit + slack
