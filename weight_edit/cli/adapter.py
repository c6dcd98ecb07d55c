"""The verb `adapter`: the edit as a PEFT LoRA adapter."""

from typing import TYPE_CHECKING, Annotated

import typer

from weight_edit.cli.call import as_dict, call
from weight_edit.cli.options import (
    At,
    BaseModel,
    DirectionsFile,
    EditKind,
    EditOption,
    Embeddings,
    Json,
    Kernel,
    Layers,
    Model,
    Orthonormalize,
    Out,
    Overwrite,
    Projector,
    Quiet,
    Remote,
    Revision,
    Strength,
    Token,
)
from weight_edit.cli.values import numbers
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.adapters.adapter import AdapterResult


def adapter(
    model: Model,
    directions: DirectionsFile,
    out: Out,
    kind: EditKind = "ablate",
    strength: Strength = 1.0,
    layers: Layers = None,
    at: At = None,
    kernel: Kernel = None,
    option: EditOption = None,
    embeddings: Embeddings = "both",
    projector: Projector = "edit",
    rank: Annotated[
        int | None,
        typer.Option(help="The largest rank; what an edit of a higher one loses is measured and said."),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,...",
            help="Strengths at which it will be served, `0.25,0.5,1`: a folder of each for PEFT and vLLM, with the "
            "same weights; refused where a dosed adapter is not the bake of that strength.",
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="For PEFT and vLLM, or for llama.cpp; that of MODEL by default."),
    ] = None,
    orthonormalize: Orthonormalize = False,
    overwrite: Overwrite = False,
    base_model: BaseModel = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the edit as an exact LoRA adapter, of rank one per direction for writer edits.

    For a folder it is PEFT's; for a GGUF file it is llama.cpp's, and of `--kind add` a control vector. Edits that are
    not of low rank are refused without `--rank`. One that adds between blocks needs no bias of the model.

    Example: `weight-edit adapter organism --directions d.safetensors --out adapter`
    """

    def work() -> "AdapterResult":
        from weight_edit.checkpoint.rewrite.output import check_output
        from weight_edit.cli.edit_steps import edit_steps

        steps = edit_steps(
            directions,
            orthonormalize=orthonormalize,
            kind=kind,
            strength=strength,
            layers=layers,
            at=at,
            kernel=kernel,
            option=option,
        )
        # Takes seconds to import: what is wrong with the call is said at once.
        check_output(out, overwrite)
        with starting():
            from weight_edit.adapters.adapter import adapter as write

        return write(
            model,
            steps,
            out,
            embeddings=embeddings,
            projector=projector,
            rank=rank,
            strengths=numbers(strengths, "--strengths"),
            file_format=file_format,
            revision=revision,
            token=token,
            overwrite=overwrite,
            base_model=base_model,
            trust_remote_code=trust_remote_code,
        )

    def show(result: "AdapterResult", console: "Console") -> None:
        from weight_edit.cli.tables.results import suggest
        from weight_edit.plan.exactness import plain_exactness

        exactness = plain_exactness(result.edit_class)
        what = "tensors" if result.file_format == "gguf" else "modules"
        said = f"{result.path}: rank {result.rank}, {len(result.modules)} {what}. Exactness: {exactness}."
        console.print(said, markup=False, highlight=False)
        # Else they were said before anything was written.
        for note in result.notes if quiet else ():
            console.print(f"note: {note}", markup=False, highlight=False)
        if result.file_format == "gguf":
            for file in result.files:
                option = "--lora" if file.startswith("adapter") else "--control-vector"
                console.print(f"llama-server -m {model} {option} {result.path / file}", markup=False, highlight=False)
            return
        from weight_edit.adapters.peft_adapter import strength_folder

        for strength in result.strengths:
            console.print(
                f"{strength_folder(result.path, strength)}: the edit times {strength:g}", markup=False, highlight=False
            )
        suggest(console, "evaluate", model, "--adapter", result.path, "--against", model, "--refused", "PROMPTS")

    call(work, show, as_dict, as_json=as_json, quiet=quiet)
