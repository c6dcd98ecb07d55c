"""Changes of each number by itself: numbers set to zero, all multiplied by one factor, casts to shorter formats."""

import numpy as np

from weight_edit.difference.operators.fit import ROUNDINGS
from weight_edit.difference.pairs import Values, binade
from weight_edit.difference.samples import Sample

COORDINATES = 4
"""The most coordinates of the stream whose removal from a tensor is asked for as an ablation along them."""


def pruning(sample: Sample) -> str | None:
    """Which numbers were set to zero while the others stayed as they were; None where a number changed otherwise.

    None, too, where what went are a few whole coordinates of the stream: that is an ablation along them.
    """
    gone = (sample.b == 0) & (sample.a != 0)
    same = sample.b == sample.a
    if not gone.any() or not (gone | same).all():
        return None
    coordinates = gone.any(1)
    whole = not sample.b[coordinates].any()
    if whole and np.count_nonzero(coordinates) <= COORDINATES:
        return None
    count = np.count_nonzero(coordinates)
    return f"{count} whole coordinates" if whole and count < sample.width / 2 else f"{gone.mean():.0%} of the numbers"


def scaling(sample: Sample) -> float | None:
    """The factor by which all numbers were multiplied, as by weight decay alone; None where there is none."""
    fitted, judged = sample.halves
    square = float(np.vdot(fitted.a, fitted.a))
    if not square or judged.square <= ROUNDINGS * judged.noise:
        # A change within rounding fits any factor.
        return None
    factor = float(np.vdot(fitted.a, fitted.b)) / square
    error = judged.b - factor * judged.a
    return factor if float(np.vdot(error, error)) <= ROUNDINGS * judged.noise else None


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
    unit = np.maximum(binade(values), 2.0**lowest) * 2.0**-mantissa
    return np.clip(np.round(values / unit) * unit, -largest, largest)


def agrees(sample: Sample, made: Values) -> bool:
    """Whether B is what was made, nearly everywhere; see `off`."""
    return off(sample.a, sample.b, made, 0.51 * sample.unit) < _STRAY


_STRAY = 1e-3
"""The share of numbers that a cast may miss: ties that another implementation rounds the other way, and denormals."""


def off(a: Values, b: Values, made: Values, allowed: Values) -> float:
    """The share of numbers of B that are further than allowed from what was made; 1 where nothing differs from A.

    It is the larger one of those of all numbers and of the numbers that differ from A: of a few changed ones among many
    that stayed, all others agree with anything that leaves A as it is.

    Args:
        allowed: half a unit of B's format, since what was made may be rounded once more when it is stored.
    """
    wrong = np.abs(b - made) > allowed
    differs = a != b
    return max(float(wrong.mean()), float(wrong[differs].mean())) if differs.any() else 1.0
