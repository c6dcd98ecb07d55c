"""Environments of the stacks: one each in `.stacks/`, made with pip by package names, and what is there told."""

import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STACKS = Path(os.environ.get("WEIGHT_EDIT_STACKS") or ROOT / ".stacks")
TORCH = "torch==2.13.0"
LIMIT = 3600
"""Seconds that pip may take."""
_VERSIONS = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
_TABLE = Path(__file__).with_name("versions.toml")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A row of the table of versions.

    Attributes:
        name: as `make stacks STACKS="..."` takes it.
        title: as its makers write it.
        loads: what of a checkpoint it is given.
        precision: what it computes in, as `precision.PRECISIONS` has it.
        packages: what pip is asked for; none of one that runs in the package's own environment.
        without: packages that those bring along and that are taken out again.
        torch: whether its environment needs torch, whose build for processors is then installed first.
        version: of what no package says.
        of_package: whether it runs in the package's own environment.
    """

    name: str
    title: str
    loads: str
    precision: str = "float32"
    packages: Sequence[str] = ()
    without: Sequence[str] = ()
    torch: bool = False
    version: str | None = None
    of_package: bool = False

    @property
    def folder(self) -> Path:
        """Its environment."""
        return STACKS / self.name

    @property
    def python(self) -> Path:
        """The program that runs its scripts."""
        return Path(sys.executable) if self.of_package else self.folder / "bin" / "python"

    @property
    def wanted(self) -> str:
        """What has to be installed, as the stamp of an environment says it."""
        return "\n".join([*([TORCH] if self.torch else []), *self.packages])

    def absence(self) -> str | None:
        """Why its environment is none, or not the one that is asked for; None where it is.

        What the stamp says is not believed: the environment's own Python is asked for the versions that it has.
        """
        if self.of_package:
            return None
        stamp = self.folder / "installed"
        if not stamp.is_file():
            return "no environment, or one that was not finished"
        if stamp.read_text(encoding="utf-8").strip() != self.wanted:
            return "an environment of other versions"
        wanted = dict(_name_and_version(line) for line in self.wanted.splitlines())
        try:
            command = [str(self.python), "-c", _VERSIONS, *wanted]
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"its Python does not run: {type(error).__name__}"
        # A build for processors has a mark of its own behind the version.
        found = [version.partition("+")[0] for version in done.stdout.split()]
        if done.returncode or found != list(wanted.values()):
            return f"its Python has not {', '.join(self.wanted.splitlines())}"
        return None


def _name_and_version(requirement: str) -> tuple[str, str]:
    found = re.fullmatch(r"([\w.-]+)(?:\[.*\])?==(\S+)", requirement)
    assert found, requirement
    return found[1], found[2]


def stacks() -> dict[str, Stack]:
    """All stacks of the table by name."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: Stack(name=name, **row) for name, row in table.items()}


def install(stack: Stack) -> str:
    """Make a stack's environment where it is not there; what was done, with time and size.

    Raises:
        SystemExit: pip fails, or takes too long.
    """
    absence = stack.absence()
    if absence is None:
        return f"{stack.name}: there"
    print(f"{stack.name}: {absence}", file=sys.stderr, flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(stack.folder)], check=True)
    pip = [str(stack.python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    if stack.torch:
        index = os.environ.get("TORCH_INDEX")
        _run(stack, [*pip, TORCH, *(["--index-url", index] if index else [])])
    _run(stack, [*pip, *stack.packages, *([TORCH] if stack.torch else [])])
    if stack.without:
        _run(stack, [*pip[:-1], "uninstall", "--yes", *stack.without])
    (stack.folder / "installed").write_text(f"{stack.wanted}\n", encoding="utf-8")
    size = sum(each.stat().st_size for each in stack.folder.rglob("*") if each.is_file() and not each.is_symlink())
    return f"{stack.name}: installed in {time.monotonic() - start:.0f} s, {size / 1e6:.0f} MB"


def _run(stack: Stack, command: list[str]) -> None:
    try:
        done = subprocess.run(command, check=False, stdout=sys.stderr, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{stack.name}: pip took longer than {LIMIT} s") from None
    if done.returncode:
        raise SystemExit(f"{stack.name}: pip failed with the exit code {done.returncode}")
