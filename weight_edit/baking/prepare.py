"""The preparation of an edit of one checkpoint: all is opened and checked, nothing written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from weight_edit.anatomy.disk.mtp import mtp_tensors, mtp_writers
from weight_edit.anatomy.disk.names import DiskNames, check_nothing_left_out, names_on_disk
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.disk.ties import as_loaded, untied, with_values
from weight_edit.anatomy.parts import Anatomy
from weight_edit.baking.card.card_and_manifest import README, base_card_name
from weight_edit.baking.rounding import rounding_record
from weight_edit.baking.tensors import BALANCED, ROUNDINGS, EditedTensors, derived_tensor, edited_tensors
from weight_edit.checkpoint.quantized.format import StoredTensors
from weight_edit.checkpoint.quantized.formats import format_name
from weight_edit.checkpoint.rewrite.layout import RewritePlan
from weight_edit.checkpoint.rewrite.planning import AddedTensor, plan_rewrite
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.refused import check_format
from weight_edit.checkpoint.source.shards import ShardProvider
from weight_edit.checkpoint.tensor.edited import RoundingLoss, TensorWriter
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.edits.changes import RuntimeOnly
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.registry import papers_of
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.hub.base_card import inherited
from weight_edit.hub.source import Source
from weight_edit.plan.exactness import exactness
from weight_edit.plan.mtp import MTP_MODES, mtp_edits
from weight_edit.plan.plan import EMBEDDING_MODES, PROJECTOR_MODES, EditPlan, plan_edit
from weight_edit.plan.step import EditStep, needs_proof
from weight_edit.proofs.proven import proven_anatomy
from weight_edit.utils.names import check_known
from weight_edit.utils.renamed import present_values
from weight_edit.version import __version__

_WIDTHS = ("hidden_size", "n_embd", "d_model")
"""Keys of config.json for the width of a model."""

if TYPE_CHECKING:
    from weight_edit.anatomy.narrow.new_biases import NewBiases
    from weight_edit.proofs.edit import EditProof


@dataclass(frozen=True)
class EditOptions:
    """The options of an edit as a whole, independent of its steps.

    Attributes:
        embeddings: "both", "untie" or "skip", see `weight_edit.plan.plan.EditPlan`.
        dequantize: write edited tensors of quantised formats as bfloat16.
        rounding: how numbers of quantised formats are rounded: "balanced", so that little is left along the directions,
            or "nearest".
        projector: "edit" also what brings images and sounds into the stream, and refuse a model where that could not be
            followed; "partial" edits as much of it as could be; "skip" leaves it as it is.
        mtp: "edit" also the multi-token-prediction layers that lie beside the model, "skip" leaves them as they are.
    """

    embeddings: str = "both"
    dequantize: bool = False
    rounding: str = BALANCED
    projector: str = "edit"
    mtp: str = "skip"

    def __post_init__(self) -> None:
        # Before the model is looked at: so are the other two, by the plan too.
        check_known("mode of embeddings", self.embeddings, EMBEDDING_MODES)
        check_known("mode of the projector", self.projector, PROJECTOR_MODES)
        check_known("rounding", self.rounding, ROUNDINGS)
        check_known("mode of mtp", self.mtp, MTP_MODES)

    def to_dict(self) -> dict[str, Any]:
        """The options' manifest entries; defaults other than `embeddings` are left out."""
        said = {"embeddings": self.embeddings}
        # Of a model that is not quantised these say nothing.
        usual = {"dequantize": (self.dequantize, False), "rounding": (self.rounding, BALANCED)}
        usual |= {"projector": (self.projector, "edit"), "mtp": (self.mtp, "skip")}
        return {**said, **{key: value for key, (value, default) in usual.items() if value != default}}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "EditOptions":
        """The options of manifest entries, as `to_dict` gives them, or as earlier versions gave them.

        Raises:
            KeyError, TypeError, ValueError: a malformed entry.
        """
        said = present_values(entry)
        return cls(
            str(said["embeddings"]),
            said.get("dequantize") is True,
            str(said.get("rounding", BALANCED)),
            str(said.get("projector", "edit")),
            str(said.get("mtp", "skip")),
        )


@dataclass(frozen=True, kw_only=True)
class PreparedEdit:
    """A prepared edit of one checkpoint.

    Attributes:
        biases: the setting of the config with biases that the edit creates; None where it creates none.
        config_ties: whether the config, or its class's default, ties the embeddings, whatever the checkpoint holds.
        mtp: the tensors of its multi-token-prediction layers; mtp_edited: those of them that are edited.
    """

    source: Source
    checkpoint: Checkpoint
    anatomy: Anatomy
    disk: DiskNames
    plan: EditPlan
    options: EditOptions
    tensors: EditedTensors
    biases: "NewBiases | None" = None
    mtp: tuple[str, ...] = ()
    mtp_edited: tuple[str, ...] = ()
    config_ties: bool = False

    def rewrite_plan(self) -> RewritePlan:
        """The plan of every output file but the new card and the manifest.

        The source's card is kept under another name.
        """
        moved = {} if self.base_card is None else {README: self.base_card}
        return plan_rewrite(
            self.checkpoint,
            self.tensors.edits,
            added=self.added,
            files=self.tensors.files,
            config=self.changed_config,
            moved=moved,
        )

    @property
    def expected(self) -> list[TensorWriter]:
        """The writers of all tensors in which an edited checkpoint must differ from the source."""
        return [*self.tensors.edits, *self.tensors.copies(self.checkpoint, self.added)]

    @property
    def added(self) -> dict[str, AddedTensor]:
        """New tensors: biases that the edit creates, and the unembedding of an untied checkpoint."""
        return {**self._new_biases(), **self._own_unembedding()}

    def _own_unembedding(self) -> dict[str, AddedTensor]:
        name = self.anatomy.unembedding_weight
        if not self.plan.unties or name in self.disk:
            return {}
        info = self.checkpoint.info(self.disk.only(self.anatomy.embedding_weight))
        edit = self.plan.tensors().get(name)
        if edit is None:
            return {name: AddedTensor(info.dtype, info.shape, info.name)}
        return {name: AddedTensor(info.dtype, info.shape, derived_tensor(info, name, edit))}

    def _new_biases(self) -> dict[str, AddedTensor]:
        found = {}
        for name, shape in (self.biases.shapes if self.biases else {}).items():
            beside = self.checkpoint.tensors.get(self.disk.whole(name.removesuffix(".bias") + ".weight")[0])
            values = self.plan.created.get(name, np.zeros(shape))
            # Beside quantised weights, which have no dtype of their own, runtimes take any.
            found[name] = AddedTensor.of(values, beside.dtype if beside and beside.dtype in STORED else "BF16")
        return found

    @property
    def changed_config(self) -> dict[str, Any]:
        """The top-level keys of config.json that change, with their values; None removes a key."""
        config = self.checkpoint.config
        if self.checkpoint.gguf is not None:
            # It has none: what is tied there is told by the tensors that it has.
            return {}
        # Where the config ties what the checkpoint holds apart, the edit is one of two tensors, for every reader. What
        # else hangs on the setting is left as transformers takes it.
        apart = self.config_ties and not self.anatomy.tied and not self.anatomy.also_tied
        changes: dict[tuple[str, ...], Any] = {}
        if self.plan.unties or apart:
            changes |= untied(config, self.anatomy.text_levels)
        changes |= self.biases.changed if self.biases else {}
        return {**with_values(config, changes), **self.tensors.config}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Copied tensors of the source that belong to no parameter, scale or MTP layer."""
        known = frozenset(self.mtp)
        return tuple(name for name in self.disk.extra if name not in known)

    def summary(self) -> dict[str, Any]:
        """The manifest's account of the edit, enough for `verify` to repeat it."""
        return {
            "weight_edit": __version__,
            "source": {
                "model": self.source.public_name,
                "on_hub": self.source.on_hub,
                "revision": self.source.revision,
                "architecture": self.anatomy.architecture,
                **({"gguf": self.checkpoint.shards[0]} if self.checkpoint.gguf is not None else {}),
            },
            "edit": {
                "steps": [step.to_dict() for step in self.plan.steps],
                **self.options.to_dict(),
                "class": self.exactness,
                "complete": self.plan.complete,
            },
            "tensors": sorted(name for edited in self.tensors.edits for name in edited.target.parts),
            "tensors_added": sorted(self.added),
            "config_changed": sorted(self.changed_config),
            "tensors_unknown": list(self.unknown),
            **({"kept_in_front": kept} if (kept := self.kept_in_front) else {}),
            **({"mtp": self._mtp_summary()} if self.mtp else {}),
            "weights_not_edited": list(self.checkpoint.other_weights),
            "base_card": self.base_card,
        }

    def rounding(self, losses: Mapping[str, RoundingLoss]) -> dict[str, dict[str, Any]]:
        """The manifest's account of what storing edited tensors in their formats did."""
        stored = StoredTensors(self.checkpoint.tensors, self.checkpoint.quantization, self.checkpoint.content)
        return rounding_record(losses, {name: format_name(self.checkpoint.info(name), stored) for name in losses})

    def manifest(self, losses: Mapping[str, RoundingLoss], base_model: str | None = None) -> dict[str, Any]:
        """The manifest of the edit as it was written, without the files' records and measurements.

        Args:
            losses: what rounding did, as the rewrite has it.
            base_model: as in `inherited`.

        Raises:
            UsageError: as there.
        """
        losses_said = self.rounding(losses)
        rounding = {"rounding": losses_said} if losses_said else {}
        return {**self.summary(), **rounding, "card": self.card(base_model)}

    def card(self, base_model: str | None = None) -> dict[str, Any]:
        """The entry `card` of the manifest: what the model card needs beside the summary.

        Args:
            base_model: as in `inherited`.

        Raises:
            UsageError: as there.
        """
        papers = papers_of(step.kind for step in self.plan.steps)
        return {**inherited(self.source, self.checkpoint, base_model), **({"papers": papers} if papers else {})}

    def _mtp_summary(self) -> dict[str, Any]:
        said = {"mode": self.options.mtp, "tensors_kept": len(self.mtp) - len(self.mtp_edited)}
        return {**said, "tensors_edited": list(self.mtp_edited)} if self.mtp_edited else said

    @property
    def kept_in_front(self) -> list[str]:
        """Unedited inputs through which the directions may enter: parameters, then sentences."""
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
        """The edit's class of exactness, in words."""
        return exactness(self.plan, lossy=self.tensors.lossy)


def prepare(
    source: Source,
    steps: Sequence[EditStep],
    options: EditOptions,
    *,
    shards: ShardProvider | None = None,
    written: bool = True,
    trust_remote_code: bool = False,
) -> PreparedEdit:
    """Open and check everything, and plan the edit on an anatomy proven on a narrow copy.

    Args:
        steps: what the edit is made of, in order.
        options: how it is made.
        shards: who brings the shards, where they do not all lie in the source's folder.
        written: whether a checkpoint will be written; if not, biases that the model has not need no setting of its
            config, because something else, such as an adapter, carries them.

    Raises:
        UsageError: unreadable files, or directions that do not fit.
        UnsupportedError: an architecture, layout or format that is not understood, or whose proof fails.
    """
    checkpoint = Checkpoint.open(source.path, shards)
    check_format(checkpoint.config, checkpoint.tensors)
    for step in steps:
        _check_width(step.directions, _sizes(checkpoint))
    stored = Stored.of(checkpoint.tensors, checkpoint.quantization, checkpoint.content)
    proven = proven_anatomy(source.path, stored, name=source.name, trust_remote_code=trust_remote_code)
    anatomy, ties = proven.anatomy, proven.anatomy.tied
    if anatomy.unknown and options.projector == "edit":
        raise UnsupportedError(
            f"{anatomy.architecture}: {anatomy.unknown[0]}, so what comes into the residual stream this way cannot be "
            "edited; `projector='partial'` edits all the rest, and `projector='skip'` nothing but what text goes "
            "through",
            option="projector",
        )
    for step in steps:
        step.directions.check_width(anatomy.d_model)
    disk = names_on_disk(anatomy, proven.layout)
    anatomy = as_loaded(anatomy, checkpoint, disk)
    if checkpoint.gguf is not None:
        _check_gguf_options(options)
    proof = _proof(
        source,
        anatomy=anatomy,
        steps=steps,
        options=options,
        # No GGUF file gets biases: what a config would say of them is not asked.
        written=written and checkpoint.gguf is None,
        trust_remote_code=trust_remote_code,
    )
    plan = plan_edit(
        anatomy,
        steps,
        lambda parameter: disk.values(checkpoint, parameter),
        embeddings=options.embeddings,
        projector=options.projector,
        reading=proof.reading if proof else None,
    )
    if checkpoint.gguf is not None:
        _check_gguf_plan(plan)
    _check_untying(plan, disk, checkpoint)
    if not plan.tensors() and not plan.created:
        raise UsageError(
            "no writer is edited: with no layers and `embeddings='skip'` there is nothing to do", option="embeddings"
        )
    edits = _tensor_edits(plan, anatomy, disk)
    mtp = mtp_tensors(anatomy, disk)
    check_nothing_left_out(anatomy, disk, mtp, stored.shapes)
    if options.mtp == "edit" and not mtp:
        raise UsageError(f"{source.name} has no multi-token-prediction layers; leave `mtp='edit'` out", option="mtp")
    beside = _mtp_edits(plan, disk, stored, checkpoint) if options.mtp == "edit" else {}
    streams = edited_tensors(checkpoint, edits | beside, dequantize=options.dequantize, rounding=options.rounding)
    biases = proof.biases if proof else None
    return PreparedEdit(
        source=source,
        checkpoint=checkpoint,
        anatomy=anatomy,
        disk=disk,
        plan=plan,
        options=options,
        tensors=streams,
        biases=biases,
        mtp=mtp,
        mtp_edited=tuple(beside),
        config_ties=ties,
    )


def _sizes(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What says how wide the model is: config.json, or the metadata of a GGUF file under its name there."""
    if checkpoint.gguf is None:
        return checkpoint.config
    return {"hidden_size": checkpoint.gguf.values.get(f"{checkpoint.gguf.architecture}.embedding_length")}


_INSTEAD = "edit the model's safetensors folder and convert that"


def _check_gguf_options(options: EditOptions) -> None:
    """Raise `UnsupportedError` for options that would change a GGUF file's sizes, or need what is not known of it."""
    if options.dequantize:
        raise UnsupportedError(
            "`dequantize=True`: the tensors of a GGUF file keep their types, so that all that read it read "
            f"the edit; leave it out, or {_INSTEAD}",
            option="dequantize",
        )
    if options.mtp == "edit":
        raise UnsupportedError(
            f"`mtp='edit'`: what a GGUF file's prediction layers are for is not known; leave it out, or {_INSTEAD}",
            option="mtp",
        )


def _check_gguf_plan(plan: EditPlan) -> None:
    """Raise `UnsupportedError` for a plan that needs tensors which a GGUF file has not."""
    if plan.unties:
        raise UnsupportedError(
            "`embeddings='untie'`: the embeddings of this GGUF file are tied, and it has no room for 'output.weight' "
            f"beside them; {_INSTEAD}, or use `embeddings='both'` or skip",
            option="embeddings",
        )
    if plan.created:
        raise UnsupportedError(
            f"the edit needs a bias that the model has not ('{next(iter(plan.created))}'), for which a GGUF file has "
            f"no room; {_INSTEAD}, or choose an edit without a constant, such as ablate",
            option="kind",
        )


def _check_width(directions: DirectionRows, config: Mapping[str, Any]) -> None:
    """Refuse directions of a width that config.json has nowhere, before an anatomy is derived.

    The derived one says which of its numbers is the residual stream's.

    Raises:
        UsageError: the config names a width, and has no number that is that of the directions.
    """
    sections = [config, *(each for each in config.values() if isinstance(each, Mapping))]
    named = next((each[key] for each in sections for key in _WIDTHS if isinstance(each.get(key), int)), None)
    if named is not None and named > 0 and not any(directions.rows.shape[1] in each.values() for each in sections):
        directions.check_width(named)


def _proof(
    source: Source,
    anatomy: Anatomy,
    steps: Sequence[EditStep],
    options: EditOptions,
    written: bool,
    trust_remote_code: bool,
) -> "EditProof | None":
    """The edit's proof on a narrow copy; None for an edit that depends on the writers alone."""
    if any(isinstance(step.change, RuntimeOnly) for step in steps):
        return None
    # In a module of its own, because it needs torch and most edits do not.
    if not needs_proof(steps):
        return None
    from weight_edit.proofs.edit import prove_edit
    from weight_edit.runtime.loading import read_config

    config = read_config(source, trust_remote_code=trust_remote_code)
    return prove_edit(
        config,
        anatomy,
        steps,
        embeddings=options.embeddings,
        projector=options.projector,
        written=written,
        trust_remote_code=trust_remote_code,
    )


def _check_untying(plan: EditPlan, disk: DiskNames, checkpoint: Checkpoint) -> None:
    """Raise `UnsupportedError` if the checkpoint has no room for the untied unembedding."""
    anatomy = plan.anatomy
    if plan.unties and anatomy.also_tied:
        raise UnsupportedError(
            f"{anatomy.architecture}: untying the embeddings would untie '{anatomy.also_tied[0]}' too, of which the "
            "checkpoint has one copy; use `embeddings='both'` or skip",
            option="embeddings",
        )
    if plan.unties and anatomy.unembedding_weight in checkpoint.tensors and anatomy.unembedding_weight not in disk:
        raise UnsupportedError(
            f"the checkpoint stores the embedding under the name '{anatomy.unembedding_weight}', which an unembedding "
            "of its own would need; use `embeddings='both'` or skip",
            option="embeddings",
        )


def _mtp_edits(plan: EditPlan, disk: DiskNames, stored: Stored, checkpoint: Checkpoint) -> dict[str, TensorEdit]:
    """The edits of the multi-token-prediction layers' tensors, by their names on disk."""
    return mtp_edits(plan, mtp_writers(plan.anatomy, disk, stored.shapes), checkpoint.values)


def _tensor_edits(plan: EditPlan, anatomy: Anatomy, disk: DiskNames) -> dict[str, TensorEdit]:
    """The edits of the model's tensors on disk, by name."""
    changes = plan.tensors()
    if plan.tied_edit is not None and anatomy.unembedding_weight in disk and anatomy.embedding_weight in changes:
        # A tied checkpoint that stores both copies must keep them equal.
        changes[anatomy.unembedding_weight] = changes[anatomy.embedding_weight]
    elif anatomy.tied and anatomy.unembedding_weight not in disk:
        # It has no tensor yet: `PreparedEdit.added` makes one.
        changes.pop(anatomy.unembedding_weight, None)
    return disk.laid(changes)
