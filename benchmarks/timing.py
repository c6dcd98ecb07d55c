"""Commands timed against one another, alternating, and the page cache emptied of some files."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MEASURED = Path(__file__).resolve().parent / "measured.py"


@dataclass(frozen=True)
class Run:
    """Seconds on the clock, the peak memory (MiB) of the largest process, and seconds of the processor."""

    seconds: float
    peak_mib: float
    processor: float = 0.0


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        name: for the table.
        command: what is run.
        out: the folder it makes, removed after each run; None when it makes none.
        before: done before each run, outside of the measured time.
    """

    name: str
    command: Sequence[str]
    out: Path | None = None
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Compared:
    """Runs of two sides in turn."""

    first: tuple[Run, ...]
    second: tuple[Run, ...]

    @property
    def ratios(self) -> list[float]:
        """Of each pair."""
        return [one.seconds / other.seconds for one, other in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> str:
        """Their median, least and greatest, for a table."""
        return spread(self.ratios)


def spread(values: Sequence[float]) -> str:
    """The median of some numbers, the least and the greatest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def seconds(runs: Sequence[Run]) -> float:
    """The median."""
    return statistics.median(run.seconds for run in runs)


def peak(runs: Sequence[Run]) -> float:
    """The greatest, MiB."""
    return max(run.peak_mib for run in runs)


def bake_command(*arguments: str | Path) -> list[str]:
    """`weight-edit`, of this working tree."""
    return [sys.executable, "-m", "weight_edit", *map(str, arguments)]


def environment(cache: Path) -> dict[str, str]:
    """This working tree's package, and a cache of its own."""
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), "WEIGHT_EDIT_CACHE": str(cache)}


def run(side: Side, cache: Path) -> Run:
    """Once; what it wrote is on disk at the end of the measured time, and removed after it."""
    if side.before is not None:
        side.before()
    sync = ["--sync"] if side.out is not None else []
    found = subprocess.run(
        [sys.executable, "-S", "-E", str(MEASURED), *sync, *side.command],
        check=True,
        capture_output=True,
        text=True,
        env=environment(cache),
    )
    if side.out is not None:
        shutil.rmtree(side.out)
    return Run(**json.loads(found.stdout))


def alternate(first: Side, second: Side, pairs: int, cache: Path, warm_up: bool = True) -> Compared:
    """Both in turn; the first pair is not counted, since it pays for memory that is touched for the first time."""
    runs: list[tuple[Run, Run]] = []
    for number in range(-1 if warm_up else 0, pairs):
        pair = run(first, cache), run(second, cache)
        told = "not counted" if number < 0 else f"pair {number + 1}"
        print(f"{told}: {first.name} {pair[0].seconds:.2f} s, {second.name} {pair[1].seconds:.2f} s", file=sys.stderr)
        if number >= 0:
            runs.append(pair)
    return Compared(tuple(one for one, _ in runs), tuple(other for _, other in runs))


def drop_from_cache(*folders: Path) -> None:
    """Take every file of some folders out of the page cache."""
    os.sync()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
