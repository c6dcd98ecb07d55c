"""The verb `evaluate`: how a model answers, alone or beside its base."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call, say_card
from weight_edit.cli.options import (
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

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.evaluation.evaluate import Evaluation


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
        str | None,
        typer.Option(metavar="PROMPTS", help="Harmless requests that sound sensitive and that the base answers."),
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many prompts of each set.")] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer, at most.")] = 64,
    judge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPEC",
            help="Who judges the answers, such as phrases, or with options phrases,language=de; repeat it, and the "
            "first one decides. [default: phrases]",
            show_default=False,
        ),
    ] = None,
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

    def work() -> "Evaluation":
        from weight_edit.evaluation.against import evaluate_against
        from weight_edit.evaluation.registry import DEFAULT_JUDGES
        from weight_edit.prompts.templates import template_args
        from weight_edit.runtime.options import FormatOptions, LoadOptions

        return evaluate_against(
            model,
            against,
            sets={
                "refused": refused,
                "answered": answered,
                "over_refused": over_refused,
                "harmless_looking": harmless_looking,
            },
            load_options=LoadOptions(
                dtype=dtype, device=device, revision=revision, token=token, trust_remote_code=trust_remote_code
            ),
            format_options=FormatOptions(system=system, template=template, template_args=template_args(template_arg)),
            limit=limit,
            max_new_tokens=max_new_tokens,
            judges=judge or DEFAULT_JUDGES,
            answers_path=answers,
            overwrite=overwrite,
        )

    def show(result: "Evaluation", console: "Console") -> None:
        from weight_edit.cli.tables.results import evaluation

        evaluation(result, console)

    result = call(work, show, as_dict, as_json=as_json, quiet=quiet)
    if card and against is not None:
        from weight_edit.baking.card.update import fill_in

        measured = result.to_dict()
        say_card(fill_in(model, baseline=measured.pop("base", None), edited=measured, base=against))
