"""Numbers from torch or numpy as float64 arrays, without importing torch."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = "NDArray[Any] | Tensor"


def floats(values: Numbers) -> Floats:
    """A float64 copy, in row-major order, of an array or of a torch tensor on any device."""
    if not isinstance(values, np.ndarray) and hasattr(values, "detach"):
        # numpy knows no bfloat16, so that the tensor has to become float64 by itself.
        values = values.detach().cpu().double().numpy()
    return np.array(values, dtype=np.float64, order="C")
