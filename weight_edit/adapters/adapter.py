"""The verb `adapter`: an edit written as an adapter of the unedited model, for PEFT and vLLM or for llama.cpp."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weight_edit.adapters.gguf_adapter import write_gguf
from weight_edit.adapters.limits import check_rank
from weight_edit.adapters.peft_adapter import write_peft
from weight_edit.adapters.request import AdapterRequest
from weight_edit.adapters.strengths import check_strengths
from weight_edit.baking.bake import steps_of
from weight_edit.baking.card.card_and_manifest import write_card_and_manifest
from weight_edit.checkpoint.gguf.parts import gguf_files
from weight_edit.checkpoint.manifest import record
from weight_edit.checkpoint.rewrite.output import check_output, staged
from weight_edit.directions.directions import Directions
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UnsupportedError
from weight_edit.hub.base_card import check_id
from weight_edit.hub.source import Named, Source, resolve
from weight_edit.plan.step import EditStep
from weight_edit.tables.shown import Shown
from weight_edit.utils.extras import need
from weight_edit.utils.names import check_known
from weight_edit.utils.renamed import renamed_arguments, renamed_values

FORMATS = ("peft", "gguf")


@dataclass(frozen=True, kw_only=True)
class AdapterResult(Shown):
    """The written adapter.

    Attributes:
        path: the folder.
        file_format: "peft" or "gguf".
        modules: what is adapted: modules, parameters that hold experts, or a GGUF file's tensors.
        rank: of the adapter; 0 of a control vector.
        edit_class: what about the edit is exact, in words.
        strengths: at which it may be dosed, measured to be the bake at that strength; empty where none were asked for.
        truncation: what a smaller rank than the edit's loses, see `Truncation`: "error", "kept", "left", and the same
            of each module under "modules"; None for an exact adapter.
        whole: modules whose weights are stored whole: an unembedding that would be merged with the embedding.
        files: names of the files, without card and manifest.
        notes: what merging changes, or that it cannot be done: sentences.
    """

    path: Path
    file_format: str = "peft"
    modules: tuple[str, ...]
    rank: int
    edit_class: str
    strengths: tuple[float, ...] = ()
    truncation: Mapping[str, Any] | None = None
    whole: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"AdapterResult({str(self.path)!r}, rank {self.rank}, {len(self.modules)} modules)"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        lists = {name: list(getattr(self, name)) for name in ("modules", "strengths", "whole", "files", "notes")}
        return {**asdict(self), **lists, "path": str(self.path)}


@renamed_values
@renamed_arguments(edit="kind", edit_options="options")
def adapter(
    model: Named,
    directions: Directions | DirectionRows | str | Path | Sequence[EditStep],
    out: str | Path,
    *,
    kind: str = "ablate",
    strength: float = 1.0,
    layers: frozenset[int] | None = None,
    at: Sequence[int] | int = (),
    kernel: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    embeddings: str = "both",
    projector: str = "edit",
    rank: int | None = None,
    strengths: Sequence[float] = (),
    file_format: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> AdapterResult:
    """Write the edit as a LoRA adapter that `peft.PeftModel` loads onto the unedited model, or llama.cpp.

    It holds through merging, saving and loading. Where the embedding is tied, PEFT merges into one tensor what two
    modules have: so the mode "both" adapts the embedding alone, and the unembedding goes with it once they are merged,
    as in baking, and not before; "untie" stores the unembedding whole (PEFT's `modules_to_save`), before and after.
    PEFT's `ensure_weight_tying` would be no help: it merges the embedding's share twice as well.
    Biases of writers are stored in the adapter (PEFT's `bias="lora_only"`). One that a writer has not is
    the adapter's own (`lora_bias`), whatever the model's config can create; such an adapter cannot be merged.

    Args:
        model, directions, kind, strength, layers, at, kernel, options, embeddings, projector: as in `bake`.
        out: the adapter's folder.
        rank: the largest rank; what an edit of a higher one loses is measured. None for exact adapters alone.
        strengths: at which the adapter will be served. They are refused where a dosed adapter would not be the bake at
            that strength; of each but 1 there is a folder `strength-S`, with PEFT's scale set and the same weights.
        file_format: "peft", or "gguf" for llama.cpp: an adapter of a GGUF file, a control vector of an edit that adds
            vectors, or both. None for that of the model.
        base_model: as in `bake`.

    Raises:
        UsageError, UnsupportedError: as in `bake`; also an edit that is not of low rank, and what the runtime cannot
            carry.
    """
    target = Path(out)
    check_rank(rank)
    if file_format is not None:
        check_known("format of adapters", file_format, FORMATS)
    dosed = check_strengths(strengths)
    if base_model is not None:
        check_id(base_model)
    check_output(target, overwrite)
    steps = steps_of(directions, kind=kind, strength=strength, layers=layers, at=at, kernel=kernel, options=options)
    source = resolve(model, revision=revision, token=token)
    chosen = _format_of(source, file_format)
    if chosen == "gguf":
        need("gguf", "an adapter for llama.cpp", "file_format")
    request = AdapterRequest(
        source=source,
        steps=tuple(steps),
        embeddings=embeddings,
        projector=projector,
        rank=rank,
        strengths=dosed,
        base_model=base_model,
        trust_remote_code=trust_remote_code,
    )
    with staged(target, overwrite=overwrite, source=source.path) as folder:
        made = (write_peft if chosen == "peft" else write_gguf)(request, folder)
        write_card_and_manifest(folder, made.summary, {name: record(folder, name, "added") for name in made.files})
    return AdapterResult(
        path=target,
        file_format=chosen,
        modules=made.modules,
        rank=made.rank,
        edit_class=made.summary["edit"]["class"],
        strengths=dosed,
        truncation=made.truncation,
        whole=made.whole,
        files=made.files,
        notes=made.notes,
    )


def _format_of(source: Source, asked: str | None) -> str:
    """The format of a model's adapter.

    Raises:
        UnsupportedError: another one was asked for.
    """
    is_gguf = gguf_files(source.path) is not None
    if is_gguf and asked == "peft":
        raise UnsupportedError(
            f"{source.public_name} is a GGUF file, for which llama.cpp's adapters are (`file_format='gguf'`); make "
            "PEFT's for the folder that the file was converted from, or edit the file itself with bake",
            option="file_format",
        )
    return asked or ("gguf" if is_gguf else "peft")
