"""Quantisation and back: every number went to a nearby one of the few that its block has.

Known formats are tried outright (int8 and int4 with a scale for each row or block; FP8 with scales; NF4). What has
other levels shows by them: blocks of 32 numbers have at most 16 different ones, in the order of what they were.
"""

from collections.abc import Iterator

import numpy as np

from weight_edit.difference.operators.elementwise import FORMATS, off, short_float
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample

_BLOCKS = (32, 64, 128, 256)
_SINGLE = 2.0**-21
_STRAY = 0.01
"""The share of numbers that a grid may miss: those that its maker rounded the other way, as scales were rounded."""

_MOVED = 0.5
"""The least share of numbers that rounding to few levels changes: nearly all, where they did not lie there before."""
_NF4 = np.array(
    [-1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0, 0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626,
     0.7230, 1.0]
)  # fmt: skip
"""Quantiles of the normal distribution (arXiv 2305.14314)."""


def grid(sample: Sample, wanted: Values) -> str | None:
    """The name of the grid on which `wanted` was rounded to become B; None where there is none.

    Args:
        wanted: A, or what an edit would have made of it before it was rounded.
    """
    # Blocks run along the stored rows: rows first here.
    a, rows, b, unit = (_some(_stored(sample, values)) for values in (sample.a, wanted, sample.b, sample.unit))
    for name, made in _round_trips(rows, _row_peaks(sample)):
        # Scales and products were rounded to float32 as a rule.
        if off(a, b, made, np.maximum(0.51 * unit, _SINGLE * np.abs(b))) < _STRAY:
            return name
    # Numbers that lie on few levels before and after were not brought there.
    return _few_levels(rows, b) if np.mean(a != b) > _MOVED else None


def _stored(sample: Sample, values: Values) -> Values:
    return values.T if sample.side == "rows" else values


def _row_peaks(sample: Sample) -> Values | None:
    """The largest number of each stored row, as a column; None where that is not known."""
    if sample.side == "rows":
        return np.abs(_some(sample.b.T)).max(1, keepdims=True)
    return _some(sample.peaks[:, None]) if sample.first == sample.a.shape[1] else None


def _some(rows: Values) -> Values:
    """Some rows tell it: 64 at even distances, in pairs of neighbours."""
    if len(rows) <= 96:
        return rows
    return rows[np.linspace(0, len(rows) - 1, 64).astype(np.intp)]


def _round_trips(rows: Values, row_peaks: Values | None) -> Iterator[tuple[str, Values]]:
    """Names and results of rounding to known grids and back."""
    for bits, last in (("int8", 127.0), ("int4", 7.0)):
        for where, peak in _peaks(rows, row_peaks):
            step = np.where(peak > 0, peak, 1.0) / last
            yield f"{bits} with a scale for each {where}", np.round(rows / step) * step
    mantissa, lowest, largest = FORMATS["FP8 (E4M3)"]
    for where, peak in _peaks(rows, row_peaks):
        scale = np.where(peak > 0, peak, 1.0) / largest
        yield f"FP8 (E4M3) with a scale for each {where}", short_float(rows / scale, mantissa, lowest, largest) * scale
    middles = (_NF4[1:] + _NF4[:-1]) / 2
    for where, peak in _peaks(rows, row_peaks):
        if where.startswith("block"):
            scale = np.where(peak > 0, peak, 1.0)
            yield f"NF4 with a scale for each {where}", _NF4[np.searchsorted(middles, rows / scale)] * scale


def _peaks(rows: Values, row_peaks: Values | None) -> Iterator[tuple[str, Values]]:
    """Names of scales, and the largest number for each, in a shape that broadcasts."""
    size = np.abs(rows)
    for block in _BLOCKS:
        if rows.shape[1] % block == 0:
            peaks = size.reshape(len(rows), -1, block).max(2)
            yield f"block of {block}", np.repeat(peaks, block, axis=1)
    if row_peaks is not None:
        yield "row", row_peaks


def _few_levels(rows: Values, b: Values) -> str | None:
    """Blocks of few levels, in the order of what they were; or rows of levels at even distances."""
    if rows.shape[1] % 32 == 0:
        for block in (32, 64, 128, 256):
            if rows.shape[1] % block:
                continue
            if _quantised_blocks(rows.reshape(-1, block), b.reshape(-1, block), 16):
                return f"at most 16 levels in each block of {block}"
    if rows.shape[1] >= 64 and _quantised_blocks(rows, b, 256):
        return "few levels in each row"
    for bits in (2, 3):
        if _short_mantissas(rows, b, bits):
            return f"numbers of {bits} bits behind the first one, times a scale"
    return None


def _short_mantissas(rows: Values, b: Values, bits: int) -> bool:
    """Whether the numbers of each block are a scale times floating numbers of few bits, as in FP8."""
    size = 128 if rows.shape[1] % 128 == 0 else rows.shape[1]
    x, y = (np.abs(values).reshape(-1, size) for values in (rows, b))
    if size < 48:
        return False
    # Small numbers are on an even grid there.
    large = y > y.max(1, keepdims=True) * 2.0**-5
    if not large.mean() > 0.2 or not (np.abs(x - y)[large] <= y[large] * 2.0 ** -(bits + 1) * 1.1).mean() > 0.99:
        return False
    return bool(np.mean([_clusters(row[use]) <= 2**bits for row, use in zip(y, large, strict=True)]) > 0.95)


def _clusters(numbers: Values) -> int:
    """How many different ones numbers are once powers of two are taken off, up to the rounding of bfloat16."""
    if len(numbers) < 16:
        return len(numbers)
    places = np.sort(np.log2(numbers) % 1.0)
    gaps = np.diff(np.append(places, places[0] + 1))
    wide = gaps > 2.0**-6
    count = int(np.count_nonzero(wide))
    # What lies close together is one number only as far as rounding goes.
    return count if gaps[wide].sum() > 1 - count * 2.0**-6 else len(numbers)


def _quantised_blocks(x: Values, y: Values, levels: int) -> bool:
    """Whether blocks (their rows) have few levels, onto which numbers went in their order."""
    # Not all: some thousands tell it.
    step = max(1, len(x) // 4096)
    x, y = x[::step], y[::step]
    counts = _distinct(y)
    before = _distinct(x)
    if np.quantile(counts, 0.99) > levels or np.median(counts) > 0.8 * np.median(before):
        return False
    order = np.argsort(x, axis=1, kind="stable")
    sorted_y = np.take_along_axis(y, order, 1)
    falls = np.diff(sorted_y, axis=1) < 0
    return bool(falls.mean() < 0.01)


def _distinct(values: Values) -> Values:
    ordered = np.sort(values, axis=1)
    return 1.0 + np.count_nonzero(np.diff(ordered, axis=1), axis=1)


def within_steps(sample: Sample, wanted: Values) -> bool:
    """Whether B, stored by codes, is no further from `wanted` than one step of its own grid, nearly everywhere."""
    return sample.coded and off(sample.a, sample.b, wanted, 1.02 * sample.unit) < _STRAY
