"""Strengths and how far their estimates are off."""

from collections.abc import Sequence

import numpy as np

from weight_edit.difference.operators.fit import SIGMAS, OperatorFit

LENGTH = 2.0**-7
"""How much a strength is off because a tool rounded its direction: the square of a length in bfloat16."""


def allowed(fits: Sequence[OperatorFit]) -> float:
    """How far the median strength may be off."""
    return LENGTH + SIGMAS * float(np.median([fit.deviation for fit in fits])) if fits else LENGTH


def alike(one: OperatorFit, other: OperatorFit) -> bool:
    """Whether two strengths may be one."""
    if one.strength is None or other.strength is None:
        return False
    return abs(one.strength - other.strength) <= 2 * LENGTH + SIGMAS * float(np.hypot(one.deviation, other.deviation))


def all_alike(fits: Sequence[OperatorFit]) -> bool:
    """Whether the strengths of many may be one."""
    known = [fit for fit in fits if fit.strength is not None]
    if not known:
        return True
    middle = float(np.median([fit.strength for fit in known if fit.strength is not None]))
    return all(abs((fit.strength or 0.0) - middle) <= 2 * LENGTH + SIGMAS * fit.deviation for fit in known)
