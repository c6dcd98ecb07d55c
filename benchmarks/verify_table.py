"""`weight-edit verify --weights-only` against reading both sides once."""

import subprocess
from functools import partial
from pathlib import Path

from making import DIRECTION
from timing import Side, alternate, bake_command, drop_from_cache, environment, peak, seconds


def verify_table(work: Path, size: float, pairs: int) -> None:
    """With both checkpoints on disk alone, and with both in the page cache."""
    base, out, cache = work / "base", work / "edited", work / "cache"
    bake = bake_command("bake", base, "--directions", work / DIRECTION, "--out", out, "--quiet")
    subprocess.run(bake, check=True, env=environment(cache), stdout=subprocess.DEVNULL)
    print(f"\n{size:.2f} GB on either side:\n")
    print("| page cache | verify --weights-only (s) | cat of both (s) | verify / cat: median (range) | peak (MiB) |")
    print("|---|---|---|---|---|")
    for told, before in (("empty", partial(drop_from_cache, base, out)), ("full", None)):
        verify = bake_command("verify", base, out, "--weights-only", "--quiet")
        cat = ["sh", "-c", 'find "$0" "$1" -type f -exec cat {} + > /dev/null', str(base), str(out)]
        found = alternate(Side("verify", verify, before=before), Side("cat", cat, before=before), pairs, cache)
        times = f"{seconds(found.first):.2f} | {seconds(found.second):.2f}"
        print(f"| {told} | {times} | {found.ratio} | {peak(found.first):.0f} |", flush=True)
