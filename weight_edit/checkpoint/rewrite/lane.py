"""Pipelined file output: one thread makes the content, a second hashes, a third writes it.

The three share a few buffers, so that memory is fixed. Large files go past the page cache where the file system allows
it (O_DIRECT): filling that cache costs more of a processor than all else that is done to the bytes.
"""

import errno
import fcntl
import hashlib
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from weight_edit.checkpoint.manifest import FileRecord, Origin

BUFFER = 1024 * 1024
"""Bytes of one buffer: large enough for a disk, and a multiple of every block size."""

BUFFERS = 4

_DIRECT = getattr(os, "O_DIRECT", 0)
_DIRECT_FROM = 64 * 1024 * 1024
_BLOCK = 4096


@dataclass(frozen=True)
class Begun:
    """The beginning of a file that an earlier process did not finish, checked by digest.

    Attributes:
        size: its bytes.
        whole: SHA-256 of those that fill whole buffers.
        rest: the others, less than a buffer.
    """

    size: int
    whole: "hashlib._Hash"
    rest: bytes


class Lane:
    """Buffers and two threads, used for one file at a time."""

    def __init__(self) -> None:
        memory = memoryview(mmap.mmap(-1, BUFFERS * BUFFER))
        self.buffers = [memory[i * BUFFER : (i + 1) * BUFFER] for i in range(BUFFERS)]
        self.hasher = ThreadPoolExecutor(1, thread_name_prefix="hash")
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="disk")

    def __enter__(self) -> "Lane":
        return self

    def __exit__(self, *_: object) -> None:
        self.hasher.shutdown(cancel_futures=True)
        self.disk.shutdown(cancel_futures=True)


class LaneFile:
    """A file being written, with default permissions; one that exists is refused unless it was begun.

    Use as a context manager; call `finish` at the end of the block.

    Args:
        lane: whose buffers and threads it uses.
        path: where it goes; None only hashes. Missing folders are made.
        size: how long it will be, to choose how it is written.
        begun: what is there of it already and is gone on with.
    """

    def __init__(self, lane: Lane, path: Path | None, size: int, begun: Begun | None = None) -> None:
        self._lane, self._path = lane, path
        self._sha256 = hashlib.sha256() if begun is None else begun.whole.copy()
        self._direct = bool(_DIRECT) and size >= _DIRECT_FROM
        self._busy: list[list[Future[None]]] = [[] for _ in lane.buffers]
        self._current = self._fill = self.size = 0
        if begun is not None:
            self._fill, self.size = len(begun.rest), begun.size
            lane.buffers[0][: self._fill] = begun.rest
        self._descriptor = None if path is None else self._open(path, there=begun is not None)

    def _open(self, path: Path, there: bool) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if there else os.O_CREAT | os.O_EXCL)
        if self._direct:
            try:
                return os.open(path, flags | _DIRECT, 0o666)
            except OSError as error:
                # Some file systems make the file before they say that they have no direct writes.
                if error.errno != errno.EINVAL:
                    raise
                if not there:
                    path.unlink(missing_ok=True)
                self._direct = False
        return os.open(path, flags, 0o666)

    def room(self) -> memoryview:
        """Free memory for the next bytes, never empty; call `filled` with the number used."""
        return self._lane.buffers[self._current][self._fill :]

    def filled(self, count: int) -> None:
        """Declare that `room` holds the next `count` bytes of the file."""
        self._fill += count
        self.size += count
        if self._fill == BUFFER:
            self._flush()

    def write(self, data: memoryview) -> None:
        """Append bytes from memory of the caller."""
        done = 0
        while done < len(data):
            room = self.room()
            count = min(len(room), len(data) - done)
            room[:count] = data[done : done + count]
            self.filled(count)
            done += count

    def settle(self) -> str:
        """Wait until all so far is on disk, and return its SHA-256 in hexadecimal."""
        self._wait()
        rest = self._lane.buffers[self._current][: self._fill]
        digest = self._sha256.copy()
        digest.update(rest)
        if self._descriptor is not None and self._path is not None:
            # What fills no buffer yet goes through the page cache, and once more with the buffer.
            plain = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.pwrite(plain, rest, self.size - self._fill)
                os.fsync(plain)
            finally:
                os.close(plain)
        return digest.hexdigest()

    def finish(self, origin: Origin) -> FileRecord:
        """Wait until all is on disk, and return the file's record."""
        if self._fill:
            self._flush()
        self._wait()
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        return FileRecord(self._sha256.hexdigest(), self.size, origin)

    def __enter__(self) -> "LaneFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: TracebackType | BaseException | None) -> None:
        try:
            self._wait(quiet=kind is not None)
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def _flush(self) -> None:
        piece = self._lane.buffers[self._current][: self._fill]
        offset = self.size - self._fill
        steps = [self._lane.hasher.submit(self._sha256.update, piece)]
        if self._descriptor is not None:
            steps.append(self._lane.disk.submit(self._put, self._descriptor, piece, offset))
        self._busy[self._current] = steps
        self._current = (self._current + 1) % len(self._busy)
        self._fill = 0
        self._drain(self._current)

    def _drain(self, buffer: int) -> None:
        for step in self._busy[buffer]:
            step.result()
        self._busy[buffer] = []

    def _wait(self, quiet: bool = False) -> None:
        """Wait for both threads, so that buffers and file are free again."""
        for buffer, steps in enumerate(self._busy):
            if quiet:
                for step in steps:
                    step.exception()
            else:
                self._drain(buffer)

    def _put(self, descriptor: int, piece: memoryview, offset: int) -> None:
        while piece:
            if self._direct and (len(piece) < _BLOCK or offset % _BLOCK):
                self._undirect(descriptor)
            whole = len(piece) - len(piece) % _BLOCK if self._direct else len(piece)
            try:
                done = os.pwrite(descriptor, piece[:whole], offset)
            except OSError as error:
                if not self._direct or error.errno != errno.EINVAL:
                    raise
                self._undirect(descriptor)
                continue
            piece, offset = piece[done:], offset + done

    def _undirect(self, descriptor: int) -> None:
        """Switch to the page cache, for partial blocks or where direct writes are refused."""
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
        self._direct = False
