"""The verb `undo`: the base of an edited checkpoint, bit for bit."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import RESUMED, as_dict, call
from weight_edit.cli.options import DryRun, Json, Out, Quiet, Resume, Token

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.packs.undo import UndoResult


def undo(
    edited: Annotated[Path, typer.Argument(metavar="DIR", help="An output of bake, run or apply.")],
    pack: Annotated[str, typer.Option(metavar="PACK", help="What pack wrote of it with --reversible.")],
    out: Out,
    resume: Resume = False,
    dry_run: DryRun = False,
    token: Token = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give the base of an edited model back, bit for bit, of a pack that was made reversible.

    Every file's SHA-256 is compared with the base's.

    Example: `weight-edit undo edited-model --pack edit.safetensors --out base-again`
    """

    def work() -> "UndoResult":
        from weight_edit.packs.undo import undo as restore

        return restore(edited, pack, out, resume=resume, dry_run=dry_run, token=token)

    def show(result: "UndoResult", console: "Console") -> None:
        from weight_edit.cli.tables.packs import undone

        undone(result, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet, kept=RESUMED)
