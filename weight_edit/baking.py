"""Bake an edit into a checkpoint: config and directions in, edited shards and a manifest out, no model loaded."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.anatomy import Anatomy
from weight_edit.anatomy.disk import DiskNames, names_on_disk
from weight_edit.anatomy.proven import proven_anatomy
from weight_edit.checkpoint.manifest import FileRecord
from weight_edit.checkpoint.output import check_output, staged
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.directions.file import DirectionRows, read_rows
from weight_edit.directions.packing import packed
from weight_edit.edits import TensorEdit
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan import EditPlan, edit_plan
from weight_edit.publish.finishing import README, base_card_name, write_card_and_manifest
from weight_edit.runtime.sources import Source, resolve
from weight_edit.version import __version__

if TYPE_CHECKING:
    from weight_edit.directions.artifact import Directions

PLAIN = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The formats that can be edited, and their names in torch."""


@dataclass(frozen=True)
class EditOptions:
    """How an edit is made, as the command line and recipes say it.

    Attributes:
        edit: the kind of edit; "ablate" is the one there is.
        strength: 1 removes the component, a fraction removes a part, 2 reflects it.
        layers: blocks whose writers are edited; all when None.
        embeddings: "keep", "untie" or "skip", see `weight_edit.plan.EditPlan`.
    """

    edit: str = "ablate"
    strength: float = 1.0
    layers: frozenset[int] | None = None
    embeddings: str = "keep"

    def __post_init__(self) -> None:
        if self.edit != "ablate":
            raise UnsupportedError(f"edit '{self.edit}' is not supported; the one that is: ablate")
        if not 0 < self.strength <= 2:
            raise UsageError(f"strength {self.strength} is outside of (0, 2]; 1 removes the direction")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        layers = None if self.layers is None else sorted(self.layers)
        return {"edit": self.edit, "strength": self.strength, "layers": layers, "embeddings": self.embeddings}


@dataclass(frozen=True)
class BakeResult:
    """What was written.

    Attributes:
        path: the output folder.
        tensors: names of the edited tensors, as they are on disk.
        added: names of added tensors (an untied unembedding).
        extra: tensors of the source that no parameter of the model accounts for, kept as they are.
        other_weights: copied files that look like weights but that transformers does not load: they are not edited.
        skipped: folders of other tools (.git, .cache) that were not copied.
        complete: whether nothing along the directions is written to the stream any more.
        bytes_copied, bytes_edited: sizes.
    """

    path: Path
    tensors: tuple[str, ...]
    added: tuple[str, ...]
    extra: tuple[str, ...]
    other_weights: tuple[str, ...]
    skipped: tuple[str, ...]
    complete: bool
    bytes_copied: int
    bytes_edited: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; long lists of tensors as they are."""
        return {
            "path": str(self.path),
            "tensors": list(self.tensors),
            "added": list(self.added),
            "extra": list(self.extra),
            "other_weights": list(self.other_weights),
            "skipped": list(self.skipped),
            "complete": self.complete,
            "bytes_copied": self.bytes_copied,
            "bytes_edited": self.bytes_edited,
        }


@dataclass
class Baking:
    """A prepared edit of one checkpoint: everything decided, nothing written yet."""

    source: Source
    checkpoint: Checkpoint
    anatomy: Anatomy
    disk: DiskNames
    plan: EditPlan
    directions: DirectionRows
    options: EditOptions
    records: dict[str, FileRecord] = field(default_factory=dict)

    def write(self, folder: Path) -> BakeResult:
        """Write the edited checkpoint, without card and manifest, into an existing empty folder."""
        from weight_edit.checkpoint.rewrite import rewrite

        added: dict[str, Any] = {}
        config: dict[str, Any] = {}
        if self.plan.unties:
            embedding = self.disk.names[self.anatomy.embedding_weight]
            if self.anatomy.unembedding_weight not in self.disk.names:
                added[self.anatomy.unembedding_weight] = self.checkpoint.read(embedding)
            config["tie_word_embeddings"] = False
        result = rewrite(self.checkpoint, folder, self.tensor_edits(), added=added, config=config)
        self.records = dict(result.files)
        return BakeResult(
            folder,
            tuple(result.edited),
            tuple(result.added),
            self.disk.extra,
            tuple(result.other_weights),
            tuple(result.skipped),
            self.plan.complete,
            result.bytes_copied,
            result.bytes_edited,
        )

    def tensor_edits(self) -> dict[str, TensorEdit]:
        """Tensor name on disk to the map that it goes through, and along which axis."""
        edits = {self.disk.names[parameter]: change for parameter, change in self.plan.tensors().items()}
        unembedding = self.disk.names.get(self.anatomy.unembedding_weight)
        if self.plan.tied_map is not None and unembedding is not None:
            # A tied checkpoint that stores both copies must keep them equal.
            edits[unembedding] = edits[self.disk.names[self.anatomy.embedding_weight]]
        return edits

    def finish(self, folder: Path) -> None:
        """Write the model card and the manifest; the source's card is kept beside the new one."""
        if self.base_card is not None:
            (folder / README).rename(folder / self.base_card)
            self.records[self.base_card] = self.records.pop(README)
        write_card_and_manifest(folder, self.summary(), self.records)

    def summary(self) -> dict[str, Any]:
        """What was edited and how, as the manifest says it; enough for `verify` to do the edit again."""
        return {
            "weight_edit": __version__,
            "source": {
                "model": self.source.public_name,
                "on_hub": self.source.on_hub,
                "revision": self.source.revision,
                "architecture": self.anatomy.architecture,
            },
            "edit": {**self.options.to_dict(), "class": self.exactness, "complete": self.plan.complete},
            "directions": {
                **packed(self.plan.directions),
                **{
                    key: self.directions.metadata[key]
                    for key in ("method", "layer", "position", "revision", "prompts")
                    if key in self.directions.metadata
                },
            },
            "tensors": sorted(self.tensor_edits()),
            "tensors_added": self.added_names,
            "config_changed": ["tie_word_embeddings"] if self.plan.unties else [],
            "tensors_unknown": list(self.disk.extra),
            "weights_not_edited": list(self.checkpoint.other_weights),
            "base_card": self.base_card,
        }

    @property
    def base_card(self) -> str | None:
        """The name under which the source's card is kept; None when it has none."""
        files = self.checkpoint.other_files
        return base_card_name(files) if README in files else None

    @property
    def added_names(self) -> list[str]:
        """Tensors that the source does not have."""
        missing = self.anatomy.unembedding_weight not in self.disk.names
        return [self.anatomy.unembedding_weight] if self.plan.unties and missing else []

    @property
    def exactness(self) -> str:
        """The edit's class, as the design's table has it."""
        if self.plan.tied_map is not None:
            return "exact in weights; the unembedding is tied to the embedding and changes with it"
        biases = any(edit.writer.bias for edit in self.plan.edits)
        return "exact in weights and biases" if biases else "exact in weights"


def prepare(
    source: Source,
    directions: DirectionRows,
    options: EditOptions,
    *,
    trust_remote_code: bool = False,
) -> Baking:
    """Open and check everything, and lay out the edit over an anatomy that was proven on a narrow copy.

    Raises:
        UsageError: unreadable files, or directions that do not fit.
        UnsupportedError: an architecture or layout that is not understood, or whose proof fails.
    """
    checkpoint = Checkpoint.open(source.path)
    anatomy, _ = proven_anatomy(source.path, name=source.name, trust_remote_code=trust_remote_code)
    directions.check_width(anatomy.d_model)
    disk = names_on_disk(anatomy, {name: info.shape for name, info in checkpoint.tensors.items()})
    _check_formats(checkpoint, anatomy, disk)
    _check_tied_copies(checkpoint, anatomy, disk)
    plan = edit_plan(
        anatomy,
        directions.rows,
        lambda parameter: checkpoint.values(disk.names[parameter]),
        strength=options.strength,
        layers=options.layers,
        embeddings=options.embeddings,
    )
    if not plan.edits:
        raise UsageError("no writer is edited: with no layers and --embeddings skip there is nothing to do")
    return Baking(source, checkpoint, anatomy, disk, plan, directions, options)


def bake(
    model: str | Path,
    directions: "Directions | DirectionRows | str | Path",
    out: str | Path,
    *,
    edit: str = "ablate",
    strength: float = 1.0,
    layers: Collection[int] | None = None,
    embeddings: str = "keep",
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> BakeResult:
    """Write an edited copy of a checkpoint; every byte that is not the edit's stays the source's.

    Args:
        model: a folder, a Hub id, or "organism".
        directions: a `Directions`, its `rows`, or a safetensors file with a tensor `direction`.
        out: the output folder; it appears whole or not at all.
        edit: "ablate", directional ablation.
        strength: 1 removes the component along the directions, a fraction removes a part, 2 reflects it.
        layers: numbers of the blocks whose writers are edited; all when None. Embeddings are no block.
        embeddings: what happens to a tied embedding: "keep" edits both, "untie" stores a separate unembedding,
            "skip" leaves the embedding unedited.
        revision, token: of a Hub model.
        overwrite: replace an earlier output.
        trust_remote_code: allow the model's own configuration and modelling code.

    Raises:
        UsageError: wrong input (exit code 2).
        UnsupportedError: a model or edit that is not supported (exit code 3).
    """
    from weight_edit.checkpoint.rewrite import needed_bytes

    options = EditOptions(edit, strength, None if layers is None else frozenset(layers), embeddings)
    target = Path(out)
    check_output(target, overwrite)
    found = rows_of(directions)
    source = resolve(model, revision=revision, token=token)
    baking = prepare(source, found, options, trust_remote_code=trust_remote_code)
    needed = needed_bytes(baking.checkpoint)
    with staged(target, overwrite=overwrite, needed_bytes=needed, source=source.path) as folder:
        result = baking.write(folder)
        baking.finish(folder)
    return BakeResult(**{**result.__dict__, "path": target})


def rows_of(directions: "Directions | DirectionRows | str | Path") -> DirectionRows:
    """Directions, however they are given.

    Raises:
        UsageError: a file that cannot be used, see `read_rows`.
    """
    if isinstance(directions, DirectionRows):
        return directions
    return read_rows(directions) if isinstance(directions, str | Path) else directions.rows


def _check_formats(checkpoint: Checkpoint, anatomy: Anatomy, disk: DiskNames) -> None:
    """Only plain floating tensors can be edited: a quantised one means nothing without its scales."""
    stored = checkpoint.config.get("quantization_config")
    if stored:
        method = stored.get("quant_method", "an unnamed method") if isinstance(stored, dict) else stored
        raise UnsupportedError(f"the weights are quantised ({method}); give a checkpoint in {', '.join(PLAIN)}")
    for writer in anatomy.writers:
        info = checkpoint.tensors[disk.names[writer.weight]]
        if info.dtype not in PLAIN:
            raise UnsupportedError(
                f"tensor '{info.name}' is stored as {info.dtype}, which is none of {', '.join(PLAIN)}"
            )


def _check_tied_copies(checkpoint: Checkpoint, anatomy: Anatomy, disk: DiskNames) -> None:
    """A config that ties what is stored twice, and differently, means different models to different tools."""
    second = disk.names.get(anatomy.unembedding_weight)
    if not anatomy.tied or second is None:
        return
    first = disk.names[anatomy.embedding_weight]
    a, b = checkpoint.info(first), checkpoint.info(second)
    pieces = zip(checkpoint.raw(first), checkpoint.raw(second), strict=False)
    if (a.dtype, a.shape) != (b.dtype, b.shape) or any(piece != other for piece, other in pieces):
        raise UnsupportedError(
            f"config.json ties '{second}' to '{first}', but the two differ on disk; set tie_word_embeddings to false"
        )
