"""Changes of each number by itself: numbers set to zero, all multiplied by one factor, casts to shorter formats."""

import numpy as np

from weight_edit.difference.operators.fit import ROUNDINGS, OperatorFit, fitted
from weight_edit.difference.pairs import Values
from weight_edit.difference.samples import Sample


def pruning(sample: Sample) -> OperatorFit | None:
    """Numbers set to zero, the others as they were; None where a number changed otherwise."""
    gone = (sample.b == 0) & (sample.a != 0)
    same = sample.b == sample.a
    if not gone.any() or not (gone | same).all():
        return None
    return fitted("pruning", sample, np.where(gone, 0.0, sample.a), share=float(gone.mean()))


def scaling(sample: Sample) -> OperatorFit | None:
    """All numbers multiplied by one factor, as weight decay alone does; None where that does not fit."""
    square = float(np.vdot(sample.a, sample.a))
    factor = float(np.vdot(sample.a, sample.b)) / square if square else 1.0
    found = fitted("scaling", sample, sample.a * factor, factor=factor)
    # A change within rounding fits any factor.
    return found if found.exact and sample.square > ROUNDINGS * sample.noise else None


def cast(sample: Sample, wanted: Values) -> str | None:
    """The name of the shorter format through which `wanted` became B; None where no cast makes it.

    Args:
        wanted: A, or what an edit would have made of it before it was rounded.
    """
    for name, (mantissa, lowest, largest) in FORMATS.items():
        if agrees(sample, short_float(wanted, mantissa, lowest, largest)):
            return name
    return None


FORMATS = {
    "float16": (10, -14, 65504.0),
    "bfloat16": (7, -126, 3.3895e38),
    "FP8 (E4M3)": (3, -6, 448.0),
    "FP8 (E5M2)": (2, -14, 57344.0),
}
"""Name -> (mantissa bits, least exponent, largest number)."""


def short_float(values: Values, mantissa: int, lowest: int, largest: float) -> Values:
    """Numbers rounded to a short floating format, to nearest even."""
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(values), 1e-300))), lowest)
    unit = np.exp2(exponent - mantissa)
    return np.clip(np.round(values / unit) * unit, -largest, largest)


def agrees(sample: Sample, made: Values) -> bool:
    """Whether B is a number or two of its format from what was made, and A is further away.

    What was made is compared before it is stored in B's format, which may round once more.
    """
    off = np.abs(sample.b - made) > 0.51 * sample.unit
    return bool(off.mean() < 1e-3) and sample.square > 0
