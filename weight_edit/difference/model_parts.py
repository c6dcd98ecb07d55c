"""What each tensor of a checkpoint is to the residual stream: a writer with its role, layer and norm, or a reader."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from weight_edit.anatomy.disk.names import DiskNames, names_on_disk
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.parts import Anatomy, Norm
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.difference.pairs import Side
from weight_edit.errors import UnsupportedError, WeightEditError
from weight_edit.hub.source import Source
from weight_edit.proofs.proven import proven_anatomy
from weight_edit.utils.arrays import Floats


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """One tensor's place.

    Attributes:
        role: of a writer as in `anatomy.parts.Writer`; "reader", or "unembedding".
        layer: of its block; None outside of the blocks.
        side: where the stream's vectors lie; None of a bias.
        gains: of the norm between a writer and the stream, (d,); None where there is none.
        centred: whether that norm takes the mean off.
        reads_behind: tensor of the gains in front of a reader; None where there is none.
        bias: whether it is a writer's bias.
    """

    role: str
    layer: int | None
    side: Side | None
    gains: Floats | None = None
    centred: bool = False
    reads_behind: str | None = None
    bias: bool = False

    @property
    def writes(self) -> bool:
        """Whether it writes to the stream."""
        return self.role not in ("reader", "unembedding")


@dataclass(frozen=True, eq=False, kw_only=True)
class ModelParts:
    """The parts of one checkpoint by tensor.

    Attributes:
        parts: tensor -> its place; empty where the anatomy is not known.
        layers: the number of blocks; 0 where it is not known.
        tied: whether the unembedding is the embedding.
        embedding, unembedding: names of their weights on disk; None where that is not known.
        reads_mean_free: whether it is known that all norms that read the stream take its mean off.
        problem: why the anatomy is not known, if so.
    """

    parts: Mapping[str, Part]
    layers: int = 0
    tied: bool = False
    embedding: str | None = None
    unembedding: str | None = None
    reads_mean_free: bool = False
    problem: str | None = None

    @property
    def writers(self) -> dict[str, Part]:
        """The weights that write to the stream."""
        return {name: p for name, p in self.parts.items() if not p.bias and p.writes}


def model_parts(source: Source, checkpoint: Checkpoint) -> ModelParts:
    """The parts of a checkpoint by the anatomy of its architecture; no weights but norms' are read, nothing is run."""
    try:
        stored = Stored.of(checkpoint.tensors, checkpoint.quantization, checkpoint.content)
        proven = proven_anatomy(source.path, stored, name=source.name)
        disk = names_on_disk(proven.anatomy, proven.layout)
    except WeightEditError as error:
        return ModelParts(parts={}, problem=str(error).split("\n", 1)[0])
    anatomy = proven.anatomy
    return ModelParts(
        parts=_parts(anatomy, disk, checkpoint),
        layers=anatomy.n_layers,
        tied=anatomy.tied,
        embedding=_name(disk, anatomy.embedding_weight),
        unembedding=_name(disk, anatomy.unembedding_weight),
        # An RMSNorm has no bias; a LayerNorm without one is not known from its tensors.
        reads_mean_free=all(
            reader.norm is not None and f"{reader.norm}.bias" in anatomy.shapes for reader in anatomy.readers
        ),
    )


def _parts(anatomy: Anatomy, disk: DiskNames, checkpoint: Checkpoint) -> dict[str, Part]:
    found: dict[str, Part] = {}
    for block in anatomy.blocks:
        for reader in block.readers:
            gains = None if reader.norm is None else _name(disk, f"{reader.norm}.weight")
            for module in reader.modules:
                for name, axis in _laid(disk, f"{module}.weight", -1):
                    found[name] = Part(
                        role="reader", layer=block.layer, side=_side(checkpoint, name, axis), reads_behind=gains
                    )
    final = None if anatomy.final_norm is None else _name(disk, f"{anatomy.final_norm}.weight")
    for name, axis in _laid(disk, anatomy.unembedding_weight, -1):
        found[name] = Part(role="unembedding", layer=None, side=_side(checkpoint, name, axis), reads_behind=final)
    for writer in anatomy.writers:
        factors, centred = _gains(writer.norm, disk, checkpoint)
        for name, axis in _laid(disk, writer.weight, writer.axis):
            side = _side(checkpoint, name, axis)
            found[name] = Part(role=writer.role, layer=writer.layer, side=side, gains=factors, centred=centred)
        if writer.bias is not None:
            for name, _ in _laid(disk, writer.bias, writer.bias_axis):
                found[name] = Part(role=writer.role, layer=writer.layer, side=None, bias=True)
    return found


def _laid(disk: DiskNames, parameter: str, axis: int) -> list[tuple[str, int]]:
    try:
        return disk.edits_on_disk(parameter, axis)
    except (UnsupportedError, IndexError):
        return []


def _name(disk: DiskNames, parameter: str) -> str | None:
    try:
        return disk.only(parameter)
    except UnsupportedError:
        return None


def _side(checkpoint: Checkpoint, name: str, axis: int) -> Side:
    shape = checkpoint.tensors[name].shape if name in checkpoint.tensors else ()
    return "rows" if axis in (-1, len(shape) - 1) and len(shape) != 1 else "columns"


def _gains(norm: Norm | None, disk: DiskNames, checkpoint: Checkpoint) -> tuple[Floats | None, bool]:
    """The product of the gains of a norm and of those in front of it, and whether one takes the mean off."""
    gains, centred = None, False
    while norm is not None:
        centred = centred or norm.kind == "layer"
        if norm.weight is not None:
            try:
                values = disk.values(checkpoint, norm.weight).reshape(-1) + norm.gain_offset
            except WeightEditError:
                return None, centred
            gains = values if gains is None else gains * values
        norm = norm.inner
    return (None if gains is None else np.asarray(gains, np.float64)), centred
