"""The verb `apply`: packed edits made of a base again."""

from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import RESUMED, as_dict, call
from weight_edit.cli.options import (
    AllowNonfinite,
    DryRun,
    Json,
    Link,
    LowDisk,
    Out,
    Overwrite,
    Quiet,
    Remote,
    Resume,
    Revision,
    Token,
)

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.packs.apply import ApplyResult


def apply(
    packs: Annotated[list[str], typer.Argument(metavar="PACK...", help="What pack wrote; several go one by one.")],
    out: Out,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="What the first is applied to, if not what it names.")
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    link: Link = False,
    low_disk: LowDisk = False,
    dry_run: DryRun = False,
    allow_nonfinite: AllowNonfinite = False,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make packed edits of a base again, and compare every file's SHA-256 with the published one.

    On another base than that of the pack, the result is said to be another one.

    Example: `weight-edit apply edit.safetensors --base organism --out edited-again`
    """

    def work() -> "ApplyResult":
        from weight_edit.packs.apply import apply as make

        return make(
            packs,
            out,
            base=base,
            overwrite=overwrite,
            resume=resume,
            link=link,
            low_disk=low_disk,
            dry_run=dry_run,
            allow_nonfinite=allow_nonfinite,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "ApplyResult", console: "Console") -> None:
        from weight_edit.cli.tables.packs import applied

        applied(result, console, base)

    call(work, show, as_dict, as_json=as_json, quiet=quiet, kept=RESUMED)
