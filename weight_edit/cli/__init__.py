"""The command line: one file per verb, each reads its options, calls one function and prints the result."""

from weight_edit.cli.entry import main

__all__ = ["main"]
