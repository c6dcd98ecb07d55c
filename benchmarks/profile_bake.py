"""Where the time of a bake goes, against what the machine can do, measured in the same run.

`python benchmarks/profile_bake.py [--gigabytes 2.5] [--shard-mb 500]`. The bake runs in a process of its own, with the
package's functions wrapped from outside (`watching.py`). Per thread: "arithmetic" is decoding, mapping and encoding;
"wait" is a lane that has no free buffer, because hashing or the disk is behind. hash_0 and disk_0 stand for all of
their kind.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from limits import limits
from making import DIRECTION, make_checkpoint, make_direction
from timing import bake_command, environment
from watching import Watch


def child(base: str, direction: str, out: str, spawned: float) -> None:
    """Bake, watched; prints what was found as JSON."""
    stamps = {"start of Python, numpy": time.time() - spawned}
    began = time.monotonic()
    import weight_edit.cli.entry  # noqa: F401
    from weight_edit.baking import bake as baking
    from weight_edit.checkpoint.rewrite import attempt, lane, output
    from weight_edit.checkpoint.rewrite.layout import RewritePlan
    from weight_edit.checkpoint.source import reading
    from weight_edit.checkpoint.tensor import mapping

    stamps["imports"] = time.monotonic() - began
    watch = Watch()
    watch.wrap(baking, "resolve", "find the source")
    watch.wrap(baking, "prepare", "headers, anatomy, plan")
    watch.wrap(baking, "check_output", "check of the output")
    watch.wrap(baking, "write_card_and_manifest", "card and manifest")
    watch.wrap(output, "_flush", "flush all files")
    watch.wrap(output, "_put_in_place", "rename")
    key = RewritePlan.key.fget

    def watched_key(plan: RewritePlan) -> Any:
        with watch.doing("key of the plan"):
            return key(plan)

    RewritePlan.key = property(watched_key)
    write = baking.write_checkpoint

    def watched(*args: Any, **options: Any) -> Any:
        with watch.doing("rewrite"):
            return write(*args, **options)

    baking.write_checkpoint = watched
    watch.wrap(reading.Files, "read", "read")
    watch.wrap(attempt.Attempt, "note", "journal")
    watch.wrap(mapping.SlabMap, "_column_sums", "arithmetic")
    watch.wrap(lane.LaneFile, "_drain", "wait")
    watch.wrap(lane.LaneFile, "_put", "write")
    watch.wrap(lane.LaneFile, "finish", "end of a file")
    job = "_lane"
    from weight_edit.checkpoint.rewrite import rewrite

    watch.wrap(rewrite._Job, job, "arithmetic and copies to the buffer")
    _watch_hashing(watch, lane)
    baking.bake(base, direction, out)
    spent = [[*key, time.wall, time.processor, time.calls] for key, time in watch.spent.items()]
    print(json.dumps({"stamps": stamps, "whole": time.time() - spawned, "spent": spent}))


def _watch_hashing(watch: Watch, lane: Any) -> None:
    sha256 = lane.hashlib.sha256

    class Watched:
        def __init__(self) -> None:
            self._digest = sha256()

        def update(self, piece: memoryview) -> None:
            with watch.doing("hash"):
                self._digest.update(piece)

        def hexdigest(self) -> str:
            return self._digest.hexdigest()

    class Hashes:
        sha256 = Watched

    lane.hashlib = Hashes


def show(found: dict[str, Any], size: int, machine: dict[str, float]) -> None:
    """Tables of it."""
    print("\n| what the machine can do | GB/s | seconds for this checkpoint |\n|---|---|---|")
    for name, rate in machine.items():
        print(f"| {name} | {rate:.2f} | {size / 1e9 / rate:.2f} |")
    spent = sorted(((who, kind, *rest) for who, kind, *rest in found["spent"]), key=lambda row: (row[0], -row[2]))
    print("\n| of the whole command | seconds |\n|---|---|")
    print(f"| whole | {found['whole']:.2f} |")
    for name, seconds in found["stamps"].items():
        print(f"| {name} | {seconds:.3f} |")
    for who, kind, wall, _, _ in spent:
        if who == "MainThread":
            print(f"| {kind} | {wall:.3f} |")
    print("\n| thread | work | seconds | of these on a processor | calls |\n|---|---|---|---|---|")
    sums: dict[tuple[str, str], list[float]] = {}
    for who, kind, wall, processor, calls in spent:
        if who == "MainThread":
            continue
        print(f"| {who} | {kind} | {wall:.2f} | {processor:.2f} | {calls} |")
        total = sums.setdefault((who.split("_")[0], kind), [0.0, 0.0])
        total[0] += wall
        total[1] += processor
    for (who, kind), (wall, processor) in sums.items():
        print(f"| all: {who} | {kind} | {wall:.2f} | {processor:.2f} | |")
    busy = sum(processor for _, processor in sums.values())
    print(f"\nProcessor time of the lanes and their helpers: {busy:.2f} s on {os.cpu_count()} processors.")


def main() -> None:
    """As the module says."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:5], float(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.5)
    parser.add_argument("--shard-mb", type=int, default=500)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work = Path(name)
        size = make_checkpoint(work / "base", options.gigabytes, options.shard_mb * 1_000_000)
        make_direction(work / DIRECTION)
        own = environment(work / "cache")
        # The anatomy is proven, and the machine's memory touched, before what is measured.
        warm = bake_command("bake", work / "base", "--directions", work / DIRECTION, "--out", work / "warm", "--quiet")
        subprocess.run(warm, check=True, env=own, stdout=subprocess.DEVNULL)
        subprocess.run(["rm", "-rf", str(work / "warm")], check=True)
        machine = limits(work)
        print(f"{size / 1e9:.2f} GB, load {os.getloadavg()[0]:.1f}")
        command = [sys.executable, __file__, "--child", str(work / "base"), str(work / DIRECTION), str(work / "out")]
        ended = subprocess.run([*command, repr(time.time())], check=True, env=own, capture_output=True, text=True)
        show(json.loads(ended.stdout.splitlines()[-1]), size, machine)


if __name__ == "__main__":
    main()
