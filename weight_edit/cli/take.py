"""The verb `take`: another candidate of a find, as a directions file of its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import call
from weight_edit.cli.options import Json, Overwrite, Quiet

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.edits.direction_rows import DirectionRows


def take(
    directions: Annotated[Path, typer.Argument(metavar="FILE", help="The directions file of a find, or of a run.")],
    layer: Annotated[int, typer.Option(help="Layer of the candidate, as in the table of `find`.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The directions file to write.")],
    position: Annotated[
        int | None, typer.Option(help="Position of the candidate, as there; needed where there are several.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take another candidate of a find than the one that it chose, as a directions file of its own.

    No model is read. The file has the candidate's direction and what `--kind add` adds; what was measured of the
    chosen one alone is not in it.

    Example: `weight-edit take directions.safetensors --layer 3 --position -1 --out other.safetensors`
    """

    def work() -> "DirectionRows":
        from weight_edit.directions.take import take_candidate

        return take_candidate(directions, out, layer=layer, position=position, overwrite=overwrite)

    def show(taken: "DirectionRows", console: "Console") -> None:
        from weight_edit.cli.tables.results import taken_candidate

        taken_candidate(taken, out, console)

    def as_document(taken: "DirectionRows") -> Mapping[str, object]:
        return {"path": str(out), **taken.metadata}

    call(work, show, as_document, as_json=as_json, quiet=quiet)
