"""JSON values that differ by rounding alone."""

from typing import Any

import pytest


def alike(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same, numbers up to the rounding of other batches."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(alike, a, b))
    return a == pytest.approx(b, rel=1e-4, abs=1e-6) if isinstance(a, float) and isinstance(b, float) else a == b
