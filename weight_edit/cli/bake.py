"""The verb `bake`: an edited copy of a model."""

from typing import TYPE_CHECKING

from weight_edit.cli.call import RESUMED, as_dict, call
from weight_edit.cli.options import (
    AllowNonfinite,
    At,
    BaseModel,
    Dequantize,
    DirectionsFile,
    DryRun,
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
    Token,
)

if TYPE_CHECKING:
    from rich.console import Console

    from weight_edit.baking.bake import BakeResult


def bake(
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
    mtp: Mtp = "skip",
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

    Shards are streamed, in a fixed amount of memory. Quantised weights are edited in their format, GGUF files too.

    Example: `weight-edit bake organism --directions d.safetensors --out edited-model`; another edit: `--kind reflect`
    """

    def work() -> "BakeResult":
        from weight_edit.baking.bake import bake as write
        from weight_edit.cli.edit_steps import edit_steps

        return write(
            model,
            edit_steps(
                directions,
                orthonormalize=orthonormalize,
                kind=kind,
                strength=strength,
                layers=layers,
                at=at,
                kernel=kernel,
                option=option,
            ),
            out,
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

    def show(result: "BakeResult", console: "Console") -> None:
        from weight_edit.cli.tables.results import baked

        baked(result, model, console)

    call(work, show, as_dict, as_json=as_json, quiet=quiet, kept=RESUMED)
