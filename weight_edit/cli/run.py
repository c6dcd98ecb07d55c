"""The verbs that do the whole job, and the one that publishes it: demo, run, push."""

from pathlib import Path
from typing import Annotated, Any

import typer

from weight_edit.cli.app import app
from weight_edit.cli.call import call
from weight_edit.cli.options import Device, Json, Out, Overwrite, Quiet, Remote, System, Template, TemplateArg, Token
from weight_edit.recipe.bundled import OVERLAYS, bundled_recipes
from weight_edit.utils.progress import starting


@app.command()
def demo(
    out: Out = Path("demo-run"), overwrite: Overwrite = False, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Find, bake, prove and measure, end to end, on the embedded model: about a minute, no download.

    Example: `weight-edit demo --out demo-run`
    """

    def work() -> Any:
        with starting():
            from weight_edit.runs.demo import demo as run_demo

        return run_demo(out, overwrite=overwrite)

    def as_document(result: Any) -> Any:
        from weight_edit.runs.demo import document

        return document(result)

    call(work, _show, as_json, quiet, as_document)


@app.command(epilog=f"Bundled recipes: {', '.join(bundled_recipes())}. Overlays: {', '.join(OVERLAYS)}.")
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a bundled recipe.")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override an entry.")] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="Lay another file's entries over it; or hub."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder; runs/ and the recipe's name by default.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take up an earlier run; done steps are kept.")] = False,
    overwrite: Overwrite = False,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Keep a model that failed, marked.")] = False,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a recipe: measure, find, bake, verify, measure again.

    Example: `weight-edit run refusal-direction --with hub --set model=Qwen/Qwen2.5-1.5B-Instruct --out runs/qwen`
    """

    def work() -> Any:
        from weight_edit.recipe.recipe import load_recipe
        from weight_edit.runs.recipe_checks import check_recipe

        loaded = load_recipe(recipe, set_ or (), with_ or ())
        check_recipe(loaded)
        # Takes seconds to import: what is wrong with the recipe is said at once.
        with starting():
            from weight_edit.runs.run import run as carry_out

        return carry_out(
            loaded,
            out or Path("runs") / recipe.stem,
            resume=resume,
            overwrite=overwrite,
            keep_failed=keep_failed,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    call(work, _show, as_json, quiet)


@app.command()
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

    def work() -> Any:
        from weight_edit.prompts.templates import template_args

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
            template_args=template_args(template_arg),
            device=device,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        from weight_edit.checkpoint.files import printable

        for name, size in sorted(result.files.items()):
            console.print(f"{size:>14,}  {printable(name)}", markup=False, highlight=False)
        for what, names in (("not sent", result.skipped), ("there besides", result.others)):
            if names:
                console.print(f"{what}: {', '.join(map(printable, names))}", markup=False, highlight=False)
        done = f"pushed: {result.url}" if result.url else f"dry run: verified, nothing was sent to {result.repo_id}"
        console.print(done, markup=False)

    call(work, show, as_json, quiet)


def _show(result: Any, console: Any) -> None:
    from weight_edit.cli.tables.run import run_result

    run_result(result, console)
