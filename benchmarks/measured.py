"""Run one command and print, as JSON, its seconds until its output was on disk, of the processor too, and peak memory.

A program of its own that imports next to nothing: what the system counts as the peak of a process begins with that of
whoever started it, so that a measurement from a large process would measure that one.
"""

import json
import os
import resource
import subprocess
import sys
import time


def main() -> int:
    """`measured.py [--sync] COMMAND...`; peak_mib is that of the largest process among the command and its children."""
    command = sys.argv[1:]
    sync = command[0] == "--sync"
    if sync:
        command = command[1:]
        os.sync()
    began = time.monotonic()
    ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if sync:
        os.sync()
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak, processor = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
    if ended.returncode:
        sys.stderr.write(ended.stderr.decode(errors="replace"))
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "processor": processor}))
    return ended.returncode


if __name__ == "__main__":
    raise SystemExit(main())
