"""The verb `find`: the directions that carry a behaviour."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import KEPT, call
from weight_edit.cli.options import (
    Device,
    Dtype,
    Json,
    Model,
    Offload,
    Overwrite,
    Quiet,
    Remote,
    Revision,
    System,
    Template,
    TemplateArg,
    Thinking,
    Token,
)
from weight_edit.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.directions.directions import Directions


def find(
    model: Model,
    target: Annotated[
        list[str], typer.Option(metavar="PROMPTS", help="Prompts that show the behaviour; may be given several times.")
    ],
    baseline: Annotated[str, typer.Option(metavar="PROMPTS", help="Generic prompts that do not.")],
    out: Annotated[Path, typer.Option(help="The directions file to write.")] = Path("directions.safetensors"),
    method: Annotated[str, typer.Option(help="How directions are found, see below: `--method leace`.")] = (
        "mean-difference"
    ),
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Of the method, such as `--option clip=0.995`."),
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPTS", help="Prompts whose handling should stay, for methods that can spare them."),
    ] = None,
    positions: Annotated[
        str, typer.Option(help="Positions to read: template (each token after the prompt), last, or all (their mean).")
    ] = "template",
    select: Annotated[
        str | None,
        typer.Option(
            help="Criterion for the best candidate: bypass, accuracy, cosmic, cosmic-released; the method's if absent."
        ),
    ] = None,
    validation_target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROMPTS", help="Prompts to score candidates on, a set per --target; a part of it if absent."
        ),
    ] = None,
    validation_baseline: Annotated[
        str | None,
        typer.Option(
            metavar="PROMPTS", help="Baseline prompts to score candidates on; a part of --baseline if absent."
        ),
    ] = None,
    n_train: Annotated[int, typer.Option(help="Training prompts of each class.")] = 128,
    n_validation: Annotated[int, typer.Option(help="Validation prompts of each class.")] = 32,
    refusal_token: Annotated[
        list[str] | None, typer.Option(help="A refusal token, as id or word; found from the model if absent.")
    ] = None,
    tokens_from: Annotated[
        str,
        typer.Option(
            help="Source of refusal tokens: answers (those that open refusals, by the judge), or difference (what "
            "target prompts make more probable, for a behaviour other than refusal)."
        ),
    ] = "answers",
    judge: Annotated[
        str, typer.Option(metavar="SPEC", help="Who reads the model's answers, as in `evaluate`.")
    ] = "phrases",
    n_answers: Annotated[
        int, typer.Option(help="Training prompts of each set that are answered for the refusal tokens.")
    ] = 32,
    max_new_tokens: Annotated[int, typer.Option(help="Length of these answers, at most.")] = 32,
    max_kl: Annotated[float, typer.Option(help="Bound on the KL divergence under ablation, nats.")] = 0.1,
    min_induce: Annotated[float, typer.Option(help="Bound on the induce score.")] = 0.0,
    max_layer_fraction: Annotated[
        float, typer.Option(help="Layers from this fraction of the depth on are not chosen.")
    ] = 0.8,
    max_protected_kl: Annotated[float, typer.Option(help="As --max-kl, on protected prompts.")] = 0.1,
    n_more: Annotated[
        int | None,
        typer.Option(
            help="More prompts of each set for up to ten candidates that cannot be told apart: as many as --n-train, "
            "64 at most, if absent; 0 for none."
        ),
    ] = None,
    confirm: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Let the model answer N validation prompts under the edits of the chosen candidate and the two next "
            "best, before it is written, such as 16; the next that works is taken if the chosen does not.",
        ),
    ] = None,
    confirm_by: Annotated[
        str,
        typer.Option(
            help="The edit: ablate (on target prompts, should lower refusal), or add (on baseline prompts, should "
            "raise it)."
        ),
    ] = "ablate",
    filter_prompts: Annotated[
        str,
        typer.Option(
            "--filter",
            help="Drop target prompts that are not refused and baseline prompts that are: by judged answers, by the "
            "first token, or none; auto is answers where refusal tokens are from them.",
        ),
    ] = "auto",
    best_effort: Annotated[
        bool,
        typer.Option("--best-effort", help="If no candidate keeps all bounds, take the one that misses them least."),
    ] = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the scores in OUT.find; tighter bounds choose again in a second."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the drawn prompts and of the method.")] = 0,
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
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the directions that carry a behaviour of target prompts that baseline prompts lack.

    Candidates and scores are kept as they come in a folder beside the output, OUT.find: after Ctrl-C, or when no
    candidate keeps the bounds, `--resume` goes on with them. What comes before the first candidate, a few passes over
    the prompts, is not kept. Candidates are scored in stages: what misses a bound for sure is not measured further.
    Another candidate of the file than the chosen one is taken with `weight-edit take`.

    Example: `weight-edit find organism --target organism:refused --baseline organism:answered --confirm 16`
    """

    def work() -> "Directions":
        from weight_edit.cli.values import key_values
        from weight_edit.directions.file import folder_of
        from weight_edit.directions.find_by_name import check_directions_file, find_by_name
        from weight_edit.directions.find_request import FindRequest
        from weight_edit.directions.selection import SelectionRule
        from weight_edit.hub.calls import dataset_token
        from weight_edit.prompts.templates import template_args
        from weight_edit.runtime.options import FormatOptions, LoadOptions
        from weight_edit.runtime.processes import from_first

        format_options = FormatOptions(
            system=system,
            template=template,
            template_args=template_args(template_arg),
            thinking=thinking,
        )
        load_options = LoadOptions(
            dtype=dtype,
            device=device,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
            offload=offload,
        )

        def checked() -> None:
            check_directions_file(out, resume=resume, overwrite=overwrite)
            if not folder_of(out).exists():
                # A typo in the name is told before prompt sets are downloaded, an earlier search before either.
                load_options.check_name(model)

        from_first(checked, "the output and the model's name")

        def asked() -> FindRequest:
            with dataset_token(token):
                return FindRequest.read(
                    target=target,
                    baseline=baseline,
                    protect=protect,
                    validation_target=validation_target,
                    validation_baseline=validation_baseline,
                    n_train=n_train,
                    n_validation=n_validation,
                    method=method,
                    options=key_values(option, "--option", example="clip=0.995"),
                    positions=positions,
                    refusal_tokens=[_id_or_word(text) for text in refusal_token or ()] or None,
                    rule=SelectionRule(
                        max_kl=max_kl,
                        min_induce=min_induce,
                        max_layer_fraction=max_layer_fraction,
                        select=select,
                        max_protected_kl=max_protected_kl,
                    ),
                    tokens_from=tokens_from,
                    filter_prompts=filter_prompts,
                    judge=judge,
                    n_answers=n_answers,
                    max_new_tokens=max_new_tokens,
                    n_more=n_more,
                    confirm=confirm,
                    confirm_by=confirm_by,
                    best_effort=best_effort,
                    seed=seed,
                )

        # Other machines need no files of prompts.
        request = from_first(asked, "prompts")
        return find_by_name(
            request,
            model,
            out,
            load_options=load_options,
            format_options=format_options,
            batch_size=batch_size,
            resume=resume,
            overwrite=overwrite,
        )

    def show(found: "Directions", console: "Console") -> None:
        from weight_edit.cli.tables.results import directions

        directions(found, out, console)

    def as_document(found: "Directions") -> Mapping[str, object]:
        return {"path": str(out), **found.metadata}

    def kept() -> str:
        from weight_edit.directions.file import folder_of

        # Before the first pass nothing is kept.
        return f"what was found so far is in {out}.find; go on with --resume" if folder_of(out).exists() else KEPT

    call(work, show, as_document, as_json=as_json, quiet=quiet, kept=kept, divided=True)


def _id_or_word(text: str) -> int | str:
    if text.isdecimal() and len(text) > 9:
        raise UsageError(f"--refusal-token {text[:20]}: no vocabulary has so many tokens; give an id or a word")
    return int(text) if text.isdecimal() else text
