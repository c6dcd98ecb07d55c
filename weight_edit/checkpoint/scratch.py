"""Memory that one thread uses again and again: fresh pages cost more than the arithmetic that is done in them."""

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_own = threading.local()


def scratch(purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """A flat array of `count` numbers, with anything in it; it is this thread's last one for that purpose again."""
    held: dict[str, NDArray[np.uint8]] = _own.__dict__
    size = count * np.dtype(dtype).itemsize
    if purpose not in held or held[purpose].size < size:
        held[purpose] = np.empty(size, np.uint8)
    return held[purpose][:size].view(dtype)
