"""Processes that are killed at random moments, or work together: what comes of it must be what one alone makes.

A worker is Python source with a function `main(where)` that gives a JSON value, and goes on with what is at `where`.
One process reads the source, with its imports; each run is a fork of it, so that no run imports anything.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

_SERVER = """\
import json, os, signal, sys, traceback
space = {"__name__": "worker"}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), space)
# Those that end are not waited for.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    where, out = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    code = 1
    try:
        os.dup2(os.open(out + ".stderr", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        os.dup2(2, 1)
        content = json.dumps(space["main"](where))
        with open(out + ".part", "w") as file:
            file.write(content)
        os.rename(out + ".part", out)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)
"""

_PATIENCE = 300.0


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        process: its id.
        out: the file that gets its result.
    """

    process: int
    out: Path

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def said(self) -> str:
        """What it wrote on its terminal."""
        return Path(f"{self.out}.stderr").read_text("utf-8")

    def kill(self) -> None:
        """Kill it, as nothing can prevent, and wait until it is gone."""
        try:
            os.kill(self.process, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._wait()

    def result(self) -> Any:
        """What it gives, waited for."""
        self._wait()
        assert self.out.exists(), self.said
        return json.loads(self.out.read_text("utf-8"))

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while self.is_running:
            assert time.monotonic() < until, f"process {self.process} does not end; it said: {self.said}"
            time.sleep(0.002)


class Workers:
    """Runs of one worker.

    Args:
        source: with `main(where)`.
        folder: an empty one for files of this.
        environment: variables beside those of this process.
    """

    def __init__(self, source: str, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "worker.py").write_text(source, "utf-8")
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(folder / "worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        self._runs: list[Run] = []
        assert self._line() == "ready"

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in self._runs:
            run.kill()
        self._server.kill()
        self._server.communicate()

    def start(self, where: str | Path) -> Run:
        """A new process that works at `where`."""
        out = self._folder / f"result-{len(self._runs)}.json"
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps([str(where), str(out)]) + "\n")
        self._server.stdin.flush()
        run = Run(int(self._line()), out)
        self._runs.append(run)
        return run

    def _line(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline().strip()
        assert line, "the worker's source cannot be run; its error is above"
        return line

    def alone(self, where: str | Path) -> Any:
        """What one process gives that nobody disturbs."""
        return self.start(where).result()

    def together(self, where: str | Path, count: int) -> list[Any]:
        """What each of several processes gives that work at one place."""
        return [run.result() for run in [self.start(where) for _ in range(count)]]

    def killed(
        self, places: Iterable[str | Path], kills: int = 20, *, seed: int = 0, longest: float, count: int = 1
    ) -> list[Any]:
        """What the runs give that end in spite of all kills, one for each place that was needed.

        At each place a process is started, killed at a random moment, and started again, until one ends by itself
        before its moment. Then it is the turn of the next place, until there were as many kills as asked for; the
        last run is let go on to its end.

        Args:
            places: as many as are needed, all alike.
            kills: how many.
            longest: seconds after which a process is killed at the latest: a few times less than a run takes.
            count: how many processes work at a place; one of them is killed each time, and all are at the end of it.
        """
        draw = random.Random(seed)
        found: list[Any] = []
        done = 0
        for place in places:
            runs = [self.start(place) for _ in range(count)]
            while True:
                if done == kills:
                    return [*found, *(run.result() for run in runs)]
                moment = time.monotonic() + draw.uniform(0, longest)
                while time.monotonic() < moment and all(run.is_running for run in runs):
                    time.sleep(0.001)
                if not all(run.is_running for run in runs):
                    found += [run.result() for run in runs]
                    break
                runs[draw.randrange(count)].kill()
                done += 1
                runs = [run if run.is_running else self.start(place) for run in runs]
        raise AssertionError(f"{done} of {kills} kills: the places do not suffice")


def all_same(results: Sequence[Any]) -> bool:
    """Whether there are results and all are equal, as JSON texts: so NaN equals NaN."""
    texts = {json.dumps(each) for each in results}
    return len(texts) == 1
