"""The verbs that look and measure: inspect, verify, evaluate."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from weight_edit.cli.app import app
from weight_edit.cli.call import call
from weight_edit.cli.options import (
    MODEL_HELP,
    Card,
    Device,
    Dtype,
    Json,
    Model,
    Overwrite,
    Quiet,
    Remote,
    Revision,
    System,
    Template,
    TemplateArg,
    Token,
)
from weight_edit.utils.progress import starting


@app.command()
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
    from weight_edit.cli import inspect_TMP as inspecting

    asked = inspecting.asked(model, prove=prove, everything=everything, only=only, page=page)

    def work() -> Any:
        return asked.work(revision=revision, token=token, trust_remote_code=trust_remote_code)

    result = call(work, asked.show, as_json, quiet)
    if not getattr(result, "passed", True):
        raise SystemExit(4)


@app.command()
def verify(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that was edited.")],
    edited: Annotated[Path, typer.Argument(metavar="EDITED", help="The folder that bake wrote.")],
    directions: Annotated[Path | None, typer.Option(metavar="FILE", help="Else those in weight_edit.json.")] = None,
    weights_only: Annotated[
        bool, typer.Option("--weights-only", help="Check the files alone; no model is loaded.")
    ] = False,
    prompts: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="What the models run on; ordinary built-in ones if absent.")
    ] = None,
    n_prompts: Annotated[int, typer.Option(help="How many prompts the models run on.")] = 16,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    device: Device = None,
    card: Card = True,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check integrity, completeness and faithfulness of an edited model; exit code 4 when a check fails.

    What was measured goes into the card of a model that passes.

    Example: `weight-edit verify organism edited-model`
    """

    def work() -> Any:
        from weight_edit.prompts.templates import template_args

        with starting():
            from weight_edit.verification.verify import verify as check

        if weights_only and prompts:
            from weight_edit.errors import UsageError

            raise UsageError("--weights-only runs no model, so --prompts has no use; leave one of the two out")
        loaded = None
        if prompts:
            from weight_edit.prompts.load import load_prompts

            loaded = load_prompts(prompts)
        return check(
            base,
            edited,
            directions=directions,
            weights_only=weights_only,
            prompts=loaded,
            n_prompts=n_prompts,
            system=system,
            template=template,
            template_args=template_args(template_arg),
            device=device,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
        )

    checked = call(work, "verification", as_json, quiet)
    if not checked.passed:
        raise SystemExit(4)
    if card:
        from weight_edit.baking.card.update import fill_in

        _tell(fill_in(edited, verification=checked.to_dict(), digests_checked=True))


@app.command()
def evaluate(
    model: Model,
    against: Annotated[
        str | None, typer.Option(metavar="BASE", help="The base, shown beside it on the same prompts.")
    ] = None,
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
    template_arg: TemplateArg = None,
    dtype: Dtype = "auto",
    device: Device = None,
    card: Card = True,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure refusal, over-refusal, right answers and, against the base, KL divergence.

    With --against, what was measured goes into the card of a model that bake or run wrote.

    Example: `weight-edit evaluate edited-model --against organism --refused organism:refused:test --answered
    organism:answered:test`
    """

    def work() -> Any:
        from weight_edit.prompts.templates import template_args

        with starting():
            from weight_edit.cli.verbs_TMP import measure

        return measure(
            model,
            against=against,
            sets={
                "refused": refused,
                "answered": answered,
                "over_refused": over_refused,
                "harmless_looking": harmless_looking,
            },
            format_options={
                "system": system,
                "template": template,
                "template_args": template_args(template_arg),
            },
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
        from weight_edit.cli.tables import results as show

        show.evaluation(result.to_dict(), console)

    result = call(work, show, as_json, quiet)
    if card and against is not None:
        from weight_edit.baking.card.update import fill_in

        measured = result.to_dict()
        _tell(fill_in(model, baseline=measured.pop("base", None), edited=measured, base=against))


def _tell(line: str | None) -> None:
    """Say what became of the card, beside the results."""
    if line is not None:
        print(line, file=sys.stderr)
