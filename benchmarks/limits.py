"""What the machine can do: hashing, reading and writing at their best, with nothing else going on."""

import hashlib
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

PIECE = 4 << 20


def limits(folder: Path, size: int = 1 << 30) -> dict[str, float]:
    """GB/s of each, by name. Writes end with fsync; the file is removed."""
    path = folder / "limits"
    memory = memoryview(mmap.mmap(-1, PIECE))
    memory[:] = os.urandom(PIECE)
    found = {"sha256 of one core": _rate(size, lambda: _hash(memory, size))}
    for name, flags in (("direct write", getattr(os, "O_DIRECT", 0)), ("write through the page cache", 0)):
        os.sync()
        found[name] = _rate(size, lambda flags=flags: _write(path, memory, size, flags))
        if flags:
            path.unlink()
    _read(path, memory)
    found["read from the page cache"] = _rate(size, lambda: _read(path, memory))
    path.unlink()
    return found


def _rate(size: int, work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return size / (time.monotonic() - began) / 1e9


def _hash(memory: memoryview, size: int) -> None:
    digest = hashlib.sha256()
    for _ in range(size // PIECE):
        digest.update(memory)


def _write(path: Path, memory: memoryview, size: int, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | flags)
    for _ in range(size // PIECE):
        os.write(descriptor, memory)
    os.fsync(descriptor)
    os.close(descriptor)


def _read(path: Path, memory: memoryview) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(memory):
            pass
