"""Memory that one thread uses again and again: fresh pages cost more than the arithmetic that is done in them."""

import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

_own = threading.local()


class Memory(Protocol):
    """Gives a flat array of `count` numbers, with anything in it, for some purpose."""

    def __call__(self, purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]: ...


def fresh(purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """New memory."""
    return np.empty(count, dtype)


def scratch(purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """This thread's last array for that purpose once more: what was in it is gone."""
    held: dict[str, NDArray[np.uint8]] = _own.__dict__
    size = count * np.dtype(dtype).itemsize
    if purpose not in held or held[purpose].size < size:
        held[purpose] = np.empty(size, np.uint8)
    return held[purpose][:size].view(dtype)
