"""The bytes of a baked edit under other libraries, threads and features of the processor: a Markdown table.

Each line is a bake in a process of its own. Its digest is the SHA-256 of the names and digests of all files, card and
manifest included; it says whether that is the first line's, and else which files differ.

    python benchmarks/same_bytes.py MODEL DIRECTIONS
    python benchmarks/same_bytes.py MODEL DIRECTIONS --numpy FOLDER_WITH_ANOTHER_NUMPY -- --kind norm-preserving

Kernels of OpenBLAS that the processor cannot run are left out. With --code, another tree of this package is run.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

KERNELS = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "SkylakeX")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_WHICH = """
import numpy
from numpy._core import _multiarray_umath as core
from threadpoolctl import threadpool_info
pools = [each for each in threadpool_info() if each["user_api"] == "blas"]
print(numpy.__version__, [(each["architecture"], each["num_threads"]) for each in pools][0], sep=", ")
print(" ".join(name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]))
rows, other = numpy.random.default_rng(0).standard_normal((2, 300, 896))
assert numpy.isfinite(rows @ other.T).all()
"""


@dataclass(frozen=True)
class Setting:
    """Variables of the environment under which an edit is baked, and their name."""

    name: str
    variables: Mapping[str, str] = field(default_factory=dict)


def settings(kernels: Sequence[str], features: str, other: Path | None) -> list[Setting]:
    """The settings to bake under; which of them this machine can have, is for `which` to say.

    Args:
        kernels: of OpenBLAS.
        features: of the processor, that numpy chooses its loops by.
        other: a folder with another numpy.
    """
    found = [Setting("as it is")]
    found += [Setting(f"{kernel}, 1 thread", _threads(1) | {"OPENBLAS_CORETYPE": kernel}) for kernel in kernels]
    found.append(Setting(f"{kernels[0]}, 2 threads", _threads(2) | {"OPENBLAS_CORETYPE": kernels[0]}))
    if features:
        slow = _threads(1) | {"OPENBLAS_CORETYPE": kernels[0], "NPY_DISABLE_CPU_FEATURES": features}
        found.append(Setting(f"{kernels[0]}, numpy without {features}", slow))
    if other is not None:
        found.append(Setting("another numpy", _threads(2) | {"PYTHONPATH": str(other)}))
    return found


def _threads(count: int) -> dict[str, str]:
    return dict.fromkeys(THREADS, str(count))


def environment(setting: Setting, code: Path) -> dict[str, str]:
    """The variables of a process under a setting."""
    paths = [setting.variables.get("PYTHONPATH"), str(code)]
    return {**os.environ, **setting.variables, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def which(setting: Setting, code: Path) -> tuple[str, str] | None:
    """(numpy, kernel and threads; features of the processor) in use; None where the processor cannot run that."""
    own = environment(setting, code)
    ended = subprocess.run([sys.executable, "-c", _WHICH], env=own, capture_output=True, text=True)
    if ended.returncode:
        return None
    first, second = ended.stdout.splitlines()
    return first, second


def digests(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and SHA-256 of each file in a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                yield path.relative_to(folder).as_posix(), hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a folder or a GGUF file")
    parser.add_argument("directions", type=Path, help="a file of directions")
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), help="of OpenBLAS")
    parser.add_argument("--numpy", type=Path, help="a folder with another numpy, of the same Python")
    parser.add_argument("--code", type=Path, default=ROOT, help="the tree of this package to run (default: this one)")
    parser.add_argument("--folder", type=Path, help="where to work (a temporary folder by default)")
    parser.add_argument("options", nargs="*", help="further options of bake, behind --")
    options = parser.parse_args()
    print(f"`{' '.join(['python', *sys.argv])}`: {platform.machine()}, Python {platform.python_version()}\n")
    print("| setting | numpy, kernel and threads of BLAS | digest of all files | same |\n|---|---|---|---|", flush=True)
    plain = which(Setting("as it is"), options.code)
    if plain is None:
        raise SystemExit("numpy does not run here")
    first: dict[str, str] | None = None
    agrees = True
    for setting in settings(options.kernels, plain[1], options.numpy):
        known = which(setting, options.code)
        if known is None:
            print(f"| {setting.name} | not on this processor | | |", flush=True)
            continue
        with tempfile.TemporaryDirectory(dir=options.folder) as work:
            out = Path(work).resolve() / "out"
            command = [sys.executable, "-m", "weight_edit", "bake", str(options.model.resolve())]
            subprocess.run(
                [
                    *command,
                    "--directions",
                    str(options.directions.resolve()),
                    "--out",
                    str(out),
                    "--quiet",
                    *options.options,
                ],
                # `-m` looks in the current folder first.
                cwd=options.code,
                env=environment(setting, options.code),
                check=True,
                stdout=subprocess.DEVNULL,
            )
            found = dict(digests(out))
            shutil.rmtree(out)
        first = found if first is None else first
        others = sorted(name for name in found.keys() | first.keys() if found.get(name) != first.get(name))
        agrees = agrees and not others
        digest = hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]
        print(f"| {setting.name} | {known[0]} | {digest} | {'yes' if not others else ', '.join(others)} |", flush=True)
    print(f"\n{'All agree.' if agrees else 'They differ.'}", flush=True)
    raise SystemExit(not agrees)


if __name__ == "__main__":
    main()
