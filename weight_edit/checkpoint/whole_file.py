"""Files written atomically: under a random name beside their place, then by one rename.

Every file that has a name of its own choice or of the user's is written here. No link is followed and nothing but a
regular file is replaced, so that neither a link that somebody planted nor a device (`--save /dev/null` as root) is
written to, and no file of the user's that happens to have the name of an unfinished one is lost.
"""

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from weight_edit.checkpoint.files import printable
from weight_edit.errors import UsageError

_UNFINISHED = re.compile(r"\.weight_edit-[0-9a-f]{16}\.partial")

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def check_target(path: Path) -> None:
    """Refuse a path at which something other than a regular file lies.

    Raises:
        UsageError: `path` is a link, a folder, a device, a pipe or a socket.
    """
    _mode(path)


def check_free(path: Path, overwrite: bool, is_ours: Callable[[Path], bool]) -> None:
    """Refuse a file that the user named and that cannot be written, before any long work.

    Args:
        overwrite: an earlier file of the same kind may be replaced.
        is_ours: whether a file is of that kind.

    Raises:
        UsageError: as `check_target`; or there is a file, and it may not be replaced or is somebody else's; or nothing
            can be written to its folder.
    """
    there = _mode(path) is not None
    check_writable(existing(path.absolute().parent), "choose another file")
    if not there:
        return
    if not overwrite:
        raise UsageError(
            f"{printable(str(path))} exists; choose another file or pass `overwrite=True`", option="overwrite"
        )
    if not is_ours(path):
        raise UsageError(
            f"{printable(str(path))} is not a file of the kind that is written here, so it is not ours to overwrite; "
            "choose another file or remove it yourself"
        )


def check_writable(folder: Path, hint: str) -> None:
    """Refuse a folder that nothing can be written to, before any long work.

    Raises:
        UsageError: naming it, with the hint.
    """
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{printable(str(folder))} cannot be written to; {hint}")


def is_unfinished(path: Path) -> bool:
    """Whether a file is one that a process which was killed had not finished, by the name that no other file has."""
    return _UNFINISHED.fullmatch(path.name) is not None and path.is_file() and not path.is_symlink()


def begins_with(path: Path, text: str) -> bool:
    """Whether a file begins with a text, in UTF-8; no file that cannot be read does."""
    try:
        with path.open("rb") as file:
            return file.read(len(text.encode())) == text.encode()
    except OSError:
        return False


def check_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what has no room on the disk of a folder, which need not be there yet.

    Args:
        needed: in bytes.
        what: has the room, for the message.

    Raises:
        UsageError: saying how much is missing.
    """
    free = shutil.disk_usage(existing(folder)).free
    if needed > free:
        raise UsageError(
            f"not enough space for {what}: {_size(needed)} needed, {_size(free)} free, {_size(needed - free)} missing"
        )


def existing(folder: Path) -> Path:
    """The folder, or the nearest one around it that is there."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _size(count: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def write_whole(path: Path, content: str | bytes) -> None:
    """Write or replace a file atomically and flush it to disk; text is UTF-8, line breaks kept.

    Raises:
        UsageError: as `check_target`.
        OSError: the disk fails, or the folder is missing or read-only.
    """
    with whole_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def save_whole(path: Path, content: str | bytes) -> None:
    """`write_whole` for a file that the user named: errors of the disk become a `UsageError`.

    Raises:
        UsageError: as `check_target`; or it cannot be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise UsageError(f"{printable(str(path))} cannot be written: {os.strerror(error.errno or 0)}") from error


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write, moved to `path` when the block ends without an exception.

    After an exception nothing has changed.

    A new file has the permissions of any new file, one that replaces another has that one's.

    Raises:
        UsageError: as `check_target`, before the block and after it.
        OSError: as `write_whole`.
    """
    mode = _mode(path)
    unfinished = path.with_name(f".weight_edit-{secrets.token_hex(8)}.partial")
    descriptor = os.open(unfinished, _NEW, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
            yield file
            file.flush()
            os.fsync(descriptor)
        check_target(path)
        unfinished.replace(path)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink()
        raise


def append_line(path: Path, line: str) -> None:
    """Add a line to a file, creating the file if missing.

    Raises:
        UsageError: as `check_target`.
        OSError: as `write_whole`.
    """
    check_target(path)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "ab") as file:
        file.write(f"{line}\n".encode("utf-8", "backslashreplace"))


def _mode(path: Path) -> int | None:
    """Permissions of the regular file at a path; None if there is none."""
    try:
        found = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    name = printable(str(path))
    if stat.S_ISLNK(found):
        raise UsageError(f"{name} is a link and is not written through; give the name of the file itself")
    if stat.S_ISDIR(found):
        raise UsageError(f"{name} is a folder; give the name of a file")
    if not stat.S_ISREG(found):
        raise UsageError(f"{name} is a device, a pipe or a socket and is not replaced; give the name of a file")
    return stat.S_IMODE(found) & 0o777
