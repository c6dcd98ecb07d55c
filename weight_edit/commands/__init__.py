"""The verbs of the command line: each reads its options, calls one function, and prints the result."""

from weight_edit.commands import check, compare, edit, whole
from weight_edit.commands.app import app

__all__ = ["app", "check", "compare", "edit", "whole"]

# The order in which --help lists them: that of a user's first day.
ORDER = ("demo", "run", "inspect", "find", "bake", "verify", "evaluate", "diff", "adapter", "push")
app.registered_commands.sort(key=lambda command: ORDER.index(getattr(command.callback, "__name__", "")))
