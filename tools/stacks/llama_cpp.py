"""llama.cpp's own server, built into `.stacks/`, and its converter beside it.

The sources are those that llama.cpp's Python package brings along, whose source distribution pip fetches from the
index that it is set up for. A build takes about nine minutes on two processors, more on busy ones; one that was
interrupted goes on, and nothing is built again while `.stacks/bin/llama-server` is of the same release. Needs cmake,
ninja and a C++ compiler; no model and no other library is downloaded.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from stacks.environment import STACKS, stacks

PROGRAM = STACKS / "bin" / "llama-server"
RELEASE = stacks()["llama-cpp"].version
"""The release of llama-cpp-python; it decides the version of llama.cpp."""

_NAME = f"llama_cpp_python-{RELEASE}"
LIMIT = 7200
"""Seconds that one step of the build may take."""
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


def program() -> Path:
    """The server: what `WEIGHT_EDIT_LLAMA_SERVER` names, or what is built here."""
    return Path(os.environ.get("WEIGHT_EDIT_LLAMA_SERVER") or PROGRAM)


def converter() -> Path:
    """The converter that comes with the sources: what `WEIGHT_EDIT_GGUF_CONVERTER` names, or the one here."""
    named = os.environ.get("WEIGHT_EDIT_GGUF_CONVERTER")
    return Path(named) if named else STACKS / _NAME / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py"


def fetch() -> Path:
    """The folder of llama.cpp's sources, fetched and unpacked where it is not there."""
    sources = STACKS / _NAME
    if not (sources / ".whole").is_file():
        archive = STACKS / f"{_NAME}.tar.gz"
        if not archive.is_file():
            say(f"fetching the sources of llama-cpp-python {RELEASE}")
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
            command = [*pip, "--no-binary", ":all:", "--dest", str(STACKS), f"llama-cpp-python=={RELEASE}"]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, check=False, timeout=LIMIT)
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
        SystemExit: it fails, or takes too long.
    """
    kept = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if quiet else {"stdout": sys.stderr}
    try:
        done = subprocess.run(command, check=False, text=True, timeout=LIMIT, **kept)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"{' '.join(command[:2])} took longer than {LIMIT} s") from None
    if done.returncode:
        raise SystemExit((done.stdout or "") + f"{' '.join(command[:2])} failed with the exit code {done.returncode}")


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr, flush=True)
