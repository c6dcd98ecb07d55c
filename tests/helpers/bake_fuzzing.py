"""One damaged checkpoint through the whole of `bake`, and what must be so after it, whatever was damaged."""

import os
import stat
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.helpers.families import save_family
from tests.helpers.mutations import mutate, time_limit, write
from weight_edit import bake
from weight_edit.errors import WeightEditError
from weight_edit.verification.verify import verify

SECONDS = 60.0


class Sample:
    """A small model in some layouts, each as its files."""

    def __init__(self, root: Path) -> None:
        self.layouts: list[dict[str, bytes]] = []
        for name, options in (("single", {}), ("sharded", {"max_shard_size": "60KB"})):
            folder = save_family("llama-tied" if name == "single" else "llama", root / name, **options)
            self.layouts.append({path.name: path.read_bytes() for path in folder.iterdir()})
        row = np.random.default_rng(0).standard_normal((1, 64))
        self.directions = root / "direction.safetensors"
        save_file({"direction": (row / np.linalg.norm(row)).astype(np.float32)}, self.directions)


class Wrong(AssertionError):
    """A damaged checkpoint was not treated as it should be; the message says which and how."""


def bake_damaged(sample: Sample, root: Path, seed: int, seconds: float = SECONDS) -> str:
    """Damage a checkpoint, bake it, and check what came of it.

    Args:
        root: an empty folder.
        seed: of the damage.
        seconds: how long it may take.

    Returns:
        "baked", or the class of the error that refused it.

    Raises:
        Wrong: a traceback, a message of several lines, an output or other files left, a source that changed, or an
            output that verify does not accept.
    """
    base, work, scratch = root / "base", root / "work", root / "scratch"
    write(base, sample.layouts[seed % len(sample.layouts)])
    what = f"seed {seed}: {mutate(base, seed)}"
    before = state(base)
    work.mkdir()
    scratch.mkdir()
    began = time.monotonic()
    outcome, error = _outcome(lambda: bake(base, sample.directions, work / "out"), scratch, seconds)
    if time.monotonic() - began > seconds:
        raise Wrong(f"{what}: took {time.monotonic() - began:.0f} s and ended with {error!r}")
    if state(base) != before:
        raise Wrong(f"{what}: the source changed ({error!r})")
    if error is None:
        report = verify(base, work / "out", weights_only=True)
        if not report.passed:
            raise Wrong(f"{what}: baked, and verify says {report.problems}")
    elif not isinstance(error, WeightEditError):
        raise Wrong(f"{what}: {error!r}") from error
    elif len(str(error).splitlines()) != 1 or not str(error).isprintable():
        raise Wrong(f"{what}: not one plain line: {str(error)!r}")
    elif list(work.iterdir()):
        raise Wrong(f"{what}: left {list(work.rglob('*'))} behind after {error!r}")
    if list(scratch.iterdir()):
        raise Wrong(f"{what}: left {list(scratch.iterdir())} in the folder for temporary files")
    return outcome


def _outcome(work: Callable[[], object], scratch: Path, seconds: float) -> tuple[str, BaseException | None]:
    """Do it with temporary files of its own and warnings as errors of the test; what came of it."""
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        with warnings.catch_warnings(), time_limit(seconds):
            warnings.filterwarnings("error", category=RuntimeWarning)
            work()
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001
        return type(error).__name__, error
    finally:
        tempfile.tempdir = before
    return "baked", None


def state(folder: Path) -> dict[str, tuple[int, object]]:
    """Every file, folder, link and pipe below a folder: its mode, and its bytes or where it leads."""
    found: dict[str, tuple[int, object]] = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root) / name
            mode = path.lstat().st_mode
            held: object = None
            if stat.S_ISLNK(mode):
                held = os.readlink(path)  # noqa: PTH115
            elif stat.S_ISREG(mode):
                held = path.read_bytes()
            found[str(path.relative_to(folder))] = (mode, held)
    return found
