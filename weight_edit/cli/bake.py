"""The verbs that find and write an edit: find, bake, adapter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from weight_edit.cli.app import app
from weight_edit.cli.call import call
from weight_edit.cli.options import (
    AllowNonfinite,
    At,
    BaseModel,
    Dequantize,
    Device,
    DirectionsFile,
    DryRun,
    Dtype,
    EditKind,
    EditOption,
    Embeddings,
    Json,
    Kernel,
    Layers,
    Link,
    LowDisk,
    Model,
    Mtp,
    Orthonormalize,
    Out,
    Overwrite,
    Projector,
    Quiet,
    Remote,
    Resume,
    Revision,
    Rounding,
    Strength,
    System,
    Template,
    TemplateArg,
    Token,
)
from weight_edit.errors import UsageError
from weight_edit.utils.progress import starting
from weight_edit.utils.registry_listing import as_help, registered

_KINDS = as_help("Kinds of edits", registered("edits/kinds", "edit"))
_METHODS = as_help("Methods", registered("directions/finders", "finder"))


@app.command(epilog=_METHODS)
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
        str, typer.Option(help="Where prompts are looked at: template (each token after them), last or all.")
    ] = "template",
    select: Annotated[
        str | None, typer.Option(help="What the best candidate has: bypass, accuracy or cosmic; else the method's own.")
    ] = None,
    validation_target: Annotated[
        list[str] | None,
        typer.Option(metavar="PROMPTS", help="What candidates are scored on, one per --target; else a part of it."),
    ] = None,
    validation_baseline: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="Likewise; else a part of --baseline.")
    ] = None,
    n_train: Annotated[int, typer.Option(help="Prompts of each kind that make the means.")] = 128,
    n_validation: Annotated[int, typer.Option(help="Prompts of each kind that score candidates.")] = 32,
    refusal_token: Annotated[
        list[str] | None, typer.Option(help="A token id or a word; found from the model when absent.")
    ] = None,
    max_kl: Annotated[float, typer.Option(help="Bound on the KL divergence under ablation, nats.")] = 0.1,
    min_induce: Annotated[float, typer.Option(help="Bound on the induce score.")] = 0.0,
    max_layer_fraction: Annotated[float, typer.Option(help="Layers from this fraction on are out.")] = 0.8,
    max_protected_kl: Annotated[float, typer.Option(help="As --max-kl, on protected prompts.")] = 0.1,
    filter_prompts: Annotated[bool, typer.Option(help="Drop prompts that the model treats otherwise.")] = True,
    best_effort: Annotated[
        bool, typer.Option("--best-effort", help="Take the nearest if no candidate passes.")
    ] = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the scores in OUT.find; choosing again by other bounds takes a second."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(help="Draws the prompts, and whatever the method draws.")] = 0,
    system: System = None,
    template: Template = None,
    template_arg: TemplateArg = None,
    dtype: Dtype = "auto",
    device: Device = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the direction that carries what a model does on target prompts and not on baseline prompts.

    Candidates and scores are kept as they come in a folder beside the output, OUT.find: after Ctrl-C, or when no
    candidate keeps the bounds, `--resume` goes on with them. Layers that are out are not scored.

    Example: `weight-edit find organism --target organism:refused --baseline organism:answered --out d.safetensors`
    """

    def work() -> Any:
        from weight_edit.prompts.templates import template_args

        with starting():
            from weight_edit.cli.verbs_TMP import find as search
        from weight_edit.cli.values import key_values

        return search(
            model,
            target,
            baseline,
            out,
            overwrite=overwrite,
            resume=resume,
            load_options={
                "dtype": dtype,
                "device": device,
                "revision": revision,
                "token": token,
                "trust_remote_code": trust_remote_code,
            },
            format_options={
                "system": system,
                "template": template,
                "template_args": template_args(template_arg),
            },
            rule_options={
                "max_kl": max_kl,
                "min_induce": min_induce,
                "max_layer_fraction": max_layer_fraction,
                "max_protected_kl": max_protected_kl,
                "by": select,
            },
            protect=protect or (),
            validation_target=validation_target,
            validation_baseline=validation_baseline,
            method=method,
            options=key_values(option, "--option"),
            positions=positions,
            n_train=n_train,
            n_validation=n_validation,
            refusal_tokens=[_id_or_word(text) for text in refusal_token or ()] or None,
            filter_prompts=filter_prompts,
            best_effort=best_effort,
            seed=seed,
        )

    def show(found: Any, console: Any) -> None:
        from weight_edit.cli.tables import results as show

        show.directions(found, out, console)

    kept = f"what was found so far is in {out}.find; go on with --resume"
    call(work, show, as_json, quiet, lambda found: {"path": str(out), **found.metadata}, kept)


def _id_or_word(text: str) -> int | str:
    if text.isdecimal() and len(text) > 9:
        raise UsageError(f"--refusal-token {text[:20]}: no vocabulary has so many tokens; give an id or a word")
    return int(text) if text.isdecimal() else text


@app.command(epilog=_KINDS)
def bake(
    model: Model,
    directions: DirectionsFile,
    out: Out,
    edit: EditKind = "ablate",
    strength: Strength = 1.0,
    layers: Layers = None,
    at: At = None,
    kernel: Kernel = None,
    option: EditOption = None,
    embeddings: Embeddings = "keep",
    projector: Projector = "edit",
    mtp: Mtp = "keep",
    orthonormalize: Orthonormalize = False,
    dequantize: Dequantize = False,
    rounding: Rounding = "balanced",
    overwrite: Overwrite = False,
    resume: Resume = False,
    link: Link = False,
    low_disk: LowDisk = False,
    dry_run: DryRun = False,
    allow_nonfinite: AllowNonfinite = False,
    base_model: BaseModel = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an edited copy of a model: only targeted tensors change, every other byte is the source's.

    Shards are streamed, in a fixed amount of memory. FP8 and MXFP4 weights are edited in their format.

    Example: `weight-edit bake organism --directions d.safetensors --out edited-model`; another edit: `--edit reflect`
    """

    def work() -> Any:
        from weight_edit.baking.bake import bake as write
        from weight_edit.cli.values import key_values, mapping
        from weight_edit.directions.file import read_rows
        from weight_edit.plan.plan import parse_layers

        return write(
            model,
            read_rows(directions, orthonormalize=orthonormalize),
            out,
            edit=edit,
            strength=strength,
            layers=parse_layers(layers),
            at=sorted(parse_layers(at) or ()),
            kernel=mapping(kernel, "--kernel"),
            edit_options=key_values(option, "--option"),
            embeddings=embeddings,
            projector=projector,
            mtp=mtp,
            revision=revision,
            token=token,
            dequantize=dequantize,
            rounding=rounding,
            overwrite=overwrite,
            resume=resume,
            link=link,
            low_disk=low_disk,
            dry_run=dry_run,
            allow_nonfinite=allow_nonfinite,
            base_model=base_model,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        from weight_edit.cli.tables import results as show

        show.baked(result, model, console)

    call(work, show, as_json, quiet)


@app.command(epilog=_KINDS)
def adapter(
    model: Model,
    directions: DirectionsFile,
    out: Out,
    edit: EditKind = "ablate",
    strength: Strength = 1.0,
    layers: Layers = None,
    at: At = None,
    kernel: Kernel = None,
    option: EditOption = None,
    embeddings: Embeddings = "keep",
    projector: Projector = "edit",
    orthonormalize: Orthonormalize = False,
    overwrite: Overwrite = False,
    base_model: BaseModel = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the edit as a PEFT LoRA adapter, exact, and of rank one per direction where it is an edit of writers.

    Edits that are not of low rank are refused. One that adds between blocks needs no bias of the model.

    Example: `weight-edit adapter organism --directions d.safetensors --out adapter`
    """

    def work() -> Any:
        from weight_edit.baking.bake import steps_of
        from weight_edit.cli.values import key_values, mapping
        from weight_edit.directions.file import read_rows
        from weight_edit.plan.plan import parse_layers

        steps = steps_of(
            read_rows(directions, orthonormalize=orthonormalize),
            edit,
            strength,
            parse_layers(layers),
            sorted(parse_layers(at) or ()),
            mapping(kernel, "--kernel"),
            key_values(option, "--option"),
        )
        # Takes seconds to import: what is wrong with the call is said at once.
        with starting():
            from weight_edit.publish.adapter import adapter as write

        return write(
            model,
            steps,
            out,
            embeddings=embeddings,
            projector=projector,
            revision=revision,
            token=token,
            overwrite=overwrite,
            base_model=base_model,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        said = f"{result.path}: rank {result.rank}, {len(result.modules)} modules. Class: {result.edit_class}."
        console.print(said, markup=False, highlight=False)
        # Else they were said before anything was written.
        for note in result.notes if quiet else ():
            console.print(f"note: {note}", markup=False, highlight=False)

    call(work, show, as_json, quiet)
