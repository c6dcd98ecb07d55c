"""Renew requirements.lock: the newest releases that pyproject.toml's ranges allow, with torch at one release.

    python tools/lock.py torch==2.13.0

What is resolved is everything that set-up installs: the package with its tests' extra, and what builds it. Nothing is
installed and no environment changes; pip, in an environment of its own, says what it would install. Each line of the
lock is `name==version`, in alphabetical order, without an address, so that it holds on every index; what follows a "+"
(the build of torch) is left out, so that a machine's own build is taken.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
HEAD = """\
# What set-up installs (`make install`), all of it: made by `make lock`, not by hand. For Python 3.11; users get the
# ranges of pyproject.toml.
"""
EDITABLE = "editables"
"""What hatchling asks for beside itself, to install in place."""


def resolved(python: Path, pins: list[str]) -> dict[str, str]:
    """Distribution -> version: what pip would install into an empty environment.

    Raises:
        SystemExit: pip finds no releases that go together; it has said why.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [f"{ROOT}[test]", *project["build-system"]["requires"], EDITABLE, *pins]
    command = [str(python), "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dry-run", "--ignore-installed", "--report", "-", *wanted],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    found = (entry["metadata"] for entry in json.loads(done.stdout)["install"])
    own = normal(project["project"]["name"])
    return {normal(each["name"]): each["version"].partition("+")[0] for each in found if normal(each["name"]) != own}


def normal(name: str) -> str:
    """A distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked() -> dict[str, str]:
    """Distribution -> version, as the lock has it."""
    lines = LOCK.read_text(encoding="utf-8").splitlines() if LOCK.exists() else []
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def text_of(versions: dict[str, str]) -> str:
    """The lock's content."""
    return HEAD + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def changes(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """A line for each distribution that is new, gone, or of another version."""
    names = sorted(before.keys() | after.keys())
    pairs = ((name, before.get(name, "none"), after.get(name, "none")) for name in names)
    return [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]


def main(pins: list[str]) -> None:
    """Resolve, write the lock, and say what changed."""
    before = locked()
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        after = resolved(Path(folder) / "bin" / "python", pins)
    LOCK.write_text(text_of(after), encoding="utf-8")
    print("\n".join(changes(before, after)) or "nothing changed", f"\n{LOCK.name}: {len(after)} distributions", sep="")


if __name__ == "__main__":
    main(sys.argv[1:])
