"""Bake an edit into a checkpoint without loading the model: shards, card and manifest."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.baking.card.card_and_manifest import write_card_and_manifest
from weight_edit.baking.prepare import EditOptions, PreparedEdit, prepare
from weight_edit.baking.writing import WriteOptions, check_is_folder, check_link, opened, space_needed, write_edit
from weight_edit.checkpoint.rewrite.disk_rate import disk_rate
from weight_edit.checkpoint.rewrite.layout import RewritePlan
from weight_edit.checkpoint.rewrite.output import check_output
from weight_edit.checkpoint.rewrite.rewrite import RewriteResult
from weight_edit.directions.file import read_rows
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernels
from weight_edit.hub.base_card import check_id
from weight_edit.hub.source import Named
from weight_edit.plan.plan import parse_layers
from weight_edit.plan.step import EditStep
from weight_edit.tables.shown import Shown
from weight_edit.utils.renamed import renamed_arguments, renamed_values
from weight_edit.utils.settings import validated

if TYPE_CHECKING:
    from weight_edit.directions.directions import Directions

_ROUNDING = 40e-9
"""Seconds for each number that is rounded to its format again, by `benchmarks/quantized_rounding.py`."""


@dataclass(frozen=True, kw_only=True)
class BakeResult(Shown):
    """The written output, or with `dry_run` the output that would be written.

    Attributes:
        path: the output folder.
        tensors: names of the edited tensors, as they are on disk.
        added: names of added tensors (an untied unembedding).
        removed: names of tensors that have no place in the output (scales of tensors that are stored plainly now).
        extra: tensors of the source that no parameter of the model accounts for, kept as they are.
        mtp_kept: tensors of multi-token-prediction layers, which lie beside the model, that are kept as they are.
        mtp_edited: those that are edited; they are among `tensors`.
        other_weights: copied files that look like weights but that transformers does not load: they are not edited.
        skipped: folders of other tools (.git, .cache) that were not copied.
        edit_class: what about the edit is exact, in words; see `exactness`.
        complete: whether nothing along the directions is written to the stream any more.
        files: names and sizes of the output's files, without card and manifest.
        bytes_total: of all these files.
        bytes_edited, bytes_copied, bytes_linked, bytes_kept, bytes_read: see `RewriteResult`; None for a dry run.
        rounding: quantised tensor -> {"format", "kept", "left", "error", "rescaled"}, see `RoundingLoss`.
        nonfinite: copied tensors that have NaN or infinite values -> how many; only with `allow_nonfinite`.
        seconds: wall time of the whole call; for a dry run what writing is expected to take.
        preparing_seconds: of these, what came before the first byte: the model found or fetched, its anatomy derived
            and proven (once for each config), the edit laid out.
        dry_run: whether nothing was written.
    """

    path: Path
    tensors: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    extra: tuple[str, ...]
    other_weights: tuple[str, ...]
    skipped: tuple[str, ...]
    edit_class: str
    complete: bool
    files: dict[str, int]
    bytes_total: int
    bytes_edited: int
    bytes_copied: int
    bytes_linked: int = 0
    bytes_kept: int = 0
    bytes_read: int = 0
    rounding: dict[str, dict[str, Any]] | None = None
    nonfinite: dict[str, int] | None = None
    seconds: float = 0.0
    preparing_seconds: float = 0.0
    dry_run: bool = False
    mtp_kept: tuple[str, ...] = ()
    mtp_edited: tuple[str, ...] = ()

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        would = "would be " if self.dry_run else ""
        return f"BakeResult({str(self.path)!r}, {len(self.tensors)} tensors {would}edited, {self.bytes_total} bytes)"

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, with tensor names in full."""
        written = 0 if self.dry_run else self.bytes_edited + self.bytes_copied
        return {**asdict(self), "path": str(self.path), "bytes_written": written}


@renamed_values
@renamed_arguments(edit="kind", edit_options="options")
def bake(
    model: Named,
    directions: "Directions | DirectionRows | str | Path | Sequence[EditStep]",
    out: str | Path,
    *,
    kind: str = "ablate",
    strength: float = 1.0,
    layers: Collection[int] | str | None = None,
    at: Sequence[int] | int = (),
    kernel: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    embeddings: str = "both",
    projector: str = "edit",
    mtp: str = "skip",
    dequantize: bool = False,
    rounding: str = "balanced",
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    link: bool = False,
    low_disk: bool = False,
    dry_run: bool = False,
    allow_nonfinite: bool = False,
    base_model: str | None = None,
    trust_remote_code: bool = False,
) -> BakeResult:
    """Write an edited copy of a checkpoint; bytes outside of the edit stay the source's.

    Args:
        model: a folder, a GGUF file, a Hub id, "organism", or a loaded model, whose files are edited.
        directions: a `Directions`, its `rows`, or a safetensors file with a tensor `direction`; or several `EditStep`s,
            which are composed in their order in one pass, and say the next six things by themselves.
        out: the output folder; it appears whole or not at all. An edited GGUF file is in there under its own name.
        kind: of the edit, see `edit_kinds`: "ablate", "add", "reflect", "affine", "erase", "norm-preserving".
        strength: 1 is the full edit; of an ablation a fraction removes a part, of an addition it is the factor.
        layers: numbers of the blocks whose writers are edited; all when None; "0-31" is
            understood, too. Embeddings are no block.
        at: blocks at whose inputs the edit is made, of kinds that are made there: "add", "reflect".
        kernel: factors of the strength for "attention" and "mlp", each a kernel or a number for each layer, and for the
            "embedding"; see `Kernels`.
        options: of the kind.
        embeddings: what happens to a tied embedding: "both" edits both, "untie" stores a separate unembedding,
            "skip" leaves the embedding unedited.
        projector: of models that take images or sounds: "edit" also what brings these into the stream, and refuse
            where that could not be followed; "partial" edits what could be; "skip" leaves it as it is.
        mtp: "edit" also the multi-token-prediction layers that lie in the checkpoint beside the model, or "skip".
        dequantize: write edited tensors of quantised formats as bfloat16, instead of rounding them to their format.
        rounding: of quantised formats: "balanced" keeps the edit at the price of up to a step of the format for each
            number; "nearest" stays within half a step, and can round the edit away.
        revision, token: of a Hub model.
        overwrite: replace an earlier output.
        resume: go on with a bake of the same output that was interrupted, after checking what it had finished.
        link: make hard links of untouched files instead of copies; for experiments on one file system.
        low_disk: of a Hub model, download one shard at a time, and delete it when it is written.
        dry_run: write nothing, and say what would be written.
        allow_nonfinite: copy tensors with NaN or infinite values that no edit touches, instead of refusing the model.
        base_model: the model's id on the Hub, for the card of an edit of a local folder.
        trust_remote_code: allow the model's own configuration and modelling code.

    Raises:
        UsageError: wrong input (exit code 2).
        UnsupportedError: a model or edit that is not supported (exit code 3).
    """
    began = time.monotonic()
    how = EditOptions(embeddings, dequantize, rounding, projector, mtp)
    if base_model is not None:
        check_id(base_model)
    target = Path(out)
    check_is_folder(target)
    check_output(target, overwrite)
    steps = steps_of(directions, kind=kind, strength=strength, layers=layers, at=at, kernel=kernel, options=options)
    check_link(link, low_disk)
    with opened(model, target, low_disk=low_disk, revision=revision, token=token) as (source, shards):
        baking = prepare(source, steps, how, shards=shards, trust_remote_code=trust_remote_code)
        plan = baking.rewrite_plan()
        needed = space_needed(plan, link, shards)
        if dry_run:
            check_output(target, overwrite, needed_bytes=needed, source=source.path)
            return planned(baking, plan, target, needed)
        prepared = time.monotonic() - began

        def finish(folder: Path, written: RewriteResult) -> None:
            write_card_and_manifest(folder, baking.manifest(written.losses, base_model), written.files)

        written = write_edit(
            plan,
            target,
            finish,
            options=WriteOptions(overwrite=overwrite, resume=resume, link=link, allow_nonfinite=allow_nonfinite),
            needed_bytes=needed,
            source=source.path,
        )
    found = baked(baking, plan, target, written)
    return replace(found, seconds=time.monotonic() - began, preparing_seconds=prepared)


def steps_of(
    directions: "Directions | DirectionRows | str | Path | Sequence[EditStep]",
    kind: str = "ablate",
    strength: float = 1.0,
    layers: Collection[int] | str | None = None,
    at: Sequence[int] | int = (),
    kernel: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[EditStep]:
    """The steps of an edit: the given ones, or one step built from the other arguments.

    Raises:
        UsageError: arguments that make no sense together, or no such kind of edit.
    """
    if isinstance(directions, Sequence) and not isinstance(directions, str):
        return list(directions)
    kernels = None if kernel is None else validated(Kernels, kernel, "kernel")
    # As the command line and recipes write them, too.
    layers = parse_layers(layers) if isinstance(layers, str) else layers
    at = (at,) if isinstance(at, int) else at
    chosen = None if layers is None else frozenset(layers)
    return [
        EditStep(
            directions=rows_of(directions),
            kind=kind,
            strength=strength,
            layers=chosen,
            at=tuple(at),
            kernel=kernels,
            options=options or {},
        )
    ]


def rows_of(directions: "Directions | DirectionRows | str | Path") -> DirectionRows:
    """The direction rows of any form in which directions may be given.

    Raises:
        UsageError: a file that cannot be used, see `read_rows`.
    """
    if isinstance(directions, DirectionRows):
        return directions
    return read_rows(directions) if isinstance(directions, str | Path) else directions.rows


def baked(baking: PreparedEdit, plan: RewritePlan, target: Path, written: RewriteResult) -> BakeResult:
    """The result of an edit that was written; its times are 0."""
    return replace(
        planned(baking, plan, target),
        bytes_edited=written.bytes_edited,
        bytes_copied=written.bytes_copied,
        bytes_linked=written.bytes_linked,
        bytes_kept=written.bytes_kept,
        bytes_read=written.bytes_read,
        seconds=0.0,
        rounding=baking.rounding(written.losses) or None,
        nonfinite=dict(written.nonfinite) or None,
        dry_run=False,
    )


def planned(baking: PreparedEdit, plan: RewritePlan, target: Path, needed: int = 0) -> BakeResult:
    """The result of an edit that is not written, which would need so many bytes."""
    mtp_edited = frozenset(baking.mtp_edited)
    return BakeResult(
        path=target,
        tensors=plan.edited,
        added=plan.added,
        removed=plan.removed,
        extra=baking.unknown,
        other_weights=plan.other_weights,
        skipped=plan.source.skipped,
        edit_class=baking.exactness,
        complete=baking.plan.complete,
        files={file.name: file.size for file in plan.files},
        bytes_total=plan.size,
        bytes_edited=plan.bytes_edited,
        bytes_copied=plan.size - plan.bytes_edited,
        seconds=max(needed / disk_rate(target), baking.tensors.rounded * _ROUNDING) if needed else 0.0,
        dry_run=True,
        mtp_kept=tuple(name for name in baking.mtp if name not in mtp_edited),
        mtp_edited=baking.mtp_edited,
    )
