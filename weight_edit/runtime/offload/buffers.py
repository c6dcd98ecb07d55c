"""Memory for weights and logits that goes back to the system when it is let go.

What malloc has handed out stays with the process where something newer lies behind it; a mapping of one's own does not.
"""

import ctypes
import mmap
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from weight_edit.errors import UsageError

MAPPED = 1 << 18
"""Bytes above which a tensor gets a mapping of its own."""

ALIGNED = 64
"""Bytes to which torch aligns what it allocates."""

IN_MEMORY = 1 << 28
"""Bytes of logits above which they lie in a temporary file."""


def empty(shape: Sequence[int], dtype: torch.dtype, behind: int = 0) -> Tensor:
    """An uninitialised tensor on the CPU, large ones in private pages of their own.

    Args:
        behind: how many bytes behind a multiple of `ALIGNED` it begins. Products are the same to the bit only where the
            weights begin at alike addresses, and in memory they begin where the file has them.

    Raises:
        torch.OutOfMemoryError: there is no room.
    """
    size, behind = torch.Size(shape).numel() * dtype.itemsize, behind % ALIGNED
    try:
        return _over(_room(size, behind), shape, dtype)
    except (MemoryError, OSError) as error:
        # As torch says it, so that it is seen where smaller batches are tried.
        raise torch.OutOfMemoryError(f"can't allocate memory: {size} bytes for weights") from error


def _room(size: int, behind: int) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    if size < MAPPED:
        room = np.empty(size + 2 * ALIGNED, dtype=np.uint8)
        begin = behind - room.ctypes.data % ALIGNED + ALIGNED
        return room[begin : begin + size]
    pages = mmap.mmap(-1, size + behind, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Fewer faults while it is filled; a kernel without huge pages refuses, and nothing is lost.
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype=np.uint8)[behind:]


def in_file(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor of zeros on the CPU whose bytes lie in an unnamed temporary file.

    Raises:
        UsageError: the disk is full.
    """
    size = torch.Size(shape).numel() * dtype.itemsize
    with tempfile.TemporaryFile(prefix="weight_edit.") as file:
        try:
            # Taken for real: a page that finds no room later would end the process.
            _allocate(file.fileno(), size)
        except OSError as error:
            raise UsageError(
                f"logits cannot be kept in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a folder with "
                "more room, or take fewer prompts"
            ) from error
        return _over(np.frombuffer(mmap.mmap(file.fileno(), size), dtype=np.uint8), shape, dtype)


def trim() -> None:
    """Give what malloc keeps of freed memory back to the system, where that is known how."""
    if _TRIM is not None:
        _TRIM(0)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)


def _over(room: "np.ndarray[Any, np.dtype[np.uint8]]", shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    if not len(room):
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.from_numpy(room).view(dtype).view(tuple(shape))


def _glibc_trim() -> "ctypes._NamedFuncPointer | None":
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


_TRIM = _glibc_trim()
