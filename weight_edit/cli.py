"""The command line: each verb reads its options, calls one function, and prints the result."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from weight_edit.calling import call
from weight_edit.errors import WeightEditError, first_line
from weight_edit.options import (
    Device,
    DirectionsFile,
    Dtype,
    Embeddings,
    Json,
    Layers,
    Model,
    Orthonormalize,
    Out,
    Overwrite,
    Prompts,
    Quiet,
    Remote,
    Revision,
    Strength,
    System,
    Template,
    Token,
)
from weight_edit.version import __version__

app = typer.Typer(
    name="weight-edit",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Find the direction that carries a behaviour in a language model, bake its removal into the weights, "
    "and prove what the edit did.\n\nMODEL is a Hub id, a local folder, or `organism` (the embedded test model). "
    "PROMPTS is a built-in set such as `organism:refused:test`, a file (.txt, .jsonl, .json, .csv, .parquet), or "
    "`org/dataset:split[:column]`.\n\nStart with `weight-edit demo`.",
)


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Options of the command itself."""
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Out = Path("demo-run"), overwrite: Overwrite = False, as_json: Json = False, quiet: Quiet = False
) -> None:
    """Find, bake, prove and measure, end to end, on the embedded model: about a minute, no download.

    Example: `weight-edit demo --out demo-run`
    """

    def work() -> Any:
        from weight_edit.demonstration import demo as run_demo

        return run_demo(out, overwrite=overwrite)

    def as_document(result: Any) -> Any:
        from weight_edit.demonstration import document

        return document(result)

    call(work, "run_result", as_json, quiet, as_document)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml")],
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override an entry.")] = None,
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

    Example: `weight-edit run recipes/refusal-direction.yaml --set model=Qwen/Qwen2.5-1.5B-Instruct --out runs/qwen`
    """

    def work() -> Any:
        from weight_edit.recipe import load_recipe
        from weight_edit.running import run as carry_out

        return carry_out(
            load_recipe(recipe, set_ or ()),
            out or Path("runs") / recipe.stem,
            resume=resume,
            overwrite=overwrite,
            keep_failed=keep_failed,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    call(work, "run_result", as_json, quiet)


@app.command()
def inspect(
    model: Model,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what writes to and reads from the residual stream, or why a model is not supported.

    Example: `weight-edit inspect organism`
    """

    def work() -> Any:
        from weight_edit.inspection import inspect as look

        return look(model, revision=revision, token=token, trust_remote_code=trust_remote_code)

    call(work, "inspection", as_json, quiet)


@app.command()
def find(
    model: Model,
    target: Annotated[str, typer.Option(metavar="PROMPTS", help="Prompts that show the behaviour.")],
    baseline: Annotated[str, typer.Option(metavar="PROMPTS", help="Generic prompts that do not.")],
    out: Annotated[Path, typer.Option(help="The directions file to write.")] = Path("directions.safetensors"),
    method: Annotated[str, typer.Option(help="How directions are found.")] = "mean-difference",
    validation_target: Prompts = None,
    validation_baseline: Prompts = None,
    n_train: Annotated[int, typer.Option(help="Prompts of each kind that make the means.")] = 128,
    n_validation: Annotated[int, typer.Option(help="Prompts of each kind that score candidates.")] = 32,
    refusal_token: Annotated[
        list[str] | None, typer.Option(help="A token id or a word; found from the model when absent.")
    ] = None,
    max_kl: Annotated[float, typer.Option(help="Bound on the KL divergence under ablation, nats.")] = 0.1,
    min_induce: Annotated[float, typer.Option(help="Bound on the induce score.")] = 0.0,
    max_layer_fraction: Annotated[float, typer.Option(help="Layers from this fraction on are out.")] = 0.8,
    filter_prompts: Annotated[bool, typer.Option(help="Drop prompts that the model treats otherwise.")] = True,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Take the nearest if no candidate passes.")
    ] = False,
    overwrite: Overwrite = False,
    seed: int = 0,
    system: System = None,
    template: Template = None,
    dtype: Dtype = "auto",
    device: Device = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the direction that carries what a model does on target prompts and not on baseline prompts.

    Example: `weight-edit find organism --target organism:refused --baseline organism:answered --out d.safetensors`
    """

    def work() -> Any:
        from weight_edit.verbs import find as search

        return search(
            model,
            target,
            baseline,
            out,
            overwrite=overwrite,
            load_options={
                "dtype": dtype,
                "device": device,
                "revision": revision,
                "token": token,
                "trust_remote_code": trust_remote_code,
            },
            format_options={"system": system, "template": template},
            rule_options={
                "max_kl": max_kl,
                "min_induce": min_induce,
                "max_layer_fraction": max_layer_fraction,
            },
            validation_target=validation_target,
            validation_baseline=validation_baseline,
            method=method,
            n_train=n_train,
            n_validation=n_validation,
            refusal_tokens=[int(t) if t.isdecimal() else t for t in refusal_token or ()] or None,
            filter_prompts=filter_prompts,
            best_effort=best_effort,
            seed=seed,
        )

    def show(found: Any, console: Any) -> None:
        from weight_edit import show

        show.directions(found, out, console)

    call(work, show, as_json, quiet, lambda found: {"path": str(out), **found.metadata})


@app.command()
def bake(
    model: Model,
    directions: DirectionsFile,
    out: Out,
    edit: Annotated[str, typer.Option(help="The kind of edit: ablate.")] = "ablate",
    strength: Strength = 1.0,
    layers: Layers = None,
    embeddings: Embeddings = "keep",
    orthonormalize: Orthonormalize = False,
    overwrite: Overwrite = False,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an edited copy of a model: only targeted tensors change, every other byte is the source's.

    Example: `weight-edit bake organism --directions d.safetensors --out edited-model`
    """

    def work() -> Any:
        from weight_edit.baking import bake as write
        from weight_edit.directions.artifact import load_directions
        from weight_edit.plan import parse_layers

        return write(
            model,
            load_directions(directions, orthonormalize=orthonormalize),
            out,
            edit=edit,
            strength=strength,
            layers=parse_layers(layers),
            embeddings=embeddings,
            revision=revision,
            token=token,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        from weight_edit import show

        show.baked(result, model, console)

    call(work, show, as_json, quiet)


@app.command()
def verify(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that was edited.")],
    edited: Annotated[Path, typer.Argument(metavar="EDITED", help="The folder that bake wrote.")],
    directions: Annotated[Path | None, typer.Option(metavar="FILE", help="Else those in weight_edit.json.")] = None,
    prompts: Prompts = None,
    n_prompts: Annotated[int, typer.Option(help="How many prompts the models run on.")] = 16,
    system: System = None,
    template: Template = None,
    device: Device = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check integrity, completeness and faithfulness of an edited model; exit code 4 when a check fails.

    Example: `weight-edit verify organism edited-model`
    """

    def work() -> Any:
        from weight_edit.prompts import load_prompts
        from weight_edit.verification.verify import verify as check

        return check(
            base,
            edited,
            directions=directions,
            prompts=load_prompts(prompts) if prompts else None,
            n_prompts=n_prompts,
            system=system,
            template=template,
            device=device,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    checked = call(work, "verification", as_json, quiet)
    if not checked.passed:
        raise SystemExit(4)


@app.command()
def evaluate(
    model: Model,
    against: Annotated[str | None, typer.Option(metavar="BASE", help="The base, for the KL divergence.")] = None,
    refused: Annotated[str | None, typer.Option(metavar="PROMPTS", help="Requests that the base refuses.")] = None,
    answered: Annotated[str | None, typer.Option(metavar="PROMPTS", help="Ordinary requests.")] = None,
    over_refused: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="Harmless requests that the base refuses.")
    ] = None,
    harmless_looking: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="Sensitive-sounding harmless requests it answers.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many prompts of each set.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer, at most.")] = 64,
    answers: Annotated[Path | None, typer.Option(metavar="FILE", help="Save every answer as JSONL.")] = None,
    overwrite: Overwrite = False,
    system: System = None,
    template: Template = None,
    dtype: Dtype = "auto",
    device: Device = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure refusal, over-refusal, right answers and, against the base, KL divergence.

    Example: `weight-edit evaluate edited-model --against organism --refused organism:refused:test --answered
    organism:answered:test`
    """

    def work() -> Any:
        from weight_edit.verbs import measure

        return measure(
            model,
            against=against,
            sets={
                "refused": refused,
                "answered": answered,
                "over_refused": over_refused,
                "harmless_looking": harmless_looking,
            },
            format_options={"system": system, "template": template},
            load_options={
                "dtype": dtype,
                "device": device,
                "revision": revision,
                "token": token,
                "trust_remote_code": trust_remote_code,
            },
            limit=limit,
            max_new_tokens=max_new_tokens,
            answers_path=answers,
            overwrite=overwrite,
        )

    def show(result: Any, console: Any) -> None:
        from weight_edit import show

        show.evaluation(result.to_dict(), console)

    call(work, show, as_json, quiet)


@app.command()
def adapter(
    model: Model,
    directions: DirectionsFile,
    out: Out,
    strength: Strength = 1.0,
    layers: Layers = None,
    embeddings: Embeddings = "keep",
    orthonormalize: Orthonormalize = False,
    overwrite: Overwrite = False,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the edit as a PEFT LoRA adapter, exact and of rank one per direction.

    Example: `weight-edit adapter organism --directions d.safetensors --out adapter`
    """

    def work() -> Any:
        from weight_edit.directions.artifact import load_directions
        from weight_edit.plan import parse_layers
        from weight_edit.publish.adapter import adapter as write

        return write(
            model,
            load_directions(directions, orthonormalize=orthonormalize),
            out,
            strength=strength,
            layers=parse_layers(layers),
            embeddings=embeddings,
            revision=revision,
            token=token,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        console.print(f"{result.path}: rank {result.rank}, {len(result.modules)} modules", markup=False)

    call(work, show, as_json, quiet)


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An output of bake or run.")],
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="owner/name on the Hub.")],
    base: Annotated[str | None, typer.Option(help="What it was edited from, if it has moved.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Create a private repository.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and list, upload nothing.")] = False,
    system: System = None,
    template: Template = None,
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
        from weight_edit.publish.hub import push as upload

        return upload(
            folder,
            repo_id,
            base=base,
            private=private,
            dry_run=dry_run,
            system=system,
            template=template,
            device=device,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        for name, size in sorted(result.files.items()):
            console.print(f"{size:>14,}  {name}", markup=False, highlight=False)
        done = f"pushed: {result.url}" if result.url else f"dry run: verified, nothing was sent to {result.repo_id}"
        console.print(done, markup=False)

    call(work, show, as_json, quiet)


def main() -> None:
    """Run the command line; a user's mistake is one line and the contract's exit code, never a traceback."""
    try:
        app()
    except WeightEditError as error:
        _fail(str(error), error.exit_code)
    except (OSError, RecursionError, MemoryError) as error:
        if isinstance(error, BrokenPipeError):
            # The reader of a pipe (head, less) has gone; there is nobody left to tell.
            sys.stderr.close()
            raise SystemExit(1) from None
        _fail(f"{type(error).__name__}: {first_line(error)}", 2)
    except SystemExit as stop:
        if stop.code == 2 and "--json" in sys.argv:
            print(json.dumps({"error": "the call is wrong; see stderr", "exit_code": 2}))
        raise


def _fail(message: str, code: int) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))
    print(f"weight-edit: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code) from None
