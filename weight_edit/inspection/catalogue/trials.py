"""Trials of the whole catalogue in parallel processes, yielded as they finish."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import IO, cast

from weight_edit.inspection.catalogue.entries import Entry, entries, with_variants
from weight_edit.inspection.catalogue.status import FAILED
from weight_edit.inspection.catalogue.trial import Trial
from weight_edit.utils.names import unknown
from weight_edit.utils.orphans import PIPE, leash

WORKER = "weight_edit.inspection.catalogue.worker"
SLOWEST = 900.0
"""The time limit of a trial in seconds; the slowest takes half a minute on one core."""


def chosen_entries(only: Sequence[str] = ()) -> list[Entry]:
    """All entries with their variants, or only those of the given model types.

    Raises:
        UsageError: a model type that transformers' two mappings do not have.
    """
    known = entries()
    missing = sorted(set(only) - {entry.model_type for entry in known})
    if missing:
        types = sorted({entry.model_type for entry in known})
        raise unknown("model type of transformers for text", missing[0], types)
    return [each for entry in known if not only or entry.model_type in only for each in with_variants(entry)]


def try_all(some: Sequence[Entry], *, processes: int | None = None, patience: float = SLOWEST) -> Iterator[Trial]:
    """Try each entry, in parallel; trials come in the order in which they finish.

    A process that dies, or takes too long, costs the one trial that it was at: that counts as failed.

    Args:
        some: the entries.
        processes: how many at once; as many as there are cores when None.
        patience: seconds that a trial may take.
    """
    waiting = list(reversed(some))
    workers: list[_Worker] = []
    with DefaultSelector() as ready, tempfile.TemporaryFile() as said, leash() as held:
        try:
            for _ in range(min(len(waiting), processes or len(os.sched_getaffinity(0)))):
                workers.append(_Worker.started(waiting.pop(), ready, said, held))
            while workers:
                answered = {key.data for key, _ in ready.select(timeout=1)}
                for place, worker in reversed(list(enumerate(workers))):
                    trial = worker.answer() if worker in answered else worker.given_up(patience)
                    if trial is None:
                        continue
                    yield trial
                    if waiting and worker.process.poll() is None:
                        worker.give(waiting.pop())
                        continue
                    workers.pop(place).stop(ready)
                    if waiting:
                        workers.append(_Worker.started(waiting.pop(), ready, said, held))
        finally:
            for worker in workers:
                worker.stop(ready)


@dataclass(eq=False)
class _Worker:
    """A process that tries one entry at a time."""

    process: "subprocess.Popen[str]"
    said: IO[bytes]
    entry: Entry
    since: float = 0.0

    @classmethod
    def started(cls, entry: Entry, ready: DefaultSelector, said: IO[bytes], held: int) -> "_Worker":
        # It has to find what this process would, this package above all; one thread is all that small models use.
        places = os.pathsep.join(str(Path(place).absolute()) for place in sys.path if isinstance(place, str))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1", PIPE: str(held)},
            pass_fds=(held,),
            text=True,
        )
        worker = cls(process, said, entry)
        ready.register(worker.answers, EVENT_READ, worker)
        worker.give(entry)
        return worker

    @property
    def answers(self) -> IO[str]:
        return cast("IO[str]", self.process.stdout)

    @property
    def tasks(self) -> IO[str]:
        return cast("IO[str]", self.process.stdin)

    def give(self, entry: Entry) -> None:
        self.entry, self.since = entry, time.monotonic()
        # If it has died, its answer will be empty.
        with suppress(BrokenPipeError):
            self.tasks.write(json.dumps(asdict(entry)) + "\n")
            self.tasks.flush()

    def answer(self) -> Trial:
        """The entry's trial as the process sends it, or a failed one if the process ended."""
        line = self.answers.readline()
        if line.endswith("\n"):
            return Trial.from_dict(json.loads(line))
        self.process.wait()
        return self._failed(f"the process that tried it {self._ending()}")

    def given_up(self, patience: float) -> Trial | None:
        """The trial as failed if its time is up, else None."""
        if time.monotonic() - self.since < patience:
            return None
        self.process.kill()
        self.process.wait()
        return self._failed(f"took more than {patience:.0f} s")

    def stop(self, ready: DefaultSelector) -> None:
        ready.unregister(self.answers)
        self.process.kill()
        self.process.wait()
        with suppress(BrokenPipeError):
            self.tasks.close()
        self.answers.close()

    def _failed(self, reason: str) -> Trial:
        return Trial.of(self.entry, FAILED, reason, seconds=time.monotonic() - self.since)

    def _ending(self) -> str:
        if self.process.returncode < 0:
            return f"was killed by signal {-self.process.returncode}, as happens when memory runs out"
        return f"ended with exit code {self.process.returncode}"
