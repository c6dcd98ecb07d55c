"""Two bakes in one folder at the same time do not disturb one another; two of the same output are refused.

`python benchmarks/two_at_once.py [--gigabytes 5]`: a lone bake, then two at once to other outputs of the same folder,
whose bytes must be the lone one's; then one that is running and a second to the same output. Exit code 1 otherwise.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from making import DIRECTION, make_checkpoint, make_direction
from sameness import digests
from timing import bake_command, environment


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        size = make_checkpoint(work / "base", options.gigabytes) / 1e9
        make_direction(work / DIRECTION)
        print(f"{size:.2f} GB")
        return not (_two_outputs(work) and _one_output(work))


def _start(work: Path, out: str) -> "subprocess.Popen[str]":
    arguments = ("bake", work / "base", "--directions", work / DIRECTION, "--out", work / "outputs" / out, "--quiet")
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(bake_command(*arguments), env=environment(work / "cache"), **pipes)


def _two_outputs(work: Path) -> bool:
    began = time.monotonic()
    lone = _start(work, "lone")
    lone.communicate()
    alone = time.monotonic() - began
    # Only one is kept on disk beside the two.
    whole = digests(work / "outputs" / "lone")
    subprocess.run(["rm", "-rf", str(work / "outputs" / "lone")], check=True)
    began = time.monotonic()
    two = [_start(work, out) for out in ("first", "second")]
    said = [process.communicate()[1] for process in two]
    together = time.monotonic() - began
    same = [digests(work / "outputs" / out) == whole for out in ("first", "second")]
    names = sorted(path.name for path in (work / "outputs").iterdir())
    codes = [process.returncode for process in (lone, *two)]
    print(f"alone (anatomy proven first) {alone:.1f} s; two at once {together:.1f} s; exit codes {codes} {said}")
    print(f"equal the lone bake byte for byte: {same}; in the folder: {names}")
    subprocess.run(["rm", "-rf", str(work / "outputs")], check=True)
    return codes == [0, 0, 0] and all(same) and bool(whole) and names == ["first", "second"]


def _one_output(work: Path) -> bool:
    first = _start(work, "out")
    while not list((work / "outputs").glob(".out.partial-*")) and first.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    second = _start(work, "out")
    said = second.communicate()[1].strip()
    seconds = time.monotonic() - began
    running = first.poll() is None
    first.communicate()
    print(f"a second bake of the same output: exit code {second.returncode} after {seconds:.2f} s, {said!r}", end="")
    print(f"; the first was still running: {running}, and ended with {first.returncode}")
    return running and second.returncode == 2 and "another process is writing" in said and first.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
