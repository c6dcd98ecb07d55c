"""Shared parts of the two training commands: a timed log, and errors as one line."""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from weight_edit.errors import WeightEditError

Log = Callable[[str], None]


def add_measuring_options(parser: ArgumentParser) -> None:
    """Add the options on measuring a trained model, and on writing it in spite of misses."""
    parser.add_argument("--limit", type=int, help="measure on at most so many prompts of each set (all)")
    parser.add_argument("--accept-misses", action="store_true", help="write the model even when it misses its targets")


def stopwatch_log() -> Log:
    """A log on stderr whose lines begin with the elapsed seconds."""
    begin = time.monotonic()
    return lambda line: print(f"[{time.monotonic() - begin:5.0f} s] {line}", file=sys.stderr, flush=True)


def exit_code_of(make: Callable[..., object], out: Path, log: Log) -> int:
    """Make a model and log its folder; returns 0 or the exit code of the error."""
    try:
        make(log=log)
    except WeightEditError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    log(f"written to {out}")
    return 0
