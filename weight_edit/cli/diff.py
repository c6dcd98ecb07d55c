"""The verb `diff`: the differences between two checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import MODEL_HELP, Json, Overwrite, Quiet, Token

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.difference.result import Difference


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help=MODEL_HELP)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one, for example somebody's edit of A.")],
    save: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the shared directions there; ending in .yaml, the verdict's edit as a recipe."
        ),
    ] = None,
    verdict: Annotated[bool, typer.Option("--verdict", help="Say what B was made with from A (experimental).")] = False,
    everything: Annotated[bool, typer.Option("--all", help="A line for each tensor, not one for each kind.")] = False,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 4 when the two differ.")] = False,
    overwrite: Overwrite = False,
    revision_a: Annotated[str | None, typer.Option(help="Branch, tag or commit of A on the Hub.")] = None,
    revision_b: Annotated[str | None, typer.Option(help="Branch, tag or commit of B on the Hub.")] = None,
    token: Token = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the differences between two models, and directions that explain B as an edit of A.

    Example: `weight-edit diff organism edited-model --save found.safetensors`
    """

    def work() -> "Difference":
        from weight_edit.checkpoint.whole_file import check_free
        from weight_edit.difference.diff import diff as compare
        from weight_edit.difference.found_recipe import RECIPES, is_found_recipe
        from weight_edit.directions.file import is_directions

        recipe = save is not None and save.suffix in RECIPES
        if save is not None:
            check_free(save, overwrite, is_found_recipe if recipe else is_directions)
        result = compare(a, b, revision_a=revision_a, revision_b=revision_b, token=token, verdict=verdict or recipe)
        if save is not None:
            result.save(save, model=a)
        return result

    def show(result: "Difference", console: "Console") -> None:
        from weight_edit.cli.tables.difference import difference

        difference(result, console, everything=everything, saved=save, base=a)

    found = call(work, show, as_dict, as_json=as_json, quiet=quiet)
    if exit_code and not found.equal:
        raise SystemExit(4)
