"""An output under construction: a hidden folder beside it, and a journal of finished files.

`.NAME.partial-ID/` has `files/`, which becomes the output, `journal`, one JSON line per finished file and per long
beginning of one, and, while an output is replaced, `old`, the one before. Its maker holds a lock on the journal, which
the system lets go when the process ends, however it ends: so a later process knows whose attempt is dead, and may go
on with it (`--resume`) or remove it. On a file system without locks nobody can know, and attempts of others are left
alone.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, fields
from pathlib import Path
from types import MappingProxyType

from weight_edit.checkpoint.files import chunks, open_regular, printable, read_exactly
from weight_edit.checkpoint.manifest import FileRecord, is_record, sha256
from weight_edit.checkpoint.rewrite.lane import BUFFER, Begun
from weight_edit.checkpoint.tensor.edited import RoundingLoss
from weight_edit.errors import UsageError
from weight_edit.utils.json import parse_json
from weight_edit.utils.progress import announce, bar

_TRIES = 10
_MAX_KEY = 4096
_NAME = re.compile(r"\..+\.partial-[0-9a-f]{12}")
_FOLDERS = ("files", "old", "gone")
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


class Attempt:
    """One attempt to write an output, locked by this process.

    Attributes:
        out: the output.
        folder: the hidden folder.
        files: where the output's files go.
        old: where the output that is replaced waits until the new one is in its place.
        finished: the files that an earlier process finished, checked by digest.
        begun: long files that it did not finish: what is there of them.
        losses: what it noted of the tensors in them.
    """

    def __init__(self, out: Path, folder: Path, journal: int) -> None:
        self.out, self.folder, self.files, self.old = out, folder, folder / "files", folder / "old"
        self.finished: dict[str, FileRecord] = {}
        self.begun: dict[str, Begun] = {}
        self.losses: dict[str, RoundingLoss] = {}
        self._journal = journal
        self._lock = threading.Lock()
        self._told: dict[str, dict[str, RoundingLoss]] = {}
        self._unfinished: dict[str, tuple[int, str]] = {}
        self._noted = 0

    @classmethod
    def begin(cls, out: Path, key: str) -> "Attempt":
        """A new attempt at the output `out`, of the job `key`.

        Raises:
            UsageError: it was removed again and again.
        """
        for _ in range(_TRIES):
            attempt = cls(out, out.parent / f".{out.name}.partial-{secrets.token_hex(6)}", -1)
            attempt.folder.mkdir()
            try:
                if attempt._begun(key):
                    return attempt
            except BaseException:
                attempt.remove()
                raise
            attempt.remove()
        raise UsageError(f"something removes what is written beside {printable(str(out))}; choose another output")

    @classmethod
    def dead(cls, out: Path) -> "list[Attempt]":
        """Earlier attempts at `out` whose process has ended, each locked now.

        Raises:
            UsageError: a process that writes `out` is still running.
        """
        found: list[Attempt] = []
        for folder in _partial(out):
            try:
                journal = os.open(
                    folder / "journal", os.O_RDWR | os.O_CLOEXEC | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
                )
            except OSError:
                # Begun or removed just now, or never completely, so that it is empty; or not one of ours.
                with suppress(OSError):
                    folder.rmdir()
                continue
            if not _is_ours(folder, journal):
                os.close(journal)
                continue
            try:
                alive = not _lock(journal)
            except BlockingIOError:
                os.close(journal)
                for attempt in found:
                    attempt.release()
                raise UsageError(
                    f"another process is writing {printable(str(out))}; wait for it, or choose another output"
                ) from None
            # Between the opening and the lock, another process may have removed it.
            if alive or os.fstat(journal).st_nlink == 0:
                os.close(journal)
                continue
            found.append(cls(out, folder, journal))
        return found

    @classmethod
    def open(cls, out: Path, key: str, resume: bool) -> "Attempt":
        """The attempt to work in: a new one, or with `resume` an earlier one at the same job.

        Of several dead ones with the same key, that with the most finished bytes is taken, and the others are removed.

        Raises:
            UsageError: a process that writes `out` is still running.
        """
        dead = cls.dead(out)
        try:
            same = [(noted, attempt) for attempt in dead if (noted := attempt._noted_bytes(key)) is not None]
            best = max(same, key=lambda pair: pair[0], default=(0, None))[1] if resume else None
            left = f"what an interrupted attempt at {printable(str(out))} left"
            if same and not resume:
                announce(f"removing {left}; resume would go on with it")
            elif dead and resume and best is None:
                announce(f"removing {left}: it was of another call, source or version, so that all is made anew")
            for attempt in dead:
                attempt.restore()
                if attempt is not best:
                    attempt.remove()
            if best is None:
                return cls.begin(out, key)
            best._check(best._entries(key) or {})
        except BaseException:
            for attempt in dead:
                attempt.release()
            raise
        return best

    @property
    def worth_keeping(self) -> bool:
        """Whether a later process could resume from the attempt."""
        return bool(self.finished or self.begun) or self._noted > 0

    @property
    def kept(self) -> int:
        """The bytes that are there already, but for links."""
        return sum(record.size for record in self.finished.values() if record.origin != "linked") + sum(
            each.size for each in self.begun.values()
        )

    def note(self, name: str, record: FileRecord, losses: Mapping[str, RoundingLoss] = MappingProxyType({})) -> None:
        """Note in the journal that a file is finished and on disk."""
        self._append({"file": name, **asdict(record)}, losses)

    def note_begun(self, name: str, size: int, digest: str, losses: Mapping[str, RoundingLoss]) -> None:
        """Note in the journal that the first `size` bytes of a file are on disk, with their SHA-256."""
        self._append({"begun": name, "size": size, "sha256": digest}, losses)

    def release(self) -> None:
        """Unlock the attempt; its folder stays."""
        with self._lock:
            journal, self._journal = self._journal, -1
        if journal >= 0:
            os.close(journal)

    def restore(self) -> None:
        """Move the old output back if no new one has taken its place."""
        if self.old.is_dir() and not os.path.lexists(self.out):
            self.old.rename(self.out)

    def remove(self) -> None:
        """Remove the attempt with all of its files."""
        self.restore()
        gone = self.folder / "gone"
        # By another name first: half of an old output must never be put back.
        with suppress(FileNotFoundError):
            self.old.rename(gone)
        # Should this be cut short, the journal is still there and the next process goes on.
        for folder in (self.files, gone, self.folder):
            remove_folder(folder)
        self.release()

    def _append(self, entry: Mapping[str, object], losses: Mapping[str, RoundingLoss]) -> None:
        told = {tensor: astuple(loss) for tensor, loss in losses.items()}
        with self._lock:
            _append(self._journal, {**entry, "losses": told})
            os.fsync(self._journal)
            self._noted += 1

    def _begun(self, key: str) -> bool:
        """Create and lock the journal; False if another process took it for dead in between."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND
        try:
            self._journal = os.open(self.folder / "journal", flags, 0o600)
            _lock(self._journal)
        except (FileNotFoundError, BlockingIOError):
            return False
        if os.fstat(self._journal).st_nlink == 0:
            return False
        _append(self._journal, {"key": key})
        self.files.mkdir()
        return True

    def _entries(self, key: str) -> dict[str, FileRecord] | None:
        """The journal's finished files; None if it is malformed or of another job."""
        os.lseek(self._journal, 0, os.SEEK_SET)
        size = os.fstat(self._journal).st_size
        *lines, cut = os.read(self._journal, size).split(b"\n")
        # What was cut off in the middle of a line would spoil the line that comes after it.
        os.ftruncate(self._journal, size - len(cut))
        try:
            entries = [parse_json(line.decode()) for line in lines]
        except ValueError:
            return None
        if not entries or entries[0] != {"key": key}:
            return None
        found: dict[str, FileRecord] = {}
        for entry in entries[1:]:
            if not isinstance(entry, dict):
                return None
            begun, told = "begun" in entry, entry.pop("losses", None)
            name = entry.pop("begun" if begun else "file", None)
            record = {**entry, "origin": "added"} if begun else entry
            if not isinstance(name, str) or not is_record(record) or not isinstance(told, dict):
                return None
            if not all(_are_figures(numbers) for numbers in told.values()):
                return None
            self._told[name] = {tensor: RoundingLoss(*numbers) for tensor, numbers in told.items()}
            if begun:
                self._unfinished[name] = entry["size"], entry["sha256"]
            else:
                found[name] = FileRecord(**entry)
        self._unfinished = {name: noted for name, noted in self._unfinished.items() if name not in found}
        return found

    def _noted_bytes(self, key: str) -> int | None:
        """The bytes that the journal says are there; None if it is malformed or of another job."""
        entries = self._entries(key)
        if entries is None:
            return None
        return sum(entry.size for entry in entries.values()) + sum(size for size, _ in self._unfinished.values())

    def _check(self, entries: dict[str, FileRecord]) -> None:
        """Keep the files that agree with the journal, and remove every other."""
        total = sum(entry.size for entry in entries.values()) + sum(size for size, _ in self._unfinished.values())
        with bar("checking what is there", total, unit="bytes") as progress:
            for name, entry in entries.items():
                path = self.files / name
                if stat.S_ISREG(_kind(path)) and path.stat().st_size == entry.size and sha256(path) == entry.sha256:
                    self.finished[name] = entry
                    self.losses |= self._told[name]
                progress.advance(entry.size)
            for name, (size, digest) in self._unfinished.items():
                begun = _beginning(self.files / name, size, digest)
                if begun is not None:
                    os.truncate(self.files / name, size)
                    self.begun[name] = begun
                    self.losses |= self._told[name]
                progress.advance(size)
        for root, folders, names in os.walk(self.files):
            for name in [*names, *folders]:
                path = Path(root) / name
                # Links go too, so that nothing is written through them.
                name_there = path.relative_to(self.files).as_posix()
                if not stat.S_ISDIR(_kind(path)) and name_there not in self.finished and name_there not in self.begun:
                    path.unlink()


def remove_folder(folder: Path) -> None:
    """Remove one of this package's folders, in spite of repeated Ctrl-C or SIGTERM."""
    for _ in range(3):
        with suppress(KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder, ignore_errors=True)
            return


def is_left_over(folder: Path) -> bool:
    """Whether a folder is an attempt of a process that has ended."""
    if not _NAME.fullmatch(folder.name) or folder.lstat().st_uid != os.geteuid():
        return False
    try:
        journal = os.open(folder / "journal", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return _is_ours(folder, journal) and _lock(journal)
    except BlockingIOError:
        return False
    finally:
        os.close(journal)


def _is_ours(folder: Path, journal: int) -> bool:
    """Whether a folder holds exactly an attempt's entries: its name alone permits no removal."""
    if not stat.S_ISREG(os.fstat(journal).st_mode):
        return False
    try:
        with os.scandir(folder) as entries:
            kinds = {entry.name: stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode) for entry in entries}
    except OSError:
        return False
    if any(name not in _FOLDERS and name != "journal" for name in kinds):
        return False
    if not all(kinds.get(name, True) for name in _FOLDERS):
        return False
    first, whole, _ = os.pread(journal, _MAX_KEY, 0).partition(b"\n")
    if not whole:
        # The process ended before the first line was there, and so before anything else was made.
        return not first and set(kinds) == {"journal"}
    try:
        entry = parse_json(first.decode())
    except ValueError:
        return False
    return isinstance(entry, dict) and entry.keys() == {"key"} and isinstance(entry["key"], str)


def _are_figures(numbers: object) -> bool:
    """Whether a JSON value has the types of a `RoundingLoss`'s fields."""
    return (
        isinstance(numbers, list)
        and len(numbers) == len(fields(RoundingLoss))
        and all(type(number) in (int, float) for number in numbers)
    )


def _beginning(path: Path, size: int, digest: str) -> Begun | None:
    """The first `size` bytes of a file, if they are those of the digest."""
    if not stat.S_ISREG(_kind(path)) or path.stat().st_size < size:
        return None
    whole = hashlib.sha256()
    with open_regular(path) as file:
        for piece in chunks(file, size - size % BUFFER, str(path)):
            whole.update(piece)
        rest = bytes(read_exactly(file, size % BUFFER, str(path)))
    found = whole.copy()
    found.update(rest)
    return Begun(size, whole, rest) if found.hexdigest() == digest else None


def _kind(path: Path) -> int:
    """The mode of a path, links not followed; 0 if nothing is there."""
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _partial(out: Path) -> list[Path]:
    """This user's folders beside an output whose names are those of attempts."""
    name = re.compile(re.escape(f".{out.name}.partial-") + "[0-9a-f]{12}")
    with os.scandir(out.parent) as entries:
        return sorted(Path(entry.path) for entry in entries if name.fullmatch(entry.name) and _is_own(entry))


def _is_own(entry: "os.DirEntry[str]") -> bool:
    try:
        found = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _lock(journal: int) -> bool:
    """Lock a journal; False where the file system has no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


def _append(journal: int, entry: object) -> None:
    line = memoryview((json.dumps(entry) + "\n").encode())
    while line:
        line = line[os.write(journal, line) :]
