"""The verb `push`: an edited model is verified, then uploaded to the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import Device, Json, Quiet, Remote, System, Template, TemplateArg, Token
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.publish.push import PushResult


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An output of bake or run.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="owner/name on the Hub.")],
    base: Annotated[str | None, typer.Option(help="What it was edited from, if it has moved.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
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
            dry_run=dry_run,
            system=system,
            template=template,
            template_args=variables,
            device=device,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "PushResult", console: "Console") -> None:
        from weight_edit.checkpoint.files import printable

        for name, size in sorted(result.files.items()):
            console.print(f"{size:>14,}  {printable(name)}", markup=False, highlight=False)
        for what, names in (("not sent", result.skipped), ("there besides", result.others)):
            if names:
                console.print(f"{what}: {', '.join(map(printable, names))}", markup=False, highlight=False)
        done = f"pushed: {result.url}" if result.url else f"dry run: verified, nothing was sent to {result.repo_id}"
        console.print(done, markup=False)

    call(work, show, as_dict, as_json=as_json, quiet=quiet)
