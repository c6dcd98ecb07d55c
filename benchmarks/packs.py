"""Packs of a real model: sizes, times, memory, and whether all comes out bit for bit, also under other BLAS settings.

    python benchmarks/packs.py MODEL DIRECTIONS [--work FOLDER] [--bake "--embeddings untie"] [--keep]

MODEL is a folder or a GGUF file. It bakes, packs reversibly, applies the pack with one and two threads and as on two
kinds of processors, and undoes it.
"""

import argparse
import filecmp
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = (
    {"OMP_NUM_THREADS": "1"},
    {"OMP_NUM_THREADS": "2"},
    {"OMP_NUM_THREADS": "1", "OPENBLAS_CORETYPE": "Haswell"},
    {"OMP_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Sandybridge"},
)


def verb(*words: object, **settings: str) -> tuple[float, float]:
    """Run a verb in a process of its own; seconds, and the most memory in MiB that it had beyond importing."""
    code = (
        "import resource, sys\nfrom weight_edit.cli.entry import main\n"
        "try:\n    main()\nfinally:\n"
        "    print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words), "-q"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{shlex.join(map(str, words))} ended with {done.returncode}: {done.stderr.strip()}")
    peak = next(float(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("PEAK"))
    return time.monotonic() - began, peak


def same(a: Path, b: Path) -> bool:
    """Whether two folders, or a file and the one in a folder, have the same files byte for byte."""
    if a.is_file():
        return [each.name for each in b.iterdir()] == [a.name] and filecmp.cmp(a, b / a.name, shallow=False)
    names = [sorted(str(each.relative_to(top)) for each in top.rglob("*") if each.is_file()) for top in (a, b)]
    return names[0] == names[1] and all(filecmp.cmp(a / name, b / name, shallow=False) for name in names[0])


def main() -> None:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("directions", type=Path)
    parser.add_argument("--work", type=Path, default=Path("packs-work"))
    parser.add_argument("--bake", default="", help="further options of bake")
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="how many of the settings are tried")
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    edited, small, pack = (given.work / name for name in ("edited", "small.safetensors", "edit.safetensors"))
    more = shlex.split(given.bake)
    print(f"{given.model} {given.directions.name} {given.bake}")
    print(
        "bake: {:.0f} s, {:.0f} MiB".format(
            *verb("bake", given.model, "--directions", given.directions, "--out", edited, *more)
        )
    )
    print("pack: {:.0f} s, {:.0f} MiB".format(*verb("pack", edited, "--out", small, "--base", given.model)), end=", ")
    print(f"{small.stat().st_size / 1000:.1f} kB")
    figures = verb("pack", edited, "--out", pack, "--base", given.model, "--reversible")
    size = given.model.stat().st_size if given.model.is_file() else sum(f.stat().st_size for f in given.model.iterdir())
    print("pack --reversible: {:.0f} s, {:.0f} MiB".format(*figures), end=", ")
    print(f"{pack.stat().st_size / 1e6:.2f} MB, {pack.stat().st_size / size:.2%} of the base")
    for settings in SETTINGS[: given.settings]:
        again = given.work / "again"
        figures = verb("apply", small, "--base", given.model, "--out", again, **settings)
        said = " ".join(f"{key}={value}" for key, value in settings.items())
        print(
            "apply, {}: {:.0f} s, {:.0f} MiB, ".format(said, *figures)
            + ("equal" if same(edited, again) else "DIFFERENT")
        )
        shutil.rmtree(again)
    back = given.work / "back"
    figures = verb("undo", edited, "--pack", pack, "--out", back)
    print("undo: {:.0f} s, {:.0f} MiB, ".format(*figures) + ("equal" if same(given.model, back) else "DIFFERENT"))
    shutil.rmtree(given.work)
    print(f"children's peak: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
