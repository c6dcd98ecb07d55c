"""The command line: one file per verb, which reads options, calls a function and prints."""

from weight_edit.cli.entry import main

__all__ = ["main"]
