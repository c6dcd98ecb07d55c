"""The lock on a journal's file, for all processes of one machine and of several that share a file system.

Two locks, one in the other. The inner one is a file made with O_EXCL, which excludes other machines on network file
systems too, those without working locks among them; Optuna's own lock is the same file. The outer one is the
system's (flock) on the journal itself: it is free as soon as its holder has ended, however it ended, so that a file
that a dead process of this machine left is known as such at once. One that another machine left is removed after a
while.
"""

import errno
import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path

from weight_edit.search.owner import machine

PATIENCE = 30.0
"""Seconds after which a file that nobody touches is taken for left by a dead process; Optuna's grace period."""

_SHORTEST, _LONGEST = 0.001, 0.25
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_BLOCK = 1 << 16


class JournalLock:
    """Optuna's interface of a lock on a journal's file; whoever gets it finds the file ending with a whole line.

    A process that is killed while it writes leaves a part of a line, which would spoil the next one; no reader has
    taken notice of it, so it is cut off.

    Args:
        path: the journal's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.with_name(f"{path.name}.lock")
        self._descriptor = -1
        self._content = b""

    def acquire(self) -> bool:
        """Wait for the lock and take it; True."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o666)
        try:
            self._enter(alone_here=_locked(self._descriptor))
            _mend(self._descriptor)
        except BaseException:
            self.release()
            raise
        return True

    def release(self) -> None:
        """Give the lock back."""
        # After a long sleep it may be another's.
        if self._content and _read(self._file)[0] == self._content:
            with suppress(FileNotFoundError):
                self._file.unlink()
        self._content = b""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # Explicitly: a child of this process may hold the descriptor too.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _enter(self, alone_here: bool) -> None:
        """Make the inner lock's file, waiting until there is none.

        Args:
            alone_here: no other process of this machine is here, so that a file of this machine's is left over.
        """
        own = f"weight_edit {machine()} ".encode()
        content = own + secrets.token_hex(8).encode()
        watched: tuple[bytes, int] | None = None
        since, pause = 0.0, _SHORTEST
        while True:
            try:
                _make_file(self._file, content)
            except FileExistsError:
                found = _read(self._file)
                if found != watched:
                    watched, since = found, time.monotonic()
                left = alone_here and machine() and found[0].startswith(own)
                if left or time.monotonic() - since > PATIENCE:
                    self._remove(found)
                    continue
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST)
            else:
                self._content = content
                return

    def _remove(self, found: tuple[bytes, int]) -> None:
        """Remove a file that a dead process left, and not that which another has made since."""
        aside = self._file.with_name(f"{self._file.name}.{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            self._file.rename(aside)
            if _read(aside) != found:
                with suppress(OSError):
                    os.link(aside, self._file)
            aside.unlink()


def _read(path: Path) -> tuple[bytes, int]:
    """A lock's content and time stamp; empty where it is not there."""
    try:
        with path.open("rb") as file:
            return file.read(200), os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return b"", 0


def _make_file(path: Path, content: bytes) -> None:
    """Make a file that is not there.

    It appears with its content where the file system can do that. Elsewhere a process may be killed in between, and
    others wait for as long as for one of another machine.

    Raises:
        FileExistsError: it is there.
    """
    try:
        descriptor = os.open(path.parent, getattr(os, "O_TMPFILE", os.O_EXCL) | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(content)
            os.link(f"/proc/self/fd/{descriptor}", path, follow_symlinks=True)
    except FileExistsError:
        raise
    except OSError:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(content)


def _locked(descriptor: int) -> bool:
    """Lock a file for this process, waiting for it; False where the file system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _mend(descriptor: int) -> None:
    """Cut off what follows a file's last line break."""
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    end = size
    while end > 0:
        begin = max(0, end - _BLOCK)
        at = os.pread(descriptor, end - begin, begin).rfind(b"\n")
        if at >= 0:
            os.ftruncate(descriptor, begin + at + 1)
            return
        end = begin
    os.ftruncate(descriptor, 0)
