"""The verb `push`: an edited model is verified, then uploaded to the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import KEPT, as_dict, call
from weight_edit.cli.options import Device, Json, Quiet, Remote, System, Template, TemplateArg, Token
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.publish.push import PushResult

SENT = "the commit is there whole or not at all; push again, which sends what the Hub does not have"


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An output of bake or run.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="owner/name on the Hub.")],
    base: Annotated[str | None, typer.Option(help="What it was edited from, if it has moved.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Send nothing unless the repository is private; create it so.")
    ] = False,
    branch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Commit to this branch, created if missing; or to refs/pr/N."),
    ] = None,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Open a pull request instead of a commit.")] = False,
    pack: Annotated[bool, typer.Option("--pack", help="Publish the edit alone: some kilobytes, for apply.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and list, upload nothing.")] = False,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    device: Device = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify an edited model, then upload it to the Hub.

    Example: `weight-edit push demo-run/model your-name/your-model --dry-run`
    """

    def work() -> "PushResult":
        from weight_edit.prompts.templates import template_args

        variables = template_args(template_arg)
        # Takes seconds to import: what is wrong with the call is said at once.
        with starting():
            from weight_edit.publish.push import push as upload

        return upload(
            folder,
            repo_id,
            base=base,
            private=private,
            branch=branch,
            create_pr=create_pr,
            pack=pack,
            dry_run=dry_run,
            system=system,
            template=template,
            template_args=variables,
            device=device,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "PushResult", console: "Console") -> None:
        from weight_edit.cli.tables.push import push_result

        push_result(result, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet, kept=KEPT if dry_run else SENT)
