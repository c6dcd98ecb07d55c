"""Build llama.cpp's own server into `.stacks/`, which `make stacks` checks this package against.

    python tools/stacks.py [--jobs N]

The sources are those that llama.cpp's Python package brings along, whose source distribution pip fetches from the
index that it is set up for. A build takes about nine minutes on two processors, more on busy ones; one that was
interrupted goes on, and nothing is built again while `.stacks/bin/llama-server` is of the same release. Needs cmake,
ninja and a C++ compiler; no model and no other library is downloaded. The path of the program is printed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STACKS = ROOT / ".stacks"
PROGRAM = STACKS / "bin" / "llama-server"
RELEASE = "0.3.36"
"""The release of llama-cpp-python; it decides the version of llama.cpp."""

_NAME = f"llama_cpp_python-{RELEASE}"
_NEEDED = ("cmake", "ninja", "c++")
_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # One file that can be moved.
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "ON",
    # What would look for libraries or download.
    "GGML_CCACHE": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
}


def is_built() -> bool:
    """Whether the program of this release is there."""
    stamp = STACKS / "release"
    return PROGRAM.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == RELEASE


def fetch() -> Path:
    """The folder of llama.cpp's sources, fetched and unpacked where it is not there."""
    sources = STACKS / _NAME
    if not (sources / ".whole").is_file():
        archive = STACKS / f"{_NAME}.tar.gz"
        if not archive.is_file():
            say(f"fetching the sources of llama-cpp-python {RELEASE}")
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
            command = [*pip, "--no-binary", ":all:", "--dest", str(STACKS), f"llama-cpp-python=={RELEASE}"]
            subprocess.run(command, check=False)
        if not archive.is_file():
            raise SystemExit(f"pip left no {archive.name}; put it into {STACKS} by hand, and start again")
        with tarfile.open(archive) as packed:
            packed.extractall(STACKS, filter="data")
        (sources / ".whole").touch()
    return sources / "vendor" / "llama.cpp"


def build(jobs: int) -> None:
    """Configure, build and put the program in its place.

    Raises:
        SystemExit: a tool is missing, or a step fails.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise SystemExit(f"{', '.join(missing)} not found: install cmake, ninja and a C++ compiler")
    STACKS.mkdir(exist_ok=True)
    sources, folder = fetch(), STACKS / f"build-{RELEASE}"
    say(f"building llama.cpp's server with {jobs} processes; the first time it takes about nine minutes")
    options = [f"-D{name}={value}" for name, value in _OPTIONS.items()]
    run("cmake", "-G", "Ninja", "-S", str(sources), "-B", str(folder), *options, quiet=True)
    run("cmake", "--build", str(folder), "--target", "llama-server", "--parallel", str(jobs))
    PROGRAM.parent.mkdir(exist_ok=True)
    shutil.copy2(folder / "bin" / "llama-server", PROGRAM)
    (STACKS / "release").write_text(f"{RELEASE}\n", encoding="utf-8")


def run(*command: str, quiet: bool = False) -> None:
    """One step; its output is kept for the case that it fails where it is `quiet`.

    Raises:
        SystemExit: it fails.
    """
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {"stdout": sys.stderr}
    done = subprocess.run(command, check=False, text=True, **kept)
    if done.returncode:
        raise SystemExit((done.stdout or "") + f"{' '.join(command[:2])} failed with the exit code {done.returncode}")


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Build what is not there; print the program's path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if not is_built():
        build(options.jobs)
    print(PROGRAM)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
