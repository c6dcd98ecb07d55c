"""Bake thousands of damaged checkpoints, and check each time that nothing is broken, left behind or changed.

`python benchmarks/fuzz_bake.py [--cases 2000] [--first 0]`. The damage is that of `tests/checkpoint/mutations.py`:
headers, offsets, index, config, cut and longer files, flipped bits, missing files, links and pipes. A success must pass
verify; anything else must be an error of one line with the source untouched and no file left. Exit code 1 if not.
"""

import argparse
import collections
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

MOST_MEMORY = 12 << 30


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long one may take")
    options = parser.parse_args()
    # A size from a damaged file must not be believed to the point where the machine suffers.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    outcomes: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.environ["WEIGHT_EDIT_CACHE"] = f"{name}/cache"
        # The cache's place is set before the package is loaded.
        from tests.helpers.bake_fuzzing import Sample, Wrong, bake_damaged

        sample = Sample(Path(name) / "sample")
        slowest = (0.0, -1)
        for seed in range(options.first, options.first + options.cases):
            root = Path(name) / "case"
            root.mkdir()
            start = time.monotonic()
            try:
                outcomes[bake_damaged(sample, root, seed, options.seconds)] += 1
            except Wrong as error:
                wrong.append(str(error))
                print(error, flush=True)
            slowest = max(slowest, (time.monotonic() - start, seed))
            shutil.rmtree(root)
            if seed % 100 == 99:
                print(f"{seed + 1}: {dict(outcomes)}, {len(wrong)} wrong", file=sys.stderr, flush=True)
    print(f"{options.cases} damaged checkpoints in {time.monotonic() - began:.0f} s: {dict(outcomes)}")
    print(f"slowest: {slowest[0]:.1f} s (seed {slowest[1]}); treated wrongly: {len(wrong)}")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
