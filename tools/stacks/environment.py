"""Environments of the stacks: one each in `.stacks/`, made with pip by package names, and what is there told."""

import os
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
_TABLE = Path(__file__).with_name("versions.toml")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A row of the table of versions.

    Attributes:
        name: as `make stacks STACKS="..."` takes it.
        title: as its makers write it.
        loads: what of a checkpoint it is given, and in what precision it computes.
        packages: what pip is asked for; none of one that runs in the package's own environment.
        without: packages that those bring along and that are taken out again.
        torch: whether its environment needs torch, whose build for processors is then installed first.
        version: of what no package says.
        of_package: whether it runs in the package's own environment.
    """

    name: str
    title: str
    loads: str
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

    def is_installed(self) -> bool:
        """Whether its environment is there, whole, and of these versions."""
        stamp = self.folder / "installed"
        return self.of_package or (stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == self.wanted)


def stacks() -> dict[str, Stack]:
    """All stacks of the table by name."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: Stack(name=name, **row) for name, row in table.items()}


def install(stack: Stack) -> str:
    """Make a stack's environment where it is not there; what was done, with time and size.

    Raises:
        SystemExit: pip fails.
    """
    if stack.is_installed():
        return f"{stack.name}: there"
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
    done = subprocess.run(command, check=False, stdout=sys.stderr)
    if done.returncode:
        raise SystemExit(f"{stack.name}: pip failed with the exit code {done.returncode}")
