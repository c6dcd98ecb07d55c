"""Vectors brought back to the length that they had before an edit."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = "NDArray[Any] | Tensor"


def as_float64(values: Numbers) -> Floats:
    """A float64 copy, in row-major order, of an array or of a torch tensor on any device."""
    if not isinstance(values, np.ndarray) and hasattr(values, "detach"):
        # numpy knows no bfloat16, so that the tensor has to become float64 by itself.
        values = values.detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64, order="C")


VANISHED = 2.0**-26
"""What is left of a vector that an edit took away: less than float32 can say beside it, and mostly rounding of sums.

Brought back to its old length, it would be noise of full size.
"""


def norm_restoring_factors(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """What vectors have to be multiplied by to be as long as before; 0 for those of which the edit left nothing.

    Args:
        before, after: their lengths, of any shape; a NaN gives 0, and 0 times what is not finite is NaN again.
    """
    factors = np.zeros(np.shape(before))
    np.divide(before, after, out=factors, where=after > VANISHED * before)
    return factors
