"""A checkpoint's open files, read at any offset by several threads."""

import os
import threading
from types import TracebackType
from typing import BinaryIO

from weight_edit.checkpoint.files import Stamp, printable
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.storage import Bytes
from weight_edit.errors import UsageError


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_AHEAD = 16 * 1024 * 1024
"""Bytes of read-ahead: reads by several threads look random to the operating system."""


class Files:
    """The open files of one checkpoint.

    Attributes:
        checkpoint: whose they are.
        bytes_read: by all threads together.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.bytes_read = 0
        self._open: dict[str, tuple[BinaryIO, Stamp]] = {}
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "Files":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, _ in self._open.values():
            file.close()

    def size(self, name: str) -> int:
        """A file's size in bytes when it was opened."""
        return self._file(name)[1].size

    def read(self, name: str, offset: int, into: Bytes | memoryview) -> None:
        """Fill `into` with a file's bytes, beginning at `offset`.

        Raises:
            UsageError: the file cannot be opened or read, was cut, or changed since the checkpoint was opened.
        """
        descriptor = self._file(name)[0].fileno()
        self._ask_for(name, descriptor, offset + len(into))
        view, done = into if isinstance(into, memoryview) else into.data, 0
        while done < len(into):
            try:
                got = os.preadv(descriptor, [view[done:]], offset + done)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                raise UsageError(f"{printable(name)} cannot be read: {reason}; fetch the file again") from None
            if not got:
                raise UsageError(
                    f"{printable(name)} ends early: {len(into) - done} bytes are missing; fetch the file again"
                )
            done += got
        with self._lock:
            self.bytes_read += done

    def _ask_for(self, name: str, descriptor: int, end: int) -> None:
        """Ask the system to read a file ahead of `end`."""
        with self._lock:
            begin = self._asked.get(name, 0)
            if end + _AHEAD // 2 < begin or not hasattr(os, "posix_fadvise"):
                return
            begin = max(begin, end)
            self._asked[name] = begin + _AHEAD
        os.posix_fadvise(descriptor, begin, _AHEAD, os.POSIX_FADV_WILLNEED)

    def tensor(self, name: str, offset: int, into: Bytes) -> None:
        """Fill `into` with a tensor's bytes, beginning at its byte `offset`; a `storage.ByteReader`.

        Raises:
            UsageError: as `read`, and no such tensor.
        """
        info = self.checkpoint.info(name)
        self.read(info.shard, info.begin + offset, into)

    def open(self, name: str) -> BinaryIO:
        """One of the files, open until `close`."""
        return self._file(name)[0]

    def check_unchanged(self, name: str) -> None:
        """Refuse a file that changed since it was opened.

        Raises:
            UsageError: it has another size or time of change, or is another file now.
        """
        before = self._file(name)[1]
        with self.checkpoint.open_file(name) as now:
            if Stamp.of(now) != before:
                raise UsageError(f"{printable(name)} changed while it was in use; start again")

    def close(self, name: str) -> None:
        """Close a file that no thread reads any more."""
        with self._lock:
            found = self._open.pop(name, None)
        if found is not None:
            found[0].close()

    def _file(self, name: str) -> tuple[BinaryIO, Stamp]:
        with self._lock:
            if name not in self._open:
                file = self.checkpoint.open_file(name)
                self._open[name] = (file, Stamp.of(file))
            return self._open[name]
