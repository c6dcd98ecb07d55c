"""The verbs that find and write an edit: find, bake, adapter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from weight_edit.calling import call
from weight_edit.commands.app import app
from weight_edit.options import (
    Dequantize,
    Device,
    DirectionsFile,
    DryRun,
    Dtype,
    Embeddings,
    Json,
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
    Token,
)


@app.command()
def find(
    model: Model,
    target: Annotated[str, typer.Option(metavar="PROMPTS", help="Prompts that show the behaviour.")],
    baseline: Annotated[str, typer.Option(metavar="PROMPTS", help="Generic prompts that do not.")],
    out: Annotated[Path, typer.Option(help="The directions file to write.")] = Path("directions.safetensors"),
    method: Annotated[str, typer.Option(help="How directions are found.")] = "mean-difference",
    validation_target: Annotated[
        str | None, typer.Option(metavar="PROMPTS", help="What candidates are scored on; else a part of --target.")
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
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an edited copy of a model: only targeted tensors change, every other byte is the source's.

    Shards are streamed, in a fixed amount of memory. FP8 and MXFP4 weights are edited in their format.

    Example: `weight-edit bake organism --directions d.safetensors --out edited-model`
    """

    def work() -> Any:
        from weight_edit.baking import bake as write
        from weight_edit.directions.file import read_rows
        from weight_edit.plan import parse_layers

        return write(
            model,
            read_rows(directions, orthonormalize=orthonormalize),
            out,
            edit=edit,
            strength=strength,
            layers=parse_layers(layers),
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
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        from weight_edit import show

        show.baked(result, model, console)

    call(work, show, as_json, quiet)


@app.command()
def adapter(
    model: Model,
    directions: DirectionsFile,
    out: Out,
    strength: Strength = 1.0,
    layers: Layers = None,
    embeddings: Embeddings = "keep",
    projector: Projector = "edit",
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
        from weight_edit.directions.file import read_rows
        from weight_edit.plan import parse_layers
        from weight_edit.publish.adapter import adapter as write

        return write(
            model,
            read_rows(directions, orthonormalize=orthonormalize),
            out,
            strength=strength,
            layers=parse_layers(layers),
            embeddings=embeddings,
            projector=projector,
            revision=revision,
            token=token,
            overwrite=overwrite,
            trust_remote_code=trust_remote_code,
        )

    def show(result: Any, console: Any) -> None:
        console.print(f"{result.path}: rank {result.rank}, {len(result.modules)} modules", markup=False)

    call(work, show, as_json, quiet)
