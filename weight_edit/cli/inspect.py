"""The verb `inspect`: show a model, prove its anatomy anew, or try every family."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import MODEL_HELP, Json, Quiet, Remote, Revision, Token
from weight_edit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.inspection.catalogue.summary import Catalogue
    from weight_edit.inspection.inspect import Inspection
    from weight_edit.inspection.prove import ProofRounds


def inspect(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP)] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Prove it anew in several rounds, through the disk; exit code 4 if it fails."),
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Instead of MODEL: put every family of transformers to the test.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="TYPE[,TYPE]", help="With --all: these model types alone.")
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="With --all: write the page of families, and beside it their verdicts (JSON)."
        ),
    ] = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what writes to and reads from the residual stream, or why a model is not supported.

    Reads config.json and the headers of the weights; of a Hub model no weights are downloaded.

    Example: `weight-edit inspect organism`
    """
    if everything:
        if model is not None or prove:
            raise UsageError("--all tries every family, so it takes neither MODEL nor --prove")
        _all(only, page, as_json=as_json, quiet=quiet)
        return
    if model is None:
        raise UsageError("name a MODEL, or give --all to try every family")
    if only is not None or page is not None:
        raise UsageError("--only and --page go with --all")
    use = _prove if prove else _look
    use(model, revision=revision, token=token, trust_remote_code=trust_remote_code, as_json=as_json, quiet=quiet)


def _look(
    model: str, *, revision: str | None, token: str | None, trust_remote_code: bool, as_json: bool, quiet: bool
) -> None:
    """Show the anatomy of a model as a tree."""

    def work() -> "Inspection":
        from weight_edit.inspection.inspect import inspect

        return inspect(model, revision=revision, token=token, trust_remote_code=trust_remote_code)

    def show(result: "Inspection", console: "Console") -> None:
        from weight_edit.cli.tables.inspection import inspection

        inspection(result, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet)


def _prove(
    model: str, *, revision: str | None, token: str | None, trust_remote_code: bool, as_json: bool, quiet: bool
) -> None:
    """Prove a model's anatomy in several rounds; exit code 4 if one fails."""

    def work() -> "ProofRounds":
        from weight_edit.inspection.prove import prove_in_rounds

        return prove_in_rounds(model, revision=revision, token=token, trust_remote_code=trust_remote_code)

    def show(result: "ProofRounds", console: "Console") -> None:
        from weight_edit.cli.tables.catalogue import proving

        proving(result, console)

    if not call(work, show, as_dict, as_json=as_json, quiet=quiet).passed:
        raise SystemExit(4)


def _all(only: str | None, page: Path | None, *, as_json: bool, quiet: bool) -> None:
    """Try every family; exit code 4 if one fails."""
    from weight_edit.inspection.catalogue.page_files import check_page, save_page

    types = tuple(filter(None, (only or "").split(",")))
    check_page(page, types)

    def work() -> "Catalogue":
        from weight_edit.inspection.catalogue.summary import inspect_all

        found = inspect_all(only=types)
        save_page(page, found)
        return found

    def show(result: "Catalogue", console: "Console") -> None:
        from weight_edit.cli.tables.catalogue import catalogue

        catalogue(result, console)
        if page is not None and not result.passed:
            said = f"{page} is as it was: what failed has no verdict"
            console.print(said, highlight=False, markup=False, soft_wrap=True)

    if not call(work, show, as_dict, as_json=as_json, quiet=quiet).passed:
        raise SystemExit(4)
