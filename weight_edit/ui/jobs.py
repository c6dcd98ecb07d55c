"""Commands of the command line as processes that go on without the page, and what is known of them from their folders.

A job's folder holds `command.json` (the words, where they ran, the process), `log.jsonl` (stderr) and `result.json`
(stdout). Nothing else is needed to tell how it is with it: another server reads the same.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.errors import UsageError, first_line
from weight_edit.search.owner import Owner
from weight_edit.ui.job_log import JobLog, read_log
from weight_edit.utils.json import parse_json

State = Literal["running", "done", "failed", "stopped", "lost"]
"""How it is with a job: lost is one that ended without a word, killed or with its machine."""

COMMAND, LOG, RESULT = "command.json", "log.jsonl", "result.json"

_MOST_RESULT = 200_000_000
_STOPPED = "stopped"
"""A file in the folder that says that somebody asked the job to stop."""

_TOKEN = "HF_TOKEN"

_children: list[subprocess.Popen[bytes]] = []
"""Those that this process started, to be asked for their exit codes; else they stay as zombies."""


@dataclass(frozen=True)
class Job:
    """A command that was started, as its folder says.

    Everything is read when it is first asked for, and stays so: a job is looked at anew by `read_job`.

    Attributes:
        folder: of the job.
        entry: what `command.json` holds.
    """

    folder: Path
    entry: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The folder's name, such as "03-find"."""
        return self.folder.name

    @property
    def verb(self) -> str:
        """The command's verb."""
        return self.words[0] if self.words else ""

    @property
    def words(self) -> tuple[str, ...]:
        """The command's words behind `weight-edit`."""
        words = self.entry.get("words")
        return tuple(str(word) for word in words) if isinstance(words, list) else ()

    @property
    def out(self) -> Path | None:
        """What it writes; None where it writes nothing."""
        out = self.entry.get("out")
        return Path(out) if isinstance(out, str) else None

    @property
    def began(self) -> float:
        """When it was started, seconds since 1970."""
        began = self.entry.get("began")
        return float(began) if isinstance(began, int | float) else 0.0

    @cached_property
    def owner(self) -> Owner | None:
        """Its process; None where it never had one."""
        try:
            return Owner.from_dict(self.entry.get("process"))
        except ValueError:
            return None

    @cached_property
    def result(self) -> Mapping[str, Any] | None:
        """The document that it printed; None while there is none."""
        try:
            if (self.folder / RESULT).stat().st_size > _MOST_RESULT:
                return None
            found = parse_json((self.folder / RESULT).read_text("utf-8"), constants=True)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @cached_property
    def log(self) -> JobLog:
        """What it said so far."""
        return read_log(self.folder / LOG)

    @cached_property
    def state(self) -> State:
        """How it is with it."""
        for child in list(_children):
            if child.poll() is not None:
                _children.remove(child)
        # No process of another machine, or from before this one was started anew, is known to be alive.
        if self.owner is not None and self.owner.is_here and not self.owner.has_ended:
            return "running"
        # Only what was read behind its end is whole.
        if self.result is not None:
            return "failed" if "error" in self.result and "exit_code" in self.result else "done"
        return "stopped" if (self.folder / _STOPPED).exists() else "lost"

    @property
    def is_stopping(self) -> bool:
        """Whether it is at work and was asked to stop."""
        return self.state == "running" and (self.folder / _STOPPED).exists()

    @property
    def error(self) -> str | None:
        """The line that it failed with; None where it has not."""
        if self.state == "failed" and self.result is not None:
            return str(self.result["error"])
        if self.state == "lost":
            last = self.log.error or (self.log.lines[-1] if self.log.lines else "")
            said = "it ended without a result"
            if self.owner is not None and not self.owner.is_here:
                said = "there is no result, and its process is none that this machine knows since it was started"
            return f"{said}{f': {last}' if last else ''}"
        return None

    @property
    def options(self) -> tuple[str, ...]:
        """The names of the arguments that its error is about."""
        named = self.result.get("options") if self.state == "failed" and self.result is not None else None
        return tuple(str(name) for name in named) if isinstance(named, list) else ()

    @cached_property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        end = time.time()
        if self.state != "running":
            with suppress(OSError):
                end = max((self.folder / name).stat().st_mtime for name in (LOG, RESULT))
        return max(0.0, end - self.began)

    def stop(self) -> None:
        """Ask it to stop, as Ctrl-C does: what is done is kept, what is half done is removed."""
        if self.state != "running" or self.owner is None or not self.owner.is_here:
            return
        (self.folder / _STOPPED).touch()
        with suppress(ProcessLookupError):
            # Its processes are a group of their own, whose number is that of the first.
            os.killpg(self.owner.process, signal.SIGINT)


def read_job(folder: Path) -> Job | None:
    """The job of a folder; None where there is none."""
    try:
        entry = parse_json((folder / COMMAND).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return Job(folder, entry) if isinstance(entry, dict) else None


def read_jobs(folder: Path) -> list[Job]:
    """The jobs in a folder, in the order in which they were started."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []
    found = [read_job(folder / name) for name in names]
    return sorted((job for job in found if job is not None), key=lambda job: (job.began, job.name))


def start_job(
    folder: Path,
    words: Sequence[str],
    *,
    out: Path | None = None,
    token: str | None = None,
    program: Sequence[str] = (sys.executable, "-P", "-m", "weight_edit"),
) -> Job:
    """Start a command as a process of its own, which goes on when this one ends.

    Args:
        folder: of the job; it must not be there yet.
        words: the command's, behind `weight-edit`; none of them may be an access token.
        out: what it writes, which is noted.
        token: Hub access token; it is in the process's environment alone.
        program: what is run with these words; the package of this process, whatever lies in the current folder.

    Raises:
        UsageError: the folder is there, or cannot be written, or the process cannot be started.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
    entry: dict[str, Any] = {
        "words": [*words],
        "out": None if out is None else str(out),
        "began": time.time(),
        "process": None,
    }
    # It has to find what this process does, this package above all, and nothing in the current folder instead.
    places = [*(str(Path(place).absolute()) for place in sys.path if place), str(Path(__file__).parents[2])]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(places)}
    if token:
        environment[_TOKEN] = token
    child = None
    try:
        # Before it runs: what has started is seen, whatever comes between.
        write_whole(folder / COMMAND, json.dumps(entry, indent=1))
        with (folder / LOG).open("xb") as log, (folder / RESULT).open("xb") as result:
            child = subprocess.Popen(
                [*program, *words],
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        entry["process"] = Owner.of(child.pid).to_dict()
        write_whole(folder / COMMAND, json.dumps(entry, indent=1))
    except (OSError, ValueError) as error:
        # A full disk; a NUL, which no word of a command has.
        if child is not None:
            child.kill()
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)
        raise UsageError(f"{words[0]} cannot be started: {printable(first_line(error))}") from error
    _children.append(child)
    return Job(folder, entry)
