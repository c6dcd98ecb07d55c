"""The verb `evaluate`: how a model answers, alone or beside its base."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

import typer

from weight_edit.cli.call import call, say_card
from weight_edit.cli.options import (
    MODEL_HELP,
    Card,
    Device,
    Dtype,
    Json,
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
from weight_edit.utils.launch import launched

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.cli.tables.documents import EffectDocument, EvaluationDocument, HarnessDocument
    from weight_edit.evaluation.endpoint.endpoint import Endpoint
    from weight_edit.evaluation.harness.comparison import HarnessComparison
    from weight_edit.evaluation.harness.harness import Harness
    from weight_edit.evaluation.power import SampleSize
    from weight_edit.evaluation.results import Evaluation
    from weight_edit.runtime.options import FormatOptions, LoadOptions


_TWO_MODELS = ("power", "against")


class _Models(NamedTuple):
    """The models that a call names, and how they are loaded."""

    model: "str | Endpoint"
    base: "str | Endpoint | None"
    load_options: "LoadOptions"
    format_options: "FormatOptions"


class _Measured(NamedTuple):
    """What was measured, and what is left to be.

    Attributes:
        evaluation: on the prompts.
        harness: the tasks, ready to be run; None where none are asked for.
        benchmarks: what they gave, where that is in the same document.
    """

    evaluation: "Evaluation"
    harness: "Harness | None"
    benchmarks: "HarnessComparison | None"


def evaluate(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} With --endpoint there is none.")
    ] = None,
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
    text: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="Texts whose cross-entropy and perplexity are measured.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many prompts of each set.")] = None,
    power: Annotated[
        str | None,
        typer.Option(
            metavar="observed|A,B",
            help="How many prompts tell two rates apart: the observed ones, or given ones such as 0.1,0.2.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            help="Length of an answer, at most. [default: 64, or the longest of --lengths]", show_default=False
        ),
    ] = None,
    lengths: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...",
            help="Also judge every answer cut to its first so many tokens, such as 32,64,128,256, from one generation.",
        ),
    ] = None,
    kl_tokens: Annotated[
        int, typer.Option(help="Tokens of the base's own answers over which the KL divergence is measured, too.")
    ] = 16,
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
    harness: Annotated[
        str | None,
        typer.Option(
            metavar="TASK,TASK,...",
            help="Also run these tasks of lm-eval (`pip install lm-eval`), on the base and on the model: "
            "`--harness arc_easy,piqa`.",
        ),
    ] = None,
    harness_limit: Annotated[int | None, typer.Option(help="The first so many documents of each such task.")] = None,
    harness_chat: Annotated[
        bool, typer.Option("--harness-chat", help="Put documents into the chat template; lm-eval by itself does not.")
    ] = False,
    harness_tasks_path: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder with tasks of your own. A task can name Python functions, which are run: give no folder "
            "that you would not run as a program.",
        ),
    ] = None,
    harness_out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write lm-eval's own results and samples, of each model as they come."),
    ] = None,
    lm_eval_json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write our own figures in the shape of lm-eval's results; the base's beside it, in FILE-base.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    thinking: Thinking = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A chat server whose model is measured in place of MODEL (vLLM, llama.cpp, Ollama, SGLang, hosted): "
            "`--endpoint http://127.0.0.1:8000/v1`. Its key is taken from $WEIGHT_EDIT_API_KEY or $OPENAI_API_KEY.",
        ),
    ] = None,
    endpoint_model: Annotated[
        str | None,
        typer.Option("--model", metavar="NAME", help="The name of the model on the server of --endpoint."),
    ] = None,
    against_endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="A chat server on which --against is the name of the base.")
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="ADAPTER", help="A PEFT LoRA adapter on MODEL, its base: a folder or a Hub id. Never from pickles."
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="auto|transformers|llama.cpp|vllm",
            help="What runs a GGUF file: auto is llama.cpp's llama-server (on PATH or $WEIGHT_EDIT_LLAMA_SERVER) where "
            "there is one, else transformers, which dequantises it. vllm runs MODEL and BASE, in safetensors, in an "
            "installed vLLM.",
        ),
    ] = "auto",
    concurrency: Annotated[int, typer.Option(help="Requests to a server at the same time.")] = 8,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Ask servers again what is cached of them: another model is there now.")
    ] = False,
    dtype: Dtype = "auto",
    device: Device = None,
    offload: Offload = False,
    card: Card = True,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure refusal, over-refusal, right answers and, against the base, KL divergence.

    With --against, what was measured goes into the card of a model that bake or run wrote. With --endpoint and --model
    it is a model on a chat server, of which all is measured that needs answers alone; the divergence is a lower bound,
    where the server sends log-probabilities. MODEL and BASE may be GGUF files. `--power 0.1,0.2` without prompts runs
    no model. With --harness tasks of lm-eval are run after that, or alone where there are no prompts.

    Example: `weight-edit evaluate edited-model --against organism --refused organism:refused:test --answered
    organism:answered:test`

    A GGUF file beside the folder that it was made from: `weight-edit evaluate model.gguf --against folder --refused
    harmful.txt`

    An adapter beside its base: `weight-edit evaluate organism --adapter lora --against organism --refused
    organism:refused:test`
    """
    on_prompts = any((refused, answered, over_refused, harmless_looking, text))
    # What MODEL's folder says of its edit is not said of an adapter on it.
    edited = model if adapter is None else None
    if power is not None and not on_prompts and harness is None:
        call(lambda: _sizes(power, None), _show_sizes, _sizes_document, as_json=as_json, quiet=quiet)
        return

    def named_models() -> _Models:
        from weight_edit.evaluation.endpoint.named import named_targets
        from weight_edit.prompts.templates import template_args
        from weight_edit.runtime.options import FormatOptions, LoadOptions

        format_options = FormatOptions(
            system=system, template=template, template_args=template_args(template_arg), thinking=thinking
        )
        load_options = LoadOptions(
            dtype=dtype,
            device=device,
            revision=revision,
            token=token,
            trust_remote_code=trust_remote_code,
            adapter=adapter,
            offload=offload,
        )
        measured, base = named_targets(
            model,
            against,
            endpoint=endpoint,
            endpoint_model=endpoint_model,
            against_endpoint=against_endpoint,
            format_options=format_options,
            concurrency=concurrency,
            fresh=fresh,
            backend=backend,
            adapter=adapter,
        )
        return _Models(measured, base, load_options, format_options)

    def check_harness() -> None:
        from weight_edit.evaluation.harness.request import check_harness_options

        check_harness_options(
            harness,
            on_prompts=on_prompts,
            of_harness={
                "harness_limit": harness_limit,
                "harness_chat": harness_chat or None,
                "harness_tasks_path": harness_tasks_path,
                "harness_out": harness_out,
            },
            of_prompts={
                "limit": limit,
                "max_new_tokens": max_new_tokens,
                "lengths": lengths,
                "judge": judge,
                "answers": answers,
                "lm_eval_json": lm_eval_json,
                "power": power,
            },
            backend=backend,
        )

    def prepared(named: _Models) -> "Harness":
        from weight_edit.evaluation.harness.named import prepared_harness
        from weight_edit.evaluation.harness.request import harness_request

        request = harness_request(
            harness or "",
            harness_limit=harness_limit,
            harness_tasks_path=harness_tasks_path,
            harness_chat=harness_chat,
            harness_out=harness_out,
        )
        return prepared_harness(named.model, named.base, request, load_options=named.load_options, overwrite=overwrite)

    def benchmarks(ready: "Harness | None" = None) -> "HarnessComparison":
        from weight_edit.evaluation.harness.named import measure_named

        check_harness()
        named = named_models()
        return measure_named(
            ready or prepared(named),
            str(named.model),
            None if named.base is None else str(named.base),
            load_options=named.load_options,
            format_options=named.format_options,
        )

    def work() -> _Measured:
        check_harness()
        if power == "observed" and against is None:
            raise UsageError(
                "`power='observed'` takes the rates of two models; give `against` BASE", option=_TWO_MODELS
            )
        if power is not None:
            from weight_edit.evaluation.power import given_rates

            given_rates(power)
        from weight_edit.evaluation.harness.results_file import check_harness_document
        from weight_edit.runtime.processes import from_first, writes

        if lm_eval_json is not None:
            document_path = lm_eval_json
            from_first(
                lambda: check_harness_document(document_path, against=against is not None, overwrite=overwrite),
                "the document",
            )
        named = named_models()
        # What is wrong with the tasks is said before hours of answers.
        ready = None if harness is None else prepared(named)
        result = evaluated(named)
        if lm_eval_json is not None and writes():
            from weight_edit.evaluation.harness.own_results import write_harness_document

            write_harness_document(lm_eval_json, result.to_dict(), limit=limit)
        # One document for both.
        return _Measured(result, ready, benchmarks(ready) if ready is not None and as_json else None)

    def evaluated(named: _Models) -> "Evaluation":
        from weight_edit.evaluation.against import evaluate_against
        from weight_edit.evaluation.registry import DEFAULT_JUDGES

        return evaluate_against(
            named.model,
            named.base,
            sets={
                "refused": refused,
                "answered": answered,
                "over_refused": over_refused,
                "harmless_looking": harmless_looking,
            },
            load_options=named.load_options,
            format_options=named.format_options,
            limit=limit,
            max_new_tokens=max_new_tokens,
            lengths=lengths,
            text=text,
            kl_tokens=kl_tokens,
            backend=backend,
            judges=judge or DEFAULT_JUDGES,
            answers_path=answers,
            overwrite=overwrite,
        )

    def show(measured: _Measured, console: "Console") -> None:
        from weight_edit.cli.tables.four_classes import four_classes
        from weight_edit.cli.tables.lengths import by_length
        from weight_edit.cli.tables.results import effect, evaluation
        from weight_edit.cli.tables.style import style

        result = measured.evaluation
        evaluation(result, console)
        document = cast("EvaluationDocument", result.to_dict())
        base = document.get("base")
        by_length(base, document, console)
        if base is not None:
            style(base, document, console)
            four_classes(document, console)
            effect(_effect(edited, document), console)
        if answers is not None:
            console.print(f"{answers}: the answers, one a line", markup=False, highlight=False)
        if power is not None:
            _show_sizes(_sizes(power, result), console)

    def document(measured: _Measured) -> Mapping[str, object]:
        result = measured.evaluation
        said = cast("EvaluationDocument", result.to_dict())
        whole = {**said, "effect": _effect(edited, said)} if "base" in said else said
        sizes = {} if power is None else _sizes_document(_sizes(power, result))
        beside = {} if measured.benchmarks is None else _benchmarks_document(measured.benchmarks)
        return {**whole, **sizes, **beside}

    if harness is not None and not on_prompts:
        call(benchmarks, _show_benchmarks, _benchmarks_document, as_json=as_json, quiet=quiet)
        return
    done = call(work, show, document, as_json=as_json, quiet=quiet, divided=harness is None)
    if launched().first and card and model is not None and against is not None and adapter is None:
        from weight_edit.baking.card.update import fill_in

        measured = done.evaluation.to_dict()
        say_card(fill_in(model, baseline=measured.pop("base", None), edited=measured, base=against))
    if harness is not None and not as_json:
        # What was measured by then is shown, and in the card.
        call(lambda: benchmarks(done.harness), _show_benchmarks, _benchmarks_document, as_json=as_json, quiet=quiet)


def _benchmarks_document(found: "HarnessComparison") -> Mapping[str, object]:
    return {"harness": found.to_dict()}


def _show_benchmarks(found: "HarnessComparison", console: "Console") -> None:
    from weight_edit.cli.tables.harness import benchmarks

    benchmarks(cast("HarnessDocument", found.to_dict()), console)


def _effect(model: str | None, document: "EvaluationDocument") -> "EffectDocument | None":
    """Whether the edit had an effect, with what its folder records of a verification."""
    from weight_edit.baking.card.card_and_manifest import recorded_measurements
    from weight_edit.evaluation.effect import effect_document

    verification = {} if model is None else recorded_measurements(model).get("verification")
    return cast("EffectDocument | None", effect_document(document, verification))


def _sizes(power: str, measured: "Evaluation | None") -> "dict[str, SampleSize]":
    """The numbers of prompts that tell rates apart, by what they are of.

    Raises:
        UsageError: nothing was measured, and no rates are given.
    """
    from weight_edit.evaluation.power import SampleSize, given_rates, sizes_observed

    given = given_rates(power)
    if given is not None:
        return {"given": SampleSize(first=given[0], second=given[1])}
    if measured is None:
        raise UsageError(
            "`power='observed'` needs what is observed; give `against` and `refused` PROMPTS, or two rates",
            option=(*_TWO_MODELS, "refused"),
        )
    return sizes_observed(measured.differences)


def _sizes_document(sizes: "Mapping[str, SampleSize]") -> Mapping[str, object]:
    return {"power": {name: size.to_dict() for name, size in sizes.items()}}


def _show_sizes(sizes: "Mapping[str, SampleSize]", console: "Console") -> None:
    from weight_edit.cli.tables.sample_sizes import sample_sizes

    sample_sizes(sizes, console)
