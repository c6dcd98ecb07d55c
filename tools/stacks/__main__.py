"""Install inference stacks, each in an environment of its own, and print their names.

    PYTHONPATH=tools python -m stacks [NAME...] [--jobs N]

What is there is left alone; how long each takes and how large it is is told on stderr.
"""

import argparse
import os
import sys

from stacks import llama_cpp
from stacks.environment import STACKS, install, stacks


def main() -> int:
    """Install what is not there."""
    table = stacks()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(table)}; all by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that build llama.cpp")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(table)):
        parser.error(f"{', '.join(unknown)}: not among {', '.join(table)}")
    STACKS.mkdir(exist_ok=True)
    for name in options.names or table:
        if name == "llama-cpp" and not llama_cpp.is_built():
            llama_cpp.build(options.jobs)
        print(install(table[name]), file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
