"""An edited tensor on disk compared with the edit applied again to the base's tensor.

The part left along the directions is measured in the same pass.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from weight_edit.checkpoint.tensor.along import Along
from weight_edit.checkpoint.tensor.edited import EditedStrip, EditedTensor, TensorWriter
from weight_edit.checkpoint.tensor.nonfinite import count_non_finite
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.checkpoint.tensor.scratch import scratch
from weight_edit.checkpoint.tensor.storage import ByteReader, Strip
from weight_edit.utils.fixed_sums import dot

ARITHMETIC = 2.0**-44
"""Tolerance of float64 sums, relative to the largest number near by.

Processors add up in different orders. It matters only where the edit leaves next to nothing of a number, and where a
number lies half-way between two storable ones.
"""

THROUGH_FLOAT32 = 2.0**-23
"""Relative tolerance for rounding to float32 on the way to a two-byte format.

That rounding can move a number to the middle between two storable ones.
"""

BY_CHANCE = 6.0
"""Standard deviations within which a sum of signs counts as chance."""


@dataclass(frozen=True, kw_only=True)
class TensorCheck:
    """The comparison of one edited tensor with the formula.

    Attributes:
        tensor: its name in the edited checkpoint.
        entries: how many numbers it has.
        inexact: those that are not the formula's bit for bit, but as near to the exact result as the formula's, as it
            is where the exact result lies in the middle between two numbers that can be stored.
        different: those that are further from it.
        non_finite: those that are NaN or infinite.
        upwards: how many of the inexact ones are larger than the formula's, less those that are smaller.
        changed: whether the formula makes other bytes of it than the base's.
        left: |R^T (W' - c)| / |R^T W| of the numbers in the file; a tensor that has less along R than along random
            directions is measured against the latter. W is the base's, with the edit's gains. None where only the
            format changed.
        left_exact: the same of the exact result, before it was rounded to what can be stored; the rest of `left` is
            what rounding puts back.
        rounding: |stored - exact| / |exact|; None where storing is plain rounding.
        kept: <stored - base, exact - base> / |exact - base|^2, the share of the edit in the file; None likewise.
        rescaled: blocks of which the formula makes the scale anew; None likewise.
        change: |exact - base| / |base|, Frobenius norms; None where only the format changed, or the base's is 0.
    """

    tensor: str
    entries: int
    inexact: int
    different: int
    non_finite: int
    upwards: int
    changed: bool
    left: float | None
    left_exact: float | None
    rounding: float | None
    kept: float | None = None
    rescaled: int | None = None
    change: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the tensor agrees with the formula."""
        return not self.different and not self.non_finite and not self.one_sided

    @property
    def one_sided(self) -> bool:
        """Whether inexact numbers deviate to one side of the formula's by more than chance."""
        return abs(self.upwards) > BY_CHANCE * math.sqrt(self.inexact)

    @property
    def exact(self) -> bool:
        """Whether the tensor is bit-identical to the formula's."""
        return self.ok and not self.inexact


def check_formula(
    edited: TensorWriter, base: ByteReader, given: ByteReader, advance: Callable[[int], None] = lambda n: None
) -> TensorCheck:
    """Compare an edited tensor with the edit applied to the base's tensor, strip by strip.

    Args:
        base, given: read tensors of the base and of the edited side.
        advance: called with the number of bytes that are done.

    Raises:
        UsageError: a file cannot be read, or the edit of the base's tensor is not finite.
    """
    if not isinstance(edited, EditedTensor):
        return _check_blocks(edited, base, given, advance)
    check = _Check(edited)
    with np.errstate(invalid="ignore", over="ignore"):
        for strip in edited.strips(base, scratch):
            there = edited.target.load(given, strip.slab, strip.first, strip.last)
            check.add(strip, there)
            advance(sum(len(part) for part in there.values()))
        check.single_scale(base, given)
        return check.result()


def _check_blocks(
    edited: TensorWriter, base: ByteReader, given: ByteReader, advance: Callable[[int], None]
) -> TensorCheck:
    """Compare, byte by byte, a tensor whose bytes are not in the order of its strips."""
    name, dtype = edited.target.name, edited.target.parts[edited.target.name][0]
    offset = different = non_finite = 0
    # It is a tensor of another name or layout than the source's.
    changed = True
    for block in edited.blocks(name, base):
        there = np.empty(block.size, np.uint8)
        given(name, offset, there)
        bad = count_non_finite(there, dtype)
        non_finite += bad
        different += int(np.count_nonzero(there.view(STORED[dtype]) != block.view(STORED[dtype]))) - bad
        offset += block.size
        advance(block.size)
    entries = edited.target.slabs * edited.target.rows * edited.target.cols
    return TensorCheck(
        tensor=name,
        entries=entries,
        inexact=0,
        different=max(0, different),
        non_finite=non_finite,
        upwards=0,
        changed=changed,
        left=None,
        left_exact=None,
        rounding=None,
    )


class _Check:
    """The running figures of one tensor."""

    def __init__(self, edited: EditedTensor) -> None:
        self._edited, self._target = edited, edited.target
        self._inexact = self._different = self._non_finite = self._upwards = 0
        self._changed = edited.source.parts != edited.target.parts
        self._error = self._wanted = self._change = self._made = self._base = 0.0
        self._rescaled = 0
        self._before = self._after = self._exact = None
        self._entries = self._target.slabs * self._target.rows * self._target.cols
        if edited.map is not None and self._entries:
            self._before = Along(edited.source, edited.map.right, edited.along_rows, edited.gains)
            right, constant = edited.map.right, edited.map.constant
            self._after = Along(edited.target, right, edited.along_rows, constant=constant)
            self._exact = Along(edited.target, right, edited.along_rows, constant=constant)

    def add(self, strip: EditedStrip, there: Strip) -> None:
        self._changed = self._changed or any(
            not np.array_equal(raw, strip.before[part]) for part, raw in strip.stored.items()
        )
        # A scale that stands for the whole tensor is compared by itself.
        if any(part in there and not np.array_equal(raw, there[part]) for part, raw in strip.stored.items()):
            self._count(strip, there)
        if self._target.lossy or self._edited.map is not None:
            self._measure(strip, there)
        if self._before is not None and self._after is not None and self._exact is not None:
            # The last use of the strip: its numbers are changed, and in memory that is used again here.
            self._exact.add_tiles(strip.tiles, strip.first, strip.last)
            self._before.add(strip.before, strip.first, strip.last)
            self._after.add(there, strip.first, strip.last)

    def _measure(self, strip: EditedStrip, there: Strip) -> None:
        """Add a strip's squared lengths: of its base and its change, and of what storing makes of them."""
        rows = strip.last - strip.first
        for first, values in strip.tiles:
            end = first + values.shape[1]
            before = self._edited.source.decode(strip.before, rows, first, end, _beside)
            self._base += dot(before, before)
            change = np.subtract(values, before, out=before)
            size = dot(change, change)
            self._change += size
            if self._target.lossy:
                gap = self._target.decode(there, rows, first, end) - values
                self._error += dot(gap, gap)
                self._wanted += dot(values, values)
                self._made += size + dot(gap, change)
        self._rescaled += strip.rescaled

    def _count(self, strip: EditedStrip, there: Strip) -> None:
        rows = strip.last - strip.first
        for first, values in strip.tiles:
            end = first + values.shape[1]
            found = self._target.decode(there, rows, first, end)
            formula = self._target.decode(strip.stored, rows, first, end)
            off = found != formula
            near = _near(found, formula, values, self._target.parts[self._target.name][0] in ("BF16", "F16"))
            finite = np.isfinite(found)
            self._non_finite += int(finite.size - np.count_nonzero(finite))
            inexact = off & near
            self._inexact += int(np.count_nonzero(inexact))
            up = found[inexact] > formula[inexact]
            self._upwards += 2 * int(np.count_nonzero(up)) - up.size
            self._different += int(np.count_nonzero(off & ~near & finite))
        same_numbers = not self._inexact and not self._different and not self._non_finite
        if same_numbers:
            # Zeros of either sign, or scales and codes that say the same in other bits.
            self._inexact += 1

    def single_scale(self, base: ByteReader, given: ByteReader) -> None:
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
        left = exact = rounding = kept = rescaled = None
        if self._before is not None and self._after is not None and self._exact is not None:
            reference = max(self._before.norm, self._before.expected)
            left, exact = (one.norm / reference if reference else 0.0 for one in (self._after, self._exact))
        if self._target.lossy:
            rounding = math.sqrt(self._error / self._wanted) if self._wanted else 0.0
            kept = self._made / self._change if self._change else 1.0
            rescaled = self._rescaled
        return TensorCheck(
            tensor=self._target.name,
            entries=self._entries,
            inexact=self._inexact,
            different=self._different,
            non_finite=self._non_finite,
            upwards=self._upwards,
            changed=self._changed,
            left=left,
            left_exact=exact,
            rounding=rounding,
            kept=kept,
            rescaled=rescaled,
            change=None if self._edited.map is None or not self._base else math.sqrt(self._change / self._base),
        )


def _beside(purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """Memory that is used again, other than that of a strip's numbers."""
    return scratch(f"base's {purpose}", count, dtype)


def _near(
    found: NDArray[np.float64], formula: NDArray[np.float64], exact: NDArray[np.float64], two_bytes: bool
) -> NDArray[np.bool_]:
    """A mask of the stored numbers that are as near to the exact result as the formula's."""
    sizes = np.abs(exact)
    slack = ARITHMETIC * float(sizes.max(initial=0.0)) + (THROUGH_FLOAT32 * sizes if two_bytes else 0.0)
    return np.abs(found - exact) <= np.abs(formula - exact) + slack
