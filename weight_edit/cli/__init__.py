"""The command line: one file per verb, each reads its options, calls one function and prints the result."""

from weight_edit.cli import bake, diff, run, verify
from weight_edit.cli.app import app
from weight_edit.cli.entry import main
from weight_edit.cli.help_pages import GroupedCommand, say_choices

__all__ = ["app", "bake", "diff", "main", "run", "verify"]

# The order in which --help lists them: that of a user's first day.
ORDER = ("demo", "run", "inspect", "find", "bake", "verify", "evaluate", "diff", "adapter", "push")
for command in app.registered_commands:
    command.cls = GroupedCommand
    assert command.callback is not None
    say_choices(command.callback)
app.registered_commands.sort(key=lambda command: ORDER.index(getattr(command.callback, "__name__", "")))
