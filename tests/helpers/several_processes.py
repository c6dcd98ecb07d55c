"""Processes started together by torch's launcher, as `torchrun` does."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def launch(module: str, arguments: Sequence[object], *, count: int = 2) -> subprocess.Popen[str]:
    """The launcher of so many processes that run a module, each with one thread."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "-m", module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    )


def ours(stderr: str) -> list[str]:
    """The lines that the command line said of what went wrong, without the launcher's."""
    return [line for line in stderr.splitlines() if line.startswith("weight-edit: ")]


def process_of(launcher: subprocess.Popen[str], rank: int) -> int | None:
    """The id of a launcher's process of this number; None where there is none yet."""
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit():
                continue
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher.pid and f"RANK={rank}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    return None
