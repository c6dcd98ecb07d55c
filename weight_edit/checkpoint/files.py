"""Files of a model folder: located inside it, opened only if regular, hashed while written."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from weight_edit.errors import UsageError, first_line
from weight_edit.utils.json import parse_json

CHUNK = 4 * 1024 * 1024
"""Bytes moved at a time: a multiple of every dtype's size, so that no number is cut."""

SKIPPED = frozenset({".cache", ".git", ".huggingface", ".ipynb_checkpoints", "__pycache__"})
"""Folders (or, for `.git` of a submodule, files) that belong to tools and not to the model."""

_MAX_JSON = 100_000_000
_SETTINGS = (".jinja", ".json", ".model", ".tiktoken", ".txt")
_MOST_SETTINGS = 1 << 30


_NAMED = 3


def printable(text: str, limit: int = 160) -> str:
    """`text` for a one-line message: control characters escaped, long names cut."""
    escaped = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return escaped if len(escaped) <= limit else escaped[: limit - 3] + "..."


@dataclass(frozen=True)
class Stamp:
    """A file's identity without its content, to notice files that change during a run."""

    device: int
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def of(cls, file: BinaryIO) -> "Stamp":
        """The stamp of an open file."""
        found = os.fstat(file.fileno())
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def named_files(names: tuple[str, ...]) -> str:
    """Some files' names in words, the first few of them."""
    shown = ", ".join(repr(printable(name)) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED} more"


def check_relative(name: object, where: str) -> str:
    """`name` if it is a plain relative path of normal parts with forward slashes.

    Raises:
        UsageError: it is absolute, has `..`, `.`, empty parts, a backslash, a NUL or no valid encoding.
    """
    if not isinstance(name, str) or not name:
        raise UsageError(f"{where}: a file name must be a non-empty string, not {printable(repr(name))}")
    parts = name.split("/")
    plain = not any(part in ("", ".", "..") for part in parts) and "\\" not in name and "\0" not in name
    if not plain or name.encode("utf-8", "replace").decode() != name:
        raise UsageError(f"{where}: refusing the file name {printable(name)!r}; it must be a path inside the folder")
    return name


def _blobs(root: Path) -> Path | None:
    """The folder in which the Hub's cache keeps contents, if `root` is a snapshot of that cache."""
    repository = root.parent.parent
    if root.parent.name == "snapshots" and repository.name.startswith("models--"):
        return repository / "blobs"
    return None


def locate(root: Path, name: str) -> Path:
    """The real path of the file `name` of the folder `root` (itself a resolved path).

    Links are followed, as long as they end inside the folder or, for a snapshot of the Hub's cache
    (`models--*/snapshots/<revision>/`), in that repository's `blobs`.

    Raises:
        UsageError: missing, a broken or circular link, or a link that leaves the folder.
    """
    path = root / name
    try:
        real = path.resolve(strict=True)
    except FileNotFoundError:
        what = "is a broken link" if path.is_symlink() else "is missing"
        raise UsageError(f"{printable(str(path))} {what}; fetch the model's files again") from None
    except (OSError, RuntimeError) as error:
        raise UsageError(f"{printable(str(path))} cannot be opened: {printable(str(error))}") from None
    blobs = _blobs(root)
    if not real.is_relative_to(root) and not (blobs is not None and real.is_relative_to(blobs)):
        raise UsageError(f"{printable(str(path))} is a link that leaves the model folder; put the file itself there")
    return real


def meant(*paths: Path) -> str:
    """The end of an error that names what was meant: "; did you mean run/model?"; empty where none of them is there.

    Args:
        paths: what may have been meant; the first that is there is named.
    """
    for path in paths:
        try:
            there = path.exists()
        except (OSError, ValueError):
            continue
        if there:
            return f"; did you mean {printable(str(path))}?"
    return ""


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for unbuffered reading.

    The call never blocks on a fifo and never opens a device or a link.

    Raises:
        UsageError: not a regular file, or not readable.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{printable(str(path))} cannot be read: {os.strerror(error.errno or 0)}") from None
    except ValueError:
        raise UsageError(f"{printable(str(path))} is no path: it holds a NUL") from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise UsageError(f"{printable(str(path))} is a folder, not a regular file")
        raise UsageError(f"{printable(str(path))} is not a regular file; remove it or replace it by one")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_exactly(file: BinaryIO, count: int, name: str) -> bytearray:
    """The next `count` bytes of `file`, as a copy.

    Raises:
        UsageError: the file ends before (it was cut while being read).
    """
    buffer = bytearray(count)
    view, done = memoryview(buffer), 0
    while done < count:
        got = file.readinto(view[done:])  # type: ignore[attr-defined]
        if not got:
            raise UsageError(f"{printable(name)} ends early: {count - done} bytes are missing; fetch the file again")
        done += got
    return buffer


def chunks(file: BinaryIO, count: int, name: str) -> Iterator[bytearray]:
    """The next `count` bytes of `file` in pieces of at most `CHUNK` bytes."""
    while count > 0:
        piece = read_exactly(file, min(CHUNK, count), name)
        count -= len(piece)
        yield piece


def list_files(root: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sorted relative paths of all files below `root`, and of the skipped folders.

    Links to files are listed, empty folders are not.

    Raises:
        UsageError: a link that leaves the folder or leads to a folder, something that is neither file nor
            folder, or an unusable name.
    """
    root = root.resolve()
    files: list[str] = []
    skipped: list[str] = []
    folders = [""]
    while folders:
        prefix = folders.pop()
        try:
            entries = list(os.scandir(root / prefix))
        except OSError as error:
            raise UsageError(
                f"{printable(str(root / prefix))} cannot be read: {os.strerror(error.errno or 0)}"
            ) from None
        for entry in entries:
            name = prefix + entry.name
            if entry.name in SKIPPED:
                skipped.append(name)
                continue
            check_relative(name, printable(str(root)))
            if entry.is_dir(follow_symlinks=False):
                folders.append(name + "/")
            elif entry.is_symlink() and locate(root, name).is_dir():
                raise UsageError(f"{printable(str(root / name))} is a link to a folder; put the folder itself there")
            elif entry.is_symlink() or entry.is_file(follow_symlinks=False):
                files.append(name)
            else:
                raise UsageError(f"{printable(str(root / name))} is neither a file nor a folder; remove it")
    return tuple(sorted(files)), tuple(sorted(skipped))


def check_regular(root: Path) -> None:
    """Refuse a folder with a pipe, a device or a link to one, on which libraries would block.

    Raises:
        UsageError: naming the first; or a file of settings that is too long to be one.
    """
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(folder) / name
            try:
                found = path.stat()
            except OSError:
                # A broken link is as good as no file.
                continue
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{printable(str(path))} is not a regular file; remove it or replace it by one")
            if path.suffix in _SETTINGS and found.st_size > _MOST_SETTINGS:
                raise UsageError(f"{printable(str(path))}: {found.st_size} bytes are too many for such a file")


def read_json(
    raw: bytes | bytearray, name: str, *, unique_keys: bool = True, constants: bool = False, most: int = _MAX_JSON
) -> Any:
    """Parse JSON strictly: valid UTF-8, limited size, depth and numbers, by default unique keys.

    Args:
        name: of the file, for messages.
        unique_keys, constants: as in `parse_json`.
        most: how many bytes are read.

    Raises:
        UsageError: naming the file.
    """
    if len(raw) > most:
        raise UsageError(f"{printable(name)}: {len(raw)} bytes is too long for a JSON file of a model")
    try:
        return parse_json(bytes(raw).decode("utf-8"), unique_keys=unique_keys, constants=constants)
    except UnicodeDecodeError as error:
        raise UsageError(f"{printable(name)}: not valid UTF-8 (byte {error.start})") from None
    except ValueError as error:
        raise UsageError(f"{printable(name)}: not valid JSON: {printable(str(error))}") from None


def read_whole(path: Path | str, most: int = _MAX_JSON) -> bytearray:
    """The content of a regular file that the user named; links are followed.

    Pipes and devices are never opened.

    Raises:
        UsageError: no such file, not a regular one, not readable, or longer than `most` bytes.
    """
    name = printable(str(path))
    try:
        real = Path(path).resolve(strict=True)
    except FileNotFoundError:
        raise UsageError(f"{name}: there is no such file; check the path") from None
    except (OSError, RuntimeError, ValueError) as error:
        # A loop of links; a NUL, which no path has.
        raise UsageError(f"{name} cannot be read: {printable(first_line(error))}") from None
    with open_regular(real) as file:
        size = Stamp.of(file).size
        if size > most:
            raise UsageError(f"{name}: {size} bytes are too many; at most {most} are read")
        return read_exactly(file, size, str(path))
