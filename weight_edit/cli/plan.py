"""The verb `plan`: what a find and what follows cost, before any of it is run."""

from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import (
    Device,
    Dtype,
    Json,
    Model,
    Offload,
    Quiet,
    Remote,
    Revision,
    System,
    Template,
    TemplateArg,
    Thinking,
    Token,
)
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.costs.plan import CostPlan


def plan(
    model: Model,
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPTS", help="Target prompts, whose tokens are counted; may be given several times."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="PROMPTS", help="Baseline prompts, likewise.")] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Mean tokens of a prompt, template included, where none are given; 64 if absent.")
    ] = None,
    prefix_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens that all prompts begin with, run once per edit; the chat template's if absent."),
    ] = None,
    n_train: Annotated[int, typer.Option(help="Training prompts of each class.")] = 128,
    n_validation: Annotated[int, typer.Option(help="Validation prompts of each class.")] = 32,
    n_more: Annotated[
        int | None, typer.Option(help="More prompts for candidates that cannot be told apart, as in `find`.")
    ] = None,
    method: Annotated[str, typer.Option(help="How directions are found, as in `find`.")] = "mean-difference",
    positions: Annotated[str, typer.Option(help="Positions to read, as in `find`.")] = "template",
    candidates: Annotated[
        int | None, typer.Option(help="How many are scored; one at each position and layer if absent.")
    ] = None,
    max_layer_fraction: Annotated[
        float, typer.Option(help="Layers from this fraction of the depth on are not scored.")
    ] = 0.8,
    filter_prompts: Annotated[
        str,
        typer.Option("--filter", help="How prompts are left out, as in `find`: by auto and answers all are answered."),
    ] = "auto",
    tokens_from: Annotated[str, typer.Option(help="Source of refusal tokens, as in `find`.")] = "answers",
    n_answers: Annotated[int, typer.Option(help="Prompts of each set that are answered where not all are.")] = 32,
    max_new_tokens: Annotated[int, typer.Option(help="Length of these answers, at most.")] = 32,
    confirm: Annotated[
        int | None, typer.Option(metavar="N", help="Prompts that confirm a choice by answers; none if absent.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trials of a search for an edit's settings, on validation prompts.")] = 0,
    n_evaluate: Annotated[
        int, typer.Option(help="Prompts of each of two sets that `evaluate` has the base and the edited model answer.")
    ] = 100,
    offload: Offload = False,
    processes: Annotated[int, typer.Option(help="Processes that share the work.")] = 1,
    calibrate: Annotated[
        bool, typer.Option("--calibrate/--no-calibrate", help="Time a small block and the reading of a file here.")
    ] = True,
    flops: Annotated[
        float | None, typer.Option(help="FLOPs that the device computes in a second, such as 4e14.")
    ] = None,
    disk_rate: Annotated[float | None, typer.Option(help="Bytes that the disk reads in a second, such as 3e9.")] = None,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    thinking: Thinking = None,
    dtype: Dtype = "auto",
    device: Device = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Estimate bytes read, FLOPs, peak memory and time of a find and of what follows, and run nothing of it.

    A config.json suffices, without weights or tokenizer; of a Hub model no weights are downloaded. Arithmetic is
    counted on the model built without numbers, whatever its family; times are by a short calibration on this machine.

    Example: `weight-edit plan Qwen/Qwen2.5-7B-Instruct --tokens 48 --device cuda --flops 4e14 --disk-rate 3e9`
    """

    def work() -> "CostPlan":
        from weight_edit.directions.selection import SelectionRule
        from weight_edit.hub.calls import dataset_token
        from weight_edit.hub.source import check_named
        from weight_edit.prompts.load import check_prompts
        from weight_edit.prompts.templates import template_args

        check_named(model, revision=revision, token=token)
        for spec in (*(target or ()), *(() if baseline is None else (baseline,))):
            check_prompts(spec)
        # Takes seconds to import: a misspelt name is said at once.
        with starting():
            from weight_edit.costs.plan import plan_costs

        with dataset_token(token):
            return plan_costs(
                model,
                target=target or (),
                baseline=baseline,
                tokens=tokens,
                prefix_tokens=prefix_tokens,
                n_train=n_train,
                n_validation=n_validation,
                n_more=n_more,
                method=method,
                positions=positions,
                candidates=candidates,
                rule=SelectionRule(max_layer_fraction=max_layer_fraction),
                filter_prompts=filter_prompts,
                tokens_from=tokens_from,
                n_answers=n_answers,
                max_new_tokens=max_new_tokens,
                confirm=confirm,
                trials=trials,
                n_evaluate=n_evaluate,
                offload=offload,
                processes=processes,
                dtype=dtype,
                device=device,
                calibrate=calibrate,
                flops=flops,
                disk_rate=disk_rate,
                system=system,
                template=template,
                template_args=template_args(template_arg),
                thinking=thinking,
                revision=revision,
                token=token,
                trust_remote_code=trust_remote_code,
            )

    def show(found: "CostPlan", console: "Console") -> None:
        from weight_edit.cli.tables.costs import costs

        costs(found, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet)
