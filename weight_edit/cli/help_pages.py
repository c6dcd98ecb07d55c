"""Help pages: options in groups, names never cut off, flags without a value."""

import inspect
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, get_type_hints

import typer.core
from typer.models import ArgumentInfo, OptionInfo

from weight_edit.cli.choices import CHOICES, check, completions
from weight_edit.cli.earlier_words import in_present_words
from weight_edit.cli.log_format import logged_as_json
from weight_edit.cli.option_groups import GROUPS, OTHERS, group_of

if TYPE_CHECKING:
    from rich.console import Console
    from typer._click import Command, Context, HelpFormatter, Parameter

_NAMES = 26
"""The width of the column of names and values; longer ones have their text below."""

_VALUES = {"int": "N", "float": "X", "path": "PATH"}
"""Type -> placeholder of a value; TEXT for other types."""


as_json: ContextVar[bool | None] = ContextVar("as_json", default=None)
"""Whether the running verb was asked for JSON; None before its options are read."""

flags: ContextVar[frozenset[str] | None] = ContextVar("flags", default=None)
"""All flags of the verb that runs; None before its options have been read."""


class RootCommand(typer.core.TyperGroup):
    """The command before any verb."""

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Print the help, with the verbs in the order in which they were registered."""
        from rich.console import Console

        verbs = [(name, _sentence(verb.help)) for name, verb in self.commands.items() if not verb.hidden]
        show(self, ctx, Console(), verbs=verbs)


class VerbCommand(typer.core.TyperCommand):
    """A verb with help drawn here, since typer cuts names off at 80 columns."""

    below: Callable[[], str] = str
    """A function that makes the end of the help."""

    renamed: Sequence[str] = ()
    """Sentences about options that the call has by earlier names."""

    def format_help(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Print the help."""
        from rich.console import Console

        show(self, ctx, Console(), below=self.below())

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        """Read the verb's options, by their earlier names too."""
        known = {name for param in self.params for name in param.opts}
        args, self.renamed = in_present_words(args, known)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: "Context") -> object:
        """Run the verb after its options' names are checked.

        Raises:
            UsageError: one is not.
        """
        as_json.set(bool(ctx.params.get("as_json")))
        flags.set(frozenset(flag for param in self.params for flag in (*param.opts, *param.secondary_opts)))
        check(ctx.params)
        quiet = bool(ctx.params.get("quiet"))
        with logged_as_json(quiet=quiet) if ctx.params.get("log_format") == "json" else nullcontext():
            for note in self.renamed if not quiet else ():
                print(f"note: {note}", file=sys.stderr)
            return super().invoke(ctx)


def say_choices(verb: Callable[..., None]) -> None:
    """Add the possible values of a verb's options to their help and shell completion."""
    for name, hint in get_type_hints(verb, include_extras=True).items():
        for info in getattr(hint, "__metadata__", ()):
            if not isinstance(info, OptionInfo | ArgumentInfo):
                continue
            if name in CHOICES:
                info.metavar = "|".join(CHOICES[name])
            elif name in ("method", "kind"):
                info.metavar = {"method": "METHOD", "kind": "KIND"}[name]
            info.autocompletion = completions(name) or info.autocompletion


def show(
    command: "Command",
    context: "Context",
    console: "Console",
    *,
    verbs: Sequence[tuple[str, str]] = (),
    below: str = "",
) -> None:
    """Print a command's help.

    Usage, text, arguments, verbs, options by group, and what stands below.

    Args:
        command: the verb, or the command before any verb.
        context: the call's.
        console: where to.
        verbs: names of verbs and a sentence about each.
        below: Markdown.
    """
    from rich.markdown import Markdown
    from rich.padding import Padding

    # Braces around an argument are typer's way of saying that it is not optional.
    usage = " ".join(context.get_usage().translate(str.maketrans("", "", "{}")).split())
    console.print(f"\n{usage}\n", style="bold", markup=False, highlight=False)
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    console.print(Padding(Markdown(text), (0, 0, 1, 1)))
    arguments: list[Parameter] = []
    options: list[Parameter] = []
    for param in command.get_params(context):
        if not getattr(param, "hidden", False):
            (options if param.param_type_name == "option" else arguments).append(param)
    _section("Arguments", [_argument(param, context) for param in arguments], console)
    _section("Verbs", verbs, console)
    names = [name for param in options for name in param.opts]
    for title in (*GROUPS, OTHERS):
        members = [param for param in options if group_of(param.opts, names) == title]
        _section(title, [_option(param, context) for param in members], console)
    if below:
        console.print(Padding(Markdown(below), (0, 0, 1, 1)))


def _sentence(text: str | None) -> str:
    """The first paragraph of a help text, without Markdown's code marks."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].replace("`", "").split())


def _section(title: str, rows: Sequence[tuple[str, str]], console: "Console") -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    console.print(title, style="bold cyan", highlight=False)
    for names, text in rows:
        if len(names) > _NAMES - 4:
            console.print(f"  {names}", markup=False, highlight=False, soft_wrap=True)
            console.print(Padding(Text(text), (0, 0, 0, _NAMES)))
            continue
        table = Table.grid(expand=True)
        table.add_column(width=_NAMES, no_wrap=True)
        table.add_column(ratio=1)
        table.add_row(Text(f"  {names}"), Text(text))
        console.print(table)
    console.print()


def _argument(param: "Parameter", context: "Context") -> tuple[str, str]:
    return str(param.metavar or param.name).upper(), _text(param, context)


def _option(param: "Parameter", context: "Context") -> tuple[str, str]:
    """The option's names and its value's placeholder; a flag has none."""
    names = ", ".join(sorted(param.opts, key=len))
    if param.secondary_opts:
        names = f"{names} / {', '.join(param.secondary_opts)}"
    if not getattr(param, "is_flag", False):
        names = f"{names} {_value(param)}"
    return names, _text(param, context)


def _value(param: "Parameter") -> str:
    return str(param.metavar or _VALUES.get(_kind(param), "TEXT"))


def _kind(param: "Parameter") -> str:
    """The name of a parameter's type, whether typer's or click's."""
    name = getattr(getattr(param, "type", None), "name", None)
    annotation = getattr(getattr(param, "type_descriptor", None), "annotation", None)
    return str(name or getattr(annotation, "__name__", "")).lower()


def _text(param: "Parameter", context: "Context") -> str:
    """The help text without Markdown's code marks, with the default if it is informative."""
    said = " ".join((getattr(param, "help", None) or "").replace("`", "").split())
    default = param.get_default(context)
    if param.required:
        return f"{said} [required]"
    if default is None or default is False or default in ("", [], ()):
        return said
    shown = "on" if default is True else str(default)
    return f"{said} [default: {shown}]"
