"""An output folder that appears complete or not at all."""

import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.rewrite.attempt import Attempt
from weight_edit.checkpoint.rewrite.ownership import check_own
from weight_edit.checkpoint.whole_file import check_space, check_writable, existing
from weight_edit.errors import UsageError

Own = Callable[[Path], None]

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def check_output(
    out: Path | str,
    overwrite: bool = False,
    *,
    needed_bytes: int = 0,
    source: Path | str | None = None,
    own: Own = check_own,
) -> Path:
    """Refuse an output folder that cannot or must not be written, before any long work.

    Args:
        out: the folder to be made. Missing parents will be made too.
        overwrite: a folder may be replaced in which all is ours, see `ownership.check_own`.
        needed_bytes: free space that the output will take.
        source: a folder that is read: the output may be neither it, nor inside it, nor around it.
        own: raises what there is to say against replacing a folder.

    Returns:
        `out` as an absolute path, its parents' links resolved.

    Raises:
        UsageError: one of the refusals, named.
    """
    if "\0" in str(out):
        raise UsageError(f"{printable(str(out))} cannot be used: no path holds a NUL")
    try:
        return _checked(absolute(Path(out)), overwrite, needed_bytes, source, own)
    except OSError as error:
        raise UsageError(f"{printable(str(out))} cannot be used: {os.strerror(error.errno or 0)}") from error


def _checked(out: Path, overwrite: bool, needed_bytes: int, source: Path | str | None, own: Own) -> Path:
    name = printable(str(out))
    if out.is_symlink():
        raise UsageError(f"{name} is a link; give the folder itself as output")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{name} exists and is not a folder; choose another output")
    if source is not None:
        read = Path(source).resolve()
        if out == read or out.is_relative_to(read) or read.is_relative_to(out):
            raise UsageError(f"{name} and the source {printable(str(read))} overlap; choose another output folder")
    if out.is_dir() and any(out.iterdir()):
        _check_replaceable(out, overwrite, name, own)
    parent = existing(out.parent)
    if not parent.is_dir():
        raise UsageError(f"{printable(str(parent))} is not a folder, so {name} cannot be made in it")
    check_writable(parent, "choose another output folder")
    check_space(parent, needed_bytes, name)
    return out


def _check_replaceable(out: Path, overwrite: bool, name: str, own: Own) -> None:
    if not overwrite:
        raise UsageError(
            f"{name} exists and is not empty; choose another output or pass `overwrite=True`", option="overwrite"
        )
    for kept, what in ((Path.cwd(), "the current folder"), (Path("~").expanduser(), "the home folder")):
        if kept.resolve().is_relative_to(out):
            raise UsageError(f"{name} is {what} or holds it and is not overwritten; choose another output")
    own(out)


@contextmanager
def staged(
    out: Path | str,
    *,
    overwrite: bool = False,
    needed_bytes: int = 0,
    source: Path | str | None = None,
    own: Own = check_own,
) -> Iterator[Path]:
    """A new folder to write into, renamed to `out` at the end of the block; see `attempted`."""
    with attempted(out, overwrite=overwrite, needed_bytes=needed_bytes, source=source, own=own) as attempt:
        yield attempt.files


@contextmanager
def attempted(
    out: Path | str,
    *,
    overwrite: bool = False,
    needed_bytes: int = 0,
    source: Path | str | None = None,
    key: str = "",
    resume: bool = False,
    own: Own = check_own,
) -> Iterator[Attempt]:
    """An attempt at an output, whose files become `out` when the block ends normally.

    They are in a hidden folder beside `out`. At the end they are flushed to disk and renamed. After any exception they
    are removed and `out` is as before; after Ctrl-C or SIGTERM too, unless finished files are noted in the attempt's
    journal: then they stay for `resume`, as they do when an attempt to go on cannot begin. With `overwrite`, the old
    folder is moved aside, the new one put in its place, and the old one removed.

    Args:
        out, overwrite, needed_bytes, source, own: see `check_output`.
        key: what the output depends on; an earlier attempt is gone on with only if its key is the same.
        resume: go on with an earlier attempt that was interrupted, if there is one. Others are removed either way.

    Raises:
        UsageError: as `check_output`; another process writes `out`; the disk is full or read-only; `out` appeared
            meanwhile.
    """
    out = check_output(out, overwrite, source=source, own=own)
    name = printable(str(out))
    made: list[Path] = []
    attempt: Attempt | None = None
    begun = placed = False
    with _terminable():
        try:
            made = _make_parents(out.parent)
            attempt = Attempt.open(out, key, resume)
            check_output(out, overwrite, needed_bytes=max(0, needed_bytes - attempt.kept), source=source, own=own)
            begun = True
            yield attempt
            _flush(attempt.files)
            _put_in_place(attempt, overwrite, own)
            placed = True
            attempt.remove()
        except BaseException as error:
            resumable = isinstance(error, KeyboardInterrupt | SystemExit) or not begun
            if attempt is not None and resumable and not placed and key and attempt.worth_keeping:
                attempt.release()
                raise
            if attempt is not None:
                attempt.remove()
            for folder in reversed(made):
                with suppress(OSError):
                    folder.rmdir()
            if isinstance(error, OSError) and error.errno in _FULL:
                raise UsageError(f"the disk is full: {name} could not be written; nothing was left behind") from error
            if isinstance(error, OSError) and error.errno in _REFUSED:
                raise UsageError(f"{name} cannot be written: {os.strerror(error.errno)}") from error
            raise


def replace_folder(new: Path, out: Path, own: Own = check_own) -> None:
    """Replace one of this package's folders by a finished one beside it.

    Raises:
        UsageError: there is something in `out` that is not ours; both are as they were.
    """
    with _terminable():
        attempt = Attempt.open(out, "", False)
        try:
            _flush(new)
            attempt.files.rmdir()
            new.rename(attempt.files)
            try:
                _put_in_place(attempt, True, own)
            except BaseException:
                attempt.files.rename(new)
                raise
        finally:
            attempt.remove()


def remove_own(folder: Path, own: Own = check_own) -> None:
    """Remove one of this package's folders if it exists.

    It is renamed first, so that half of it is never taken for an output.

    Raises:
        UsageError: there is something in it that is not ours.
    """
    if folder.is_dir() and not folder.is_symlink():
        own(folder)
        attempt = Attempt.open(folder, "", False)
        folder.rename(attempt.folder / "gone")
        attempt.remove()


def _put_in_place(attempt: Attempt, overwrite: bool, own: Own) -> None:
    out = attempt.out
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"{printable(str(out))} appeared while it was being made; choose another output")
    try:
        if out.is_dir() and any(out.iterdir()):
            # Looked at again: hours may have passed since the first check.
            _check_replaceable(out, overwrite, printable(str(out)), own)
            out.rename(attempt.old)
            # And once more where nobody knows it by its name any more.
            own(attempt.old)
        attempt.files.rename(out)
    except BaseException as error:
        attempt.restore()
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(
                f"{printable(str(out))} appeared while it was being made; choose another output"
            ) from error
        raise
    _sync(out.parent)


def absolute(out: Path) -> Path:
    """The absolute path of an output with its last part unresolved, so that a link is noticed."""
    return out.resolve() if out.name in ("", "..") else out.parent.resolve() / out.name


def _make_parents(folder: Path) -> list[Path]:
    """Create `folder` and its missing parents; returns the created ones, outermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    made = []
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir()
            made.append(path)
    return made


def _flush(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            _sync(Path(root) / name)
        _sync(Path(root))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the context, let SIGTERM unwind the stack unless somebody else handles it."""
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not ours:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
