"""Memory that each thread reuses: fresh pages cost more than the arithmetic on them."""

import ctypes
import functools
import sys
import threading
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

_own = threading.local()


class Memory(Protocol):
    """An allocator of flat, uninitialised arrays of `count` numbers for a purpose."""

    def __call__(self, purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]: ...


def fresh(purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """A new array."""
    return np.empty(count, dtype)


def scratch(purpose: str, count: int, dtype: DTypeLike) -> NDArray[Any]:
    """This thread's array for a purpose, reused: its earlier content is lost."""
    held: dict[str, NDArray[np.uint8]] = _own.__dict__
    size = count * np.dtype(dtype).itemsize
    if purpose not in held or held[purpose].size < size:
        held[purpose] = np.empty(size, np.uint8)
    return held[purpose][:size].view(dtype)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 128 * 1024 * 1024
_LARGEST = 32 * 1024 * 1024


@functools.cache
def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory instead of returning it to the system.

    In a virtual machine, getting pages again costs several times the arithmetic on them. Only glibc is told.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
