"""The peak memory of a command: of what only it holds, and with the files that it has mapped.

`run_sampled` starts it and looks into /proc every few milliseconds (Linux only), so that a peak of a shorter time is
missed. A file that is mapped and read counts in VmRSS while its pages lie in the page cache, which gives them up when
others need memory; RssAnon is what cannot be given up.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

EVERY = 0.004
"""Seconds between two looks."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A command that has ended.

    Attributes:
        code: its exit status.
        seconds: on the clock.
        processor: seconds of processor time, all threads.
        anon_mib: the peak of RssAnon, MiB: memory that no file stands behind.
        rss_mib: the peak of VmRSS, MiB: with the pages of mapped files.
        out, err: what it printed.
    """

    code: int
    seconds: float
    processor: float
    anon_mib: float
    rss_mib: float
    out: str
    err: str


def run_sampled(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, folder: Path | None = None
) -> Sampled:
    """Run a command to its end, and the peak memory of its process; its children are not looked at.

    Args:
        environment, folder: what it runs with and in; the caller's own when None.
    """
    peaks = {"RssAnon": 0, "VmRSS": 0}
    processor = 0.0
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment, cwd=folder)
        while process.poll() is None:
            processor = _look(process.pid, peaks) or processor
            time.sleep(EVERY)
        seconds = time.monotonic() - began
        printed = []
        for stream in (out, err):
            stream.seek(0)
            printed.append(stream.read())
    return Sampled(
        code=process.returncode,
        seconds=seconds,
        processor=processor,
        anon_mib=peaks["RssAnon"] / 1024,
        rss_mib=peaks["VmRSS"] / 1024,
        out=printed[0],
        err=printed[1],
    )


def _look(pid: int, peaks: dict[str, int]) -> float | None:
    """Raise the peaks (KiB) to what the process holds now; its seconds of processor time, None where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name in peaks:
            peaks[name] = max(peaks[name], int(value.split()[0]))
    user, system = stat.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
