"""The verb `ui`: the whole job on a page in a browser, on this machine alone."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from weight_edit.cli.options import Json


def ui(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The folder of a run, to be opened; none if absent.")
    ] = None,
    folder: Annotated[
        Path, typer.Option(metavar="DIR", help="Where projects are: what was chosen, jobs, and what they wrote.")
    ] = Path("weight-edit-ui"),
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="The address to listen on; others than this machine's own are warned of."),
    ] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(metavar="N", help="The port; the first free one from 7860 on if absent.")
    ] = None,
    opened: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    as_json: Json = False,
) -> None:
    """Serve a page on this machine where the whole job is done, each step with its command; work goes on without it.

    Example: `weight-edit ui`
    """
    from weight_edit.ui.server import serve

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def ready(facts: Mapping[str, object]) -> None:
        if as_json:
            print(json.dumps(facts, indent=2), flush=True)

    opens = None if run is None else str(run)
    serve(folder, host=host, port=port, run=opens, opened=opened, say=say, ready=ready)
