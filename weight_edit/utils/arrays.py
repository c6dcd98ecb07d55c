"""Arrays in float64, and factors that restore the norms of edited vectors."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = "NDArray[Any] | Tensor"

VANISHED = 2.0**-26
"""The relative norm below which the rest of an edited vector counts as zero.

It is less than float32 resolves beside the removed part, and mostly rounding of sums.

Brought back to its old length, it would be noise of full size.
"""


def as_float64(values: Numbers) -> Floats:
    """A row-major float64 copy of an array, or of a torch tensor on any device."""
    if not isinstance(values, np.ndarray) and hasattr(values, "detach"):
        # numpy knows no bfloat16, so that the tensor has to become float64 by itself.
        values = values.detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64, order="C")


def norm_restoring_factors(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Factors that restore each vector's norm after an edit; 0 where the edit removed it.

    Args:
        before, after: their lengths, of any shape; a NaN gives 0, and 0 times what is not finite is NaN again.
    """
    factors = np.zeros(np.shape(before))
    np.divide(before, after, out=factors, where=after > VANISHED * before)
    return factors
