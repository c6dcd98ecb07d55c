"""Unchanged files that share storage with the source instead of being copied."""

import errno
import fcntl
import os
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from weight_edit.checkpoint.files import printable
from weight_edit.errors import UsageError

# The ioctl behind `cp --reflink`: the two files share their blocks until one of them is written to.
_FICLONE = 0x40049409
_NO_CLONES = {errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.ETXTBSY}


def clone(source: BinaryIO, folder: Path, name: str) -> bool:
    """Clone an open file to `folder/name` where the file system can; returns whether it did.

    btrfs and xfs can, for example.
    """
    path = folder / PurePosixPath(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        fcntl.ioctl(target, _FICLONE, source.fileno())
        os.fsync(target)
    except OSError as error:
        path.unlink()
        if error.errno not in _NO_CLONES:
            raise
        return False
    finally:
        os.close(target)
    return True


def link(source: Path, folder: Path, name: str) -> None:
    """Make `folder/name` a hard link to a file: a change of either changes both.

    Raises:
        UsageError: another file system, or one without hard links.
    """
    path = folder / PurePosixPath(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.hardlink_to(source)
    except OSError as error:
        raise UsageError(
            f"{printable(str(source))} cannot be linked into the output ({os.strerror(error.errno or 0)});"
            " choose an output on the same file system or drop `link`",
            option="link",
        ) from error
