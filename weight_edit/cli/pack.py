"""The verb `pack`: an edited checkpoint's edit in one small file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import Json, Overwrite, Quiet, Remote, Revision, Token

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.packs.pack import PackResult


def pack(
    edited: Annotated[Path, typer.Argument(metavar="DIR", help="An output of bake or run.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The pack, a .safetensors file.")],
    base: Annotated[str | None, typer.Option(help="What was edited; found by itself if it is in the cache.")] = None,
    reversible: Annotated[
        bool, typer.Option("--reversible", help="Store what rounding lost, too, so that undo gives the base back.")
    ] = False,
    overwrite: Overwrite = False,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the edit of an edited model as a file of some kilobytes, from which `apply` makes the model anew.

    It holds the directions, the steps, and the SHA-256 of every file of the result and of its base.

    Example: `weight-edit pack edited-model --out edit.safetensors`
    """

    def work() -> "PackResult":
        from weight_edit.packs.pack import pack as write

        return write(
            edited,
            out,
            base=base,
            reversible=reversible,
            overwrite=overwrite,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "PackResult", console: "Console") -> None:
        from weight_edit.cli.tables.packs import packed

        packed(result, console, base)

    call(work, show, as_dict, as_json=as_json, quiet=quiet)
