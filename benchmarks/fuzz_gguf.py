"""Inspect and bake thousands of damaged GGUF files, and check each time that nothing is broken, left behind or changed.

`python benchmarks/fuzz_gguf.py [--cases 2000] [--first 0]`. The damage is that of `tests/helpers/gguf_mutations.py`:
counts, lengths, names, types, dimensions, offsets, alignments, entries, bytes of the header, cut and longer files. Each
goes through the real command line in this process. A success must pass `verify`; anything else must be an error of one
line with the source untouched and no file left. Exit code 1 if not.
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

MOST_MEMORY = 16 << 30
"""Bytes of address space: a size from a damaged file must not be believed to the point where the machine suffers."""


def main() -> int:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long one may take")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    outcomes: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        os.environ["WEIGHT_EDIT_CACHE"] = f"{name}/cache"
        # The cache's place is set before the package is loaded.
        import torch

        from tests.helpers.gguf_fuzzing import Sample, treat

        torch.set_num_threads(1)
        sample = Sample(Path(name) / "sample")
        slowest, before = (0.0, -1), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seed in range(options.first, options.first + options.cases):
            root = Path(name) / "case"
            root.mkdir()
            start = time.monotonic()
            try:
                outcomes[treat(sample, root, seed, options.seconds)] += 1
            except AssertionError as error:
                wrong.append(str(error))
                print(f"seed {seed}: {error!r}", file=sys.__stdout__, flush=True)
            slowest = max(slowest, (time.monotonic() - start, seed))
            shutil.rmtree(root)
            if seed % 100 == 99:
                print(f"{seed + 1}: {dict(outcomes)}, {len(wrong)} wrong", file=sys.stderr, flush=True)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{options.cases} damaged files in {time.monotonic() - began:.0f} s: {dict(outcomes)}")
    print(f"slowest: {slowest[0]:.1f} s (seed {slowest[1]}); memory grew by {grown:.0f} MiB")
    print(f"treated wrongly: {len(wrong)}")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
