"""The verb `demo`: the whole job on the embedded model."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import KEPT, RESUMED, call
from weight_edit.cli.options import Json, Out, Overwrite, Quiet
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.runs.run import RunResult


def demo(
    out: Out = Path("demo-run"),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted one; done steps are kept.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find, bake, prove and measure, end to end, on the embedded model: about a minute, no download.

    Example: `weight-edit demo --out demo-run`
    """

    def work() -> "RunResult":
        from weight_edit.runs.folder import check_run_folder

        check_run_folder(out, resume=resume, overwrite=overwrite)
        # Takes seconds to import: what is wrong with the folder is said at once.
        with starting():
            from weight_edit.runs.demo import demo as run_demo

        return run_demo(out, resume=resume, overwrite=overwrite)

    def show(result: "RunResult", console: "Console") -> None:
        from weight_edit.cli.tables.run import run_result

        run_result(result, console)

    def as_document(result: "RunResult") -> Mapping[str, object]:
        from weight_edit.runs.demo import document

        return document(result)

    def kept() -> str:
        from weight_edit.runs.folder import has_run

        return RESUMED if has_run(out) else KEPT

    call(work, show, as_document, as_json=as_json, quiet=quiet, kept=kept, live=True)
