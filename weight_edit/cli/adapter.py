"""The verb `adapter`: the edit as a PEFT LoRA adapter."""

from typing import TYPE_CHECKING

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
    orthonormalize: Orthonormalize = False,
    overwrite: Overwrite = False,
    base_model: BaseModel = None,
    revision: Revision = None,
    token: Token = None,
    trust_remote_code: Remote = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the edit as an exact PEFT LoRA adapter, of rank one per direction for writer edits.

    Edits that are not of low rank are refused. One that adds between blocks needs no bias of the model.

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
        said = f"{result.path}: rank {result.rank}, {len(result.modules)} modules. Exactness: {exactness}."
        console.print(said, markup=False, highlight=False)
        # Else they were said before anything was written.
        for note in result.notes if quiet else ():
            console.print(f"note: {note}", markup=False, highlight=False)
        suggest(console, "evaluate", model, "--adapter", result.path, "--against", model, "--refused", "PROMPTS")

    call(work, show, as_dict, as_json=as_json, quiet=quiet)
