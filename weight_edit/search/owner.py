"""Who works on a unit of a journal: a process on a machine, and whether it is known to have ended."""

import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_GONE = ("Z", "X", "x")
"""States of processes that do nothing any more, though nobody has asked for their exit codes."""

_LARGEST = 2**31 - 1
"""The largest id of a process."""


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: the machine's name.
        machine: what tells it from others of that name, and from itself before it was started anew.
        process: its id.
        start: when it started, as the system counts; None where that is not known. Ids are used again.
        token: of one opening of a journal.
    """

    host: str
    machine: str
    process: int
    start: int | None
    token: str

    @classmethod
    def here(cls) -> "Owner":
        """This process, with a new token."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, process: int) -> "Owner":
        """A process of this machine by its id, with a new token."""
        found = _looked_up(process)
        return cls(socket.gethostname(), machine(), process, found[1] if found else None, secrets.token_hex(6))

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine."""
        return (self.host, self.machine) == (socket.gethostname(), machine())

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended, which can be known of this machine's alone."""
        if not self.is_here:
            return False
        found = _looked_up(self.process)
        if found is None:
            # Some systems have no such folder, or hide other users' processes there.
            return not _answers(self.process)
        return found[0] in _GONE or (self.start is not None and found[1] != self.start)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, entry: Any) -> "Owner":
        """The process that `to_dict` was called on.

        Raises:
            ValueError: the entry is none of `to_dict`'s.
        """
        if not isinstance(entry, dict) or entry.keys() != {each.name for each in fields(cls)}:
            raise ValueError("no process: other keys")
        if not all(isinstance(entry[name], str) for name in ("host", "machine", "token")):
            raise ValueError("no process: a name is no text")
        if type(entry["process"]) is not int or not 0 < entry["process"] <= _LARGEST:
            raise ValueError("no process: its id is none")
        if entry["start"] is not None and type(entry["start"]) is not int:
            raise ValueError("no process: its start is no number")
        return cls(**entry)


@cache
def machine() -> str:
    """What tells this machine from others of its name: the id of its start, and the name space of process ids."""
    known = []
    with suppress(OSError):
        known.append((_PROC / "sys" / "kernel" / "random" / "boot_id").read_text("ascii").strip())
    with suppress(OSError):
        known.append((_PROC / "self" / "ns" / "pid").readlink().name)
    return " ".join(known)


def _looked_up(process: int) -> tuple[str, int] | None:
    """A process's state and start; None where there is no such process."""
    try:
        text = (_PROC / str(process) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The second field is the program's name in parentheses, with any characters.
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _answers(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # Another user's.
        return True
    return True
