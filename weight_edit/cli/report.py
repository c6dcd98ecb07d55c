"""The verb `report`: what a run did, as a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import Json, Overwrite, Quiet

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.report.report import ReportResult


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of `run` or `search`.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The report's folder; report/ in the run's own by default."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a run did: one page with its pictures, made of the run's folder alone; several runs are compared.

    Example: `weight-edit report demo-run`
    """

    def work() -> "ReportResult":
        from weight_edit.report.report import report_runs

        return report_runs(runs, out, overwrite=overwrite)

    def show(result: "ReportResult", console: "Console") -> None:
        from weight_edit.cli.tables.report import report_result

        report_result(result, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet)
