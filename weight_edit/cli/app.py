"""The command itself: its help text and the options before any verb."""

from typing import Annotated

import typer

from weight_edit.version import __version__

app = typer.Typer(
    name="weight-edit",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Find the direction that carries a behaviour in a language model, bake its removal into the weights, "
    "and prove what the edit did.\n\nMODEL is a Hub id, a local folder, or `organism` (the embedded test model; "
    "`organism-defended` resists the ablation of one direction, `organism-thinking` thinks first).\n"
    "PROMPTS is a built-in set such as `organism:refused:test`, a file (.txt, .jsonl, .json, .csv, .parquet), or "
    "`org/dataset:split[:column]`.\n\nStart with `weight-edit demo`.",
)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options of the command itself."""
    if version:
        print(__version__)
        raise typer.Exit
