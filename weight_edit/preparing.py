"""Prepare an edit of one checkpoint: everything is opened, checked and decided, nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from weight_edit.anatomy import Anatomy
from weight_edit.anatomy.disk import DiskNames, check_nothing_left_out, names_on_disk
from weight_edit.anatomy.mtp import mtp_tensors, mtp_writers
from weight_edit.anatomy.proven import proven_anatomy
from weight_edit.anatomy.stored import Stored
from weight_edit.checkpoint.edited import Stream
from weight_edit.checkpoint.layout import RewritePlan
from weight_edit.checkpoint.planning import AddedTensor, plan_rewrite
from weight_edit.checkpoint.shards import ShardProvider
from weight_edit.checkpoint.source import Checkpoint
from weight_edit.directions.file import DirectionRows
from weight_edit.directions.packing import packed
from weight_edit.edits import TensorEdit
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.mtp_plan import MTP_MODES, mtp_edits
from weight_edit.plan import EditPlan, edit_plan
from weight_edit.publish.finishing import README, base_card_name
from weight_edit.runtime.sources import Source
from weight_edit.streams import BALANCED, ROUNDINGS, Streams, streams_of
from weight_edit.version import __version__


@dataclass(frozen=True)
class EditOptions:
    """How an edit is made, as the command line and recipes say it.

    Attributes:
        edit: the kind of edit; "ablate" is the one there is.
        strength: 1 removes the component, a fraction removes a part, 2 reflects it.
        layers: blocks whose writers are edited; all when None.
        embeddings: "keep", "untie" or "skip", see `weight_edit.plan.EditPlan`.
        dequantize: write edited tensors of quantised formats as bfloat16.
        rounding: how numbers of quantised formats are rounded: "balanced", so that little is left along the directions,
            or "nearest".
        projector: "edit" also what brings images and sounds into the stream, and refuse a model where that could not be
            followed; "followed" edits as much of it as could be; "keep" leaves it as it is.
        mtp: "edit" also the multi-token-prediction layers that lie beside the model, "keep" leaves them as they are.
    """

    edit: str = "ablate"
    strength: float = 1.0
    layers: frozenset[int] | None = None
    embeddings: str = "keep"
    dequantize: bool = False
    rounding: str = BALANCED
    projector: str = "edit"
    mtp: str = "keep"

    def __post_init__(self) -> None:
        if self.edit != "ablate":
            raise UnsupportedError(f"edit '{self.edit}' is not supported; the one that is: ablate")
        if not 0 < self.strength <= 2:
            raise UsageError(f"strength {self.strength} is outside of (0, 2]; 1 removes the direction")
        if self.rounding not in ROUNDINGS:
            raise UsageError(f"rounding '{self.rounding}' is none of {', '.join(ROUNDINGS)}")
        if self.mtp not in MTP_MODES:
            raise UsageError(f"mtp '{self.mtp}' is none of {', '.join(MTP_MODES)}")
        if self.mtp == "edit" and self.layers is not None:
            raise UsageError("--mtp edit goes with all layers: leave --layers out, or keep the layers beside the model")

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        layers = None if self.layers is None else sorted(self.layers)
        said = {"edit": self.edit, "strength": self.strength, "layers": layers, "embeddings": self.embeddings}
        # Of a model that is not quantised these say nothing.
        usual = {"dequantize": (self.dequantize, False), "rounding": (self.rounding, BALANCED)}
        usual |= {"projector": (self.projector, "edit"), "mtp": (self.mtp, "keep")}
        return {**said, **{key: value for key, (value, default) in usual.items() if value != default}}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "EditOptions":
        """As `to_dict` gave it.

        Raises:
            KeyError, TypeError, ValueError: a malformed entry.
        """
        layers = entry["layers"]
        return cls(
            str(entry["edit"]),
            float(entry["strength"]),
            None if layers is None else frozenset(int(layer) for layer in layers),
            str(entry["embeddings"]),
            entry.get("dequantize") is True,
            str(entry.get("rounding", BALANCED)),
            str(entry.get("projector", "edit")),
            str(entry.get("mtp", "keep")),
        )


@dataclass(frozen=True)
class Baking:
    """A prepared edit of one checkpoint; `mtp` are the tensors of its multi-token-prediction layers."""

    source: Source
    checkpoint: Checkpoint
    anatomy: Anatomy
    disk: DiskNames
    plan: EditPlan
    directions: DirectionRows
    options: EditOptions
    streams: Streams
    mtp: tuple[str, ...] = ()
    mtp_edited: tuple[str, ...] = ()

    def rewrite_plan(self) -> RewritePlan:
        """Every file of the output but the model card and the manifest; the source's card is kept beside them."""
        moved = {} if self.base_card is None else {README: self.base_card}
        return plan_rewrite(
            self.checkpoint, self.streams.edits, added=self.added, config=self.changed_config, moved=moved
        )

    @property
    def expected(self) -> list[Stream]:
        """Every tensor that an edited checkpoint must have otherwise than the source, with what makes it."""
        return [*self.streams.edits, *self.streams.copies(self.checkpoint, self.added)]

    @property
    def added(self) -> dict[str, AddedTensor]:
        """An unembedding of its own, with the numbers that the embedding had."""
        name = self.anatomy.unembedding_weight
        if not self.plan.unties or name in self.disk:
            return {}
        info = self.checkpoint.info(self.disk.only(self.anatomy.embedding_weight))
        return {name: AddedTensor(info.dtype, info.shape, info.name)}

    @property
    def changed_config(self) -> dict[str, Any]:
        """Keys of config.json that change; None takes one out."""
        untied = {"tie_word_embeddings": False} if self.plan.unties else {}
        return {**untied, **self.streams.config}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Tensors of the source that no parameter, scale or MTP layer accounts for; kept as they are."""
        known = frozenset(self.mtp)
        return tuple(name for name in self.disk.extra if name not in known)

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
            "tensors": sorted(name for edited in self.streams.edits for name in edited.target.parts),
            "tensors_added": sorted(self.added),
            "config_changed": sorted(self.changed_config),
            "tensors_unknown": list(self.unknown),
            **({"kept_in_front": kept} if (kept := self.kept_in_front) else {}),
            **({"mtp": self._mtp_summary()} if self.mtp else {}),
            "weights_not_edited": list(self.checkpoint.other_weights),
            "base_card": self.base_card,
        }

    def _mtp_summary(self) -> dict[str, Any]:
        said = {"mode": self.options.mtp, "tensors_kept": len(self.mtp) - len(self.mtp_edited)}
        return {**said, "tensors_edited": list(self.mtp_edited)} if self.mtp_edited else said

    @property
    def kept_in_front(self) -> list[str]:
        """What may bring the directions in from outside of the text, and was left as it is: parameters, sentences."""
        edited = {edit.writer.weight for edit in self.plan.edits}
        projectors = (w.weight for w in self.anatomy.writers if w.role == "projector" and w.weight not in edited)
        return [*projectors, *self.anatomy.unknown]

    @property
    def base_card(self) -> str | None:
        """The name under which the source's card is kept; None when it has none."""
        files = self.checkpoint.other_files
        return base_card_name(files) if README in files else None

    @property
    def exactness(self) -> str:
        """The edit's class, as the design's table has it."""
        rounded = "; quantised tensors are rounded to their format again" if self.streams.lossy else ""
        if self.plan.tied_map is not None:
            return f"exact in weights; the unembedding is tied to the embedding and changes with it{rounded}"
        biases = any(edit.writer.bias for edit in self.plan.edits)
        return ("exact in weights and biases" if biases else "exact in weights") + rounded


def prepare(
    source: Source,
    directions: DirectionRows,
    options: EditOptions,
    *,
    shards: ShardProvider | None = None,
    trust_remote_code: bool = False,
) -> Baking:
    """Open and check everything, and lay out the edit over an anatomy that was proven on a narrow copy.

    Args:
        shards: who brings the shards, where they do not all lie in the source's folder.

    Raises:
        UsageError: unreadable files, or directions that do not fit.
        UnsupportedError: an architecture, layout or format that is not understood, or whose proof fails.
    """
    checkpoint = Checkpoint.open(source.path, shards)
    stored = Stored.of(checkpoint.tensors)
    proven = proven_anatomy(source.path, stored, name=source.name, trust_remote_code=trust_remote_code)
    anatomy = proven.anatomy
    if anatomy.unknown and options.projector == "edit":
        raise UnsupportedError(
            f"{anatomy.architecture}: {anatomy.unknown[0]}, so what comes into the residual stream this way cannot be "
            "edited; --projector followed edits all the rest, and --projector keep nothing but what text goes through"
        )
    directions.check_width(anatomy.d_model)
    disk = names_on_disk(anatomy, proven.layout)
    _check_tied_copies(checkpoint, anatomy, disk)
    plan = edit_plan(
        anatomy,
        directions.rows,
        lambda parameter: checkpoint.values(disk.only(parameter)),
        strength=options.strength,
        layers=options.layers,
        embeddings=options.embeddings,
        projector=options.projector,
    )
    if plan.unties and anatomy.also_tied:
        raise UnsupportedError(
            f"{anatomy.architecture}: untying the embeddings would untie '{anatomy.also_tied[0]}' too, of which the "
            "checkpoint has one copy; use --embeddings keep or skip"
        )
    if not plan.edits:
        raise UsageError("no writer is edited: with no layers and --embeddings skip there is nothing to do")
    edits = _tensor_edits(plan, anatomy, disk)
    mtp = mtp_tensors(anatomy, disk)
    check_nothing_left_out(anatomy, disk, mtp)
    beside: dict[str, TensorEdit] = {}
    if options.mtp == "edit":
        if not mtp:
            raise UsageError(f"{source.name} has no multi-token-prediction layers; leave --mtp edit out")
        beside = mtp_edits(plan, mtp_writers(anatomy, disk, stored.shapes), checkpoint.values)
    streams = streams_of(checkpoint, edits | beside, dequantize=options.dequantize, rounding=options.rounding)
    return Baking(source, checkpoint, anatomy, disk, plan, directions, options, streams, mtp, tuple(beside))


def _tensor_edits(plan: EditPlan, anatomy: Anatomy, disk: DiskNames) -> dict[str, TensorEdit]:
    """Tensor name on disk to the map that it goes through, and along which axis."""
    changes = plan.tensors()
    if plan.tied_map is not None and anatomy.unembedding_weight in disk:
        # A tied checkpoint that stores both copies must keep them equal.
        changes[anatomy.unembedding_weight] = changes[anatomy.embedding_weight]
    return {
        name: TensorEdit(change.map, axis)
        for parameter, change in changes.items()
        for name, axis in disk.edits_on_disk(parameter, change.axis)
    }


def _check_tied_copies(checkpoint: Checkpoint, anatomy: Anatomy, disk: DiskNames) -> None:
    """A config that ties what is stored twice, and differently, means different models to different tools."""
    if not anatomy.tied or anatomy.unembedding_weight not in disk:
        return
    first, second = disk.only(anatomy.embedding_weight), disk.only(anatomy.unembedding_weight)
    a, b = checkpoint.info(first), checkpoint.info(second)
    pieces = zip(checkpoint.raw(first), checkpoint.raw(second), strict=False)
    if (a.dtype, a.shape) != (b.dtype, b.shape) or any(piece != other for piece, other in pieces):
        raise UnsupportedError(
            f"config.json ties '{second}' to '{first}', but the two differ on disk; set tie_word_embeddings to false"
        )
