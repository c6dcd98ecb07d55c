"""An output under way: a hidden folder beside the output, and a journal of its finished files.

`.NAME.partial-XXXX/` has `files/`, which becomes the output, and `journal`, one JSON line per finished file. Its maker
holds a lock on the journal, which the system lets go when the process ends, however it ends: so a later process knows
whose attempt is dead, and may go on with it (`--resume`) or remove it.
"""

import fcntl
import json
import os
import secrets
import shutil
import threading
from dataclasses import asdict
from pathlib import Path

from weight_edit.checkpoint.files import shown
from weight_edit.checkpoint.manifest import FileRecord, is_record, sha256
from weight_edit.errors import UsageError
from weight_edit.progress import announce, bar


class Attempt:
    """One attempt at an output, locked by this process.

    Attributes:
        folder: the hidden folder.
        files: where the output's files go.
        finished: the files that an earlier process finished, checked by digest.
    """

    def __init__(self, folder: Path, journal: int) -> None:
        self.folder, self.files = folder, folder / "files"
        self.finished: dict[str, FileRecord] = {}
        self._journal = journal
        self._lock = threading.Lock()
        self._noted = 0

    @classmethod
    def begin(cls, out: Path, key: str) -> "Attempt":
        """A new attempt at the output `out`; `key` says what of."""
        name = secrets.token_hex(6)
        # It gets its name when it is locked: one without a lock is taken for dead.
        early = out.parent / f".{out.name}.new-{name}"
        early.mkdir()
        (early / "files").mkdir()
        journal = os.open(early / "journal", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_APPEND, 0o600)
        fcntl.flock(journal, fcntl.LOCK_EX)
        os.write(journal, (json.dumps({"key": key}) + "\n").encode())
        folder = early.rename(out.parent / f".{out.name}.partial-{name}")
        return cls(folder, journal)

    @classmethod
    def dead(cls, out: Path) -> "list[Attempt]":
        """Earlier attempts at `out` whose process has ended, each locked now.

        Raises:
            UsageError: a process that writes `out` is still running.
        """
        found: list[Attempt] = []
        for folder in sorted(out.parent.glob(f".{_escaped(out.name)}.partial-*")):
            try:
                journal = os.open(folder / "journal", os.O_RDWR | os.O_CLOEXEC | os.O_APPEND | os.O_NOFOLLOW)
            except OSError:
                # Not one of ours, or one that is being removed.
                continue
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(journal)
                for attempt in found:
                    attempt.release()
                raise UsageError(
                    f"another process is writing {shown(str(out))}; wait for it, or choose another output"
                ) from None
            found.append(cls(folder, journal))
        return found

    @classmethod
    def open(cls, out: Path, key: str, resume: bool) -> "Attempt":
        """The attempt to work in: where `resume`, the dead one at the same job that has most of it; else a new one.

        Raises:
            UsageError: a process that writes `out` is still running.
        """
        dead = cls.dead(out)
        same = [(len(entries), attempt) for attempt in dead if (entries := attempt._entries(key)) is not None]
        best = max(same, key=lambda pair: pair[0], default=(0, None))[1] if resume else None
        if same and not resume:
            announce(f"removing what an interrupted attempt at {shown(str(out))} left; --resume would go on with it")
        for attempt in dead:
            if attempt is not best:
                attempt.remove()
        if best is None:
            return cls.begin(out, key)
        best._check(best._entries(key) or {})
        best._end_journal()
        return best

    @property
    def worth_keeping(self) -> bool:
        """Whether a later process could go on from it."""
        return bool(self.finished) or self._noted > 0

    def note(self, name: str, record: FileRecord) -> None:
        """A file is finished and on disk."""
        line = json.dumps({"file": name, **asdict(record)}) + "\n"
        with self._lock:
            os.write(self._journal, line.encode())
            os.fsync(self._journal)
            self._noted += 1

    def release(self) -> None:
        """Let the attempt go; it stays where it is."""
        os.close(self._journal)

    def remove(self) -> None:
        """Remove the attempt and all that it wrote."""
        remove_folder(self.folder)
        self.release()

    def _entries(self, key: str) -> dict[str, FileRecord] | None:
        """The finished files by its journal; None when it is of another job or malformed."""
        os.lseek(self._journal, 0, os.SEEK_SET)
        size = os.fstat(self._journal).st_size
        lines = os.read(self._journal, size).split(b"\n")
        try:
            # The last line may have been cut.
            entries = [json.loads(line) for line in lines[:-1]]
        except ValueError:
            return None
        if not entries or entries[0] != {"key": key}:
            return None
        found: dict[str, FileRecord] = {}
        for entry in entries[1:]:
            name = entry.pop("file", None) if isinstance(entry, dict) else None
            if not isinstance(name, str) or not is_record(entry):
                return None
            found[name] = FileRecord(**entry)
        return found

    def _end_journal(self) -> None:
        """Take off a line that was cut, so that the next one does not become a part of it."""
        size = os.fstat(self._journal).st_size
        whole = os.pread(self._journal, size, 0).rfind(b"\n") + 1
        os.ftruncate(self._journal, whole)

    def _check(self, entries: dict[str, FileRecord]) -> None:
        """Keep what is as the journal says, and remove every other file."""
        with bar("checking what is there", sum(entry.size for entry in entries.values()), unit="bytes") as progress:
            for name, entry in entries.items():
                path = self.files / name
                if path.is_file() and path.stat().st_size == entry.size and sha256(path) == entry.sha256:
                    self.finished[name] = entry
                progress.advance(entry.size)
        for root, _, names in os.walk(self.files):
            for name in names:
                path = Path(root) / name
                if path.relative_to(self.files).as_posix() not in self.finished:
                    path.unlink()


def remove_folder(folder: Path) -> None:
    """Remove a folder of ours, also when Ctrl-C is pressed again meanwhile."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)


def _escaped(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
