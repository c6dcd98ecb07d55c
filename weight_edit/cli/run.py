"""The verb `run`: a recipe, from the first measurement to the last."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import KEPT, RESUMED, as_dict, call
from weight_edit.cli.options import Json, Overwrite, Quiet, Remote, Report, Thinking, Token
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.runs.run import RunResult


def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a bundled recipe.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A Hub id or folder in place of the recipe's model; public prompt sets replace the embedded model's.",
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override an entry, see below: `dtype=float32`; may be given several times.",
        ),
    ] = None,
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="FILE", help="Another YAML file whose entries override the recipe's; or hub."),
    ] = None,
    thinking: Thinking = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The run's folder; runs/ and the recipe's name by default, with that of --model behind it."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Take up an earlier run; done steps are kept.")] = False,
    overwrite: Overwrite = False,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Keep a model that failed, marked.")] = False,
    report: Report = True,
    push: Annotated[
        bool, typer.Option("--push", help="Push the model where the recipe's push section says; else nothing is sent.")
    ] = False,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Carry out a recipe: measure, find, bake, verify, measure again.

    Example: `weight-edit run refusal-direction --model Qwen/Qwen2.5-1.5B-Instruct --out runs/qwen`
    """

    place: Path | None = None

    def work() -> "RunResult":
        from weight_edit.hub.source import check_named
        from weight_edit.recipe.recipe import load_recipe, slug
        from weight_edit.runs.folder import check_run_folder
        from weight_edit.runs.recipe_checks import check_recipe

        asked = [] if thinking is None else [f"thinking='{thinking}'"]
        loaded = load_recipe(recipe, [*asked, *(set_ or ())], with_ or (), model)
        check_recipe(loaded)
        named = recipe.stem if model is None else f"{recipe.stem}-{slug(Path(model).name)}"
        nonlocal place
        place = out or Path("runs") / named
        check_run_folder(place, resume=resume, overwrite=overwrite)
        check_named(loaded.model, revision=loaded.revision, token=token)
        # Takes seconds to import: what is wrong with the recipe or the model's name is said at once.
        with starting():
            from weight_edit.runs.run import run as run_recipe

        return run_recipe(
            loaded,
            place,
            resume=resume,
            overwrite=overwrite,
            keep_failed=keep_failed,
            report=report,
            push=push,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "RunResult", console: "Console") -> None:
        from weight_edit.cli.tables.run import run_result

        run_result(result, console)

    def kept() -> str:
        from weight_edit.runs.folder import has_model, has_run

        if place is None or not has_run(place):
            return KEPT
        return "the edited model is finished; go on with --resume for the rest" if has_model(place) else RESUMED

    call(work, show, as_dict, as_json=as_json, quiet=quiet, kept=kept, live=True)
