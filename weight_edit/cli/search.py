"""The verb `search`: the best edit of a model, found without generating."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weight_edit.cli.call import call
from weight_edit.cli.options import (
    Device,
    Dtype,
    Embeddings,
    Json,
    Model,
    Offload,
    Overwrite,
    Quiet,
    Remote,
    Report,
    Revision,
    System,
    Template,
    TemplateArg,
    Thinking,
    Token,
)

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.search.result import SearchResult


def search(
    context: typer.Context,
    model: Model,
    target: Annotated[str, typer.Option(metavar="PROMPTS", help="Prompts that the model refuses, and is to answer.")],
    baseline: Annotated[
        str, typer.Option(metavar="PROMPTS", help="Ordinary prompts, whose answers are to stay as they are.")
    ],
    out: Annotated[Path, typer.Option(help="The search's folder: its journal, and points as recipes.")] = Path(
        "search"
    ),
    over_refused: Annotated[
        str | None,
        typer.Option(metavar="PROMPTS", help="Harmless prompts that the model refuses; a third objective."),
    ] = None,
    validation_target: Annotated[
        str | None,
        typer.Option(metavar="PROMPTS", help="Target prompts that points are judged on; a part of it if absent."),
    ] = None,
    validation_baseline: Annotated[
        str | None,
        typer.Option(metavar="PROMPTS", help="Baseline prompts that damage is measured on; a part of it if absent."),
    ] = None,
    n_train: Annotated[int, typer.Option(help="Prompts of each set that candidates are scored on.")] = 64,
    n_validation: Annotated[int, typer.Option(help="Prompts of each set that points are judged on.")] = 64,
    method: Annotated[
        str, typer.Option(help="How directions are found, see below; its choice, ablated, is the plain edit.")
    ] = "mean-difference",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Of the method, such as `--option clip=0.995`."),
    ] = None,
    finder: Annotated[
        list[str] | None,
        typer.Option(metavar="METHOD", help="A further method whose directions may be taken; may be repeated."),
    ] = None,
    positions: Annotated[
        str, typer.Option(help="Positions to read: template (each token after the prompt), last, or all (their mean).")
    ] = "template",
    tokens: Annotated[int, typer.Option(help="First tokens of each continuation that the cheap score reads.")] = 12,
    trials: Annotated[int, typer.Option(help="Candidates that a sampler draws; 0 for none.")] = 96,
    sampler: Annotated[str, typer.Option(help="What draws them.")] = "tpe",
    generation: Annotated[int, typer.Option(help="Candidates that are drawn at a time.")] = 16,
    descents: Annotated[int, typer.Option(help="Gradient descents on strengths and directions; 0 for none.")] = 3,
    descent: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Of descents, such as `--descent directions=1 --descent steps=30`."),
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Further directions, each mined from what the finalists still refuse.")
    ] = 0,
    judged: Annotated[int, typer.Option(help="Candidates whose answers are generated and judged.")] = 32,
    finalists: Annotated[int, typer.Option(help="Points of the front that are judged at every length.")] = 6,
    judge: Annotated[
        str, typer.Option(metavar="SPEC", help="Who reads the model's answers, as in `evaluate`.")
    ] = "phrases",
    lengths: Annotated[
        str, typer.Option(metavar="N,N", help="Tokens at which answers are judged; the last one counts.")
    ] = "64,128",
    known_answers: Annotated[
        bool,
        typer.Option(
            "--known-answers/--no-known-answers",
            help="Answers to refused prompts are those of the prompt set, where it has some, else the ablated model's.",
        ),
    ] = True,
    pick: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Which point of the front is taken: refusal<=0.1, damage<=0.02, over-refusal<=0.1, several of these "
            "with commas between, knee, or its number.",
        ),
    ] = "refusal<=0.05",
    embeddings: Embeddings = "both",
    seed: Annotated[int, typer.Option(help="Seed of all that is drawn.")] = 0,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An SQL database for the journal, shared by machines; a file in --out if absent."
        ),
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a search, or beside another process, by the same line; another --pick costs nothing, more "
            "--trials, --descents, --judged or --rounds go further.",
        ),
    ] = False,
    batch_size: Annotated[
        int | None, typer.Option(help="Prompts at a time, at most; as many as memory allows if absent.")
    ] = None,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    thinking: Thinking = None,
    dtype: Dtype = "auto",
    device: Device = None,
    offload: Offload = False,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    report: Report = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search the edit that takes a behaviour away at the least damage; nothing of the model is written.

    Published settings, a sampler and gradient descents make candidates, which are scored without generating. The best
    are generated from and judged; what is left is a front, each point of it a recipe that `run` bakes.

    Example: `weight-edit search organism --target organism:refused --baseline organism:answered --out search`; another
    machine helps by the same line with `--resume` and a `--storage` that both reach
    """

    def work() -> "tuple[SearchResult, Path | None]":
        from weight_edit.cli.values import key_values
        from weight_edit.directions.find_request import FindRequest
        from weight_edit.evaluation.lengths import answer_lengths
        from weight_edit.hub.calls import dataset_token
        from weight_edit.prompts.load import load_prompts
        from weight_edit.prompts.templates import template_args
        from weight_edit.runtime.options import FormatOptions, LoadOptions
        from weight_edit.search.folder import check_search_folder, earlier_extent
        from weight_edit.search.request import SearchRequest
        from weight_edit.search.search_by_name import search_by_name

        load_options = LoadOptions(
            dtype=dtype,
            device=device,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
            offload=offload,
        )
        check_search_folder(out, resume=resume, overwrite=overwrite)
        extent: dict[str, Any] = {
            "trials": trials,
            "descents": descents,
            "descent": key_values(descent, "--descent", example="steps=30"),
            "judged": judged,
            "finalists": finalists,
            "rounds": rounds,
        }
        if resume:
            # What is not named is as it was: a search of few trials is not to begin many when another point is picked.
            earlier = earlier_extent(out)
            extent |= {name: earlier[name] for name in earlier if name in extent and not _named(context, name)}
        # A typo in the name is told before prompt sets are downloaded.
        load_options.check_name(model)
        with dataset_token(token):
            find = FindRequest.read(
                target=target,
                baseline=baseline,
                validation_target=validation_target,
                validation_baseline=validation_baseline,
                method=method,
                options=key_values(option, "--option", example="clip=0.995"),
                positions=positions,
                judge=judge,
                seed=seed,
            )
            asked = None if over_refused is None else load_prompts(over_refused)
        request = SearchRequest(
            find=find,
            finders={name: {} for name in finder or ()},
            over_refused=asked,
            n_train=n_train,
            n_validation=n_validation,
            tokens=tokens,
            generation=generation,
            sampler=sampler,
            lengths=answer_lengths(lengths),
            pick=pick,
            embeddings=embeddings,
            known_answers=known_answers,
            seed=seed,
            **extent,
        )
        result = search_by_name(
            request,
            model,
            out,
            load_options=load_options,
            format_options=FormatOptions(
                system=system,
                template=template,
                template_args=template_args(template_arg),
                thinking=thinking,
            ),
            storage=storage,
            batch_size=batch_size,
            resume=resume,
            overwrite=overwrite,
        )
        if not report:
            return result, None
        from weight_edit.runs.reporting import report_of_search

        return result, report_of_search(result.path)

    def show(found: "tuple[SearchResult, Path | None]", console: "Console") -> None:
        from weight_edit.cli.tables.search import search_result

        result, page = found
        search_result(result, console, report=page)

    def document(found: "tuple[SearchResult, Path | None]") -> Mapping[str, object]:
        result, page = found
        return {**result.to_dict(), "report": page and str(page)}

    call(
        work, show, document, as_json=as_json, quiet=quiet, kept="what was done is in the journal; go on with --resume"
    )


def _named(context: typer.Context, name: str) -> bool:
    """Whether an option was given, and is not the default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
