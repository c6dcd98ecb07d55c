"""Try the newest releases of everything, in an environment of its own, and say what would break.

    python tools/next.py torch==2.13.0

In `.next`, which is made anew, pip installs the newest release of each library that the package or its tests name,
whatever upper bound pyproject.toml gives; torch stays, since a newer one may be a build for other hardware. There the
quick tests run, and every model type of that release of transformers is put to the test; the verdicts are compared with
docs/architectures.json. Exit code 1 when something would break.
"""

import json
import os
import subprocess
import sys
import tomllib
import venv
from itertools import chain
from typing import IO, Any

from lock import EDITABLE, LOCK, ROOT, changes, locked, normal
from packaging.requirements import Requirement

from weight_edit.inspection.catalogue.verdicts import Verdict, Verdicts, differences

ENVIRONMENT = ROOT / ".next"
PYTHON = ENVIRONMENT / "bin" / "python"
FAMILIES = ENVIRONMENT / "families.json"
PIP = ("-m", "pip", "--disable-pip-version-check")
QUIET = ("--quiet", "--quiet")
TESTS = ("-m", "pytest", "-q", "-n", "auto", "--dist", "loadfile", "-p", "no:cacheprovider", "--fast")


def newest(project: dict[str, Any]) -> list[str]:
    """What pyproject.toml asks for, its extras and what builds it included, each without an upper bound."""
    named = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    found = (Requirement(each) for each in named)
    return list(dict.fromkeys(_without_upper_bound(each) for each in found if normal(each.name) != project["name"]))


def _without_upper_bound(requirement: Requirement) -> str:
    lower = ",".join(str(each) for each in requirement.specifier if each.operator in (">=", ">"))
    return f"{requirement.name}{lower}"


def installed() -> dict[str, str]:
    """Distribution -> version, in `.next`; what the environment itself brings along is left out."""
    said = subprocess.run([PYTHON, *PIP, "list", "--format=json"], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {normal(each["name"]): each["version"].partition("+")[0] for each in json.loads(said)}
    return {name: version for name, version in found.items() if name not in ("pip", "weight-edit")}


def run(*arguments: str, stdout: IO[str] | None = None) -> int:
    """Exit code of that environment's Python; it prints where this does, or into a file."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    env = {**kept, "OMP_NUM_THREADS": "1"}
    return subprocess.run([PYTHON, *arguments], cwd=ROOT, env=env, stdout=stdout, check=False).returncode


def install(pins: list[str]) -> int:
    """Make the environment anew; the exit code of `pip check`.

    Raises:
        SystemExit: the newest releases cannot be installed together; pip has said why.
    """
    venv.create(ENVIRONMENT, with_pip=True, clear=True)
    described = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*newest(described["project"]), *described["build-system"]["requires"], EDITABLE, *pins]
    for arguments in (wanted, ["--no-deps", "--no-build-isolation", "--editable", str(ROOT)]):
        if code := run(*PIP, "install", *QUIET, *arguments):
            raise SystemExit(code)
    return run(*PIP, "check")


def families() -> tuple[int, list[Verdict]]:
    """Exit code of trying all model types there, and the verdicts; none where it did not come to any."""
    with FAMILIES.open("w", encoding="utf-8") as file:
        code = run("-m", "weight_edit", "inspect", "--all", "--json", stdout=file)
    trials = json.loads(FAMILIES.read_text(encoding="utf-8"))["trials"] if code in (0, 4) else []
    return code, [Verdict.from_dict(trial) for trial in trials]


def report(codes: dict[str, int], found: list[Verdict]) -> bool:
    """Print what is newer and what it does; whether something would break.

    Args:
        codes: exit code of each thing that was tried.
        found: the verdicts; none where there are none to compare.
    """
    before = Verdicts.read(ROOT / "docs" / "architectures.json")
    changed = differences(before.verdicts, found) if found else []
    print(f"\n{LOCK.name} against the newest releases:", *(changes(locked(), installed()) or ["the same"]), sep="\n  ")
    print(f"families, against {before.transformers}:", *(changed or ["the same"] if found else ["none"]), sep="\n  ")
    for what, code in codes.items():
        print(f"{what}: {f'would break (exit code {code})' if code else 'pass'}")
    return any(codes.values()) or any(each.loss for each in changed)


def main(pins: list[str]) -> None:
    """Install, test, try all families, and report."""
    codes = {"pip check": install(pins), "quick tests": run(*TESTS)}
    codes["families"], found = families()
    raise SystemExit(int(report(codes, found)))


if __name__ == "__main__":
    main(sys.argv[1:])
