"""The steps of an edit, composed for each writer of a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np

from weight_edit.anatomy.parts import Anatomy, Norm, Writer
from weight_edit.edits.changes import Addition, StreamMap
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.edits.through_norm import map_before_norm
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.constants import ConstantCarrier, constant_carriers
from weight_edit.plan.step import EditStep
from weight_edit.utils.arrays import Floats, Numbers, as_float64

Values = TypeVar("Values")
ParameterReader: TypeAlias = Callable[[str], Values]
"""A function from a parameter's name to its unedited value.

`[Numbers]` gives an array or a tensor, `[Tensor]` a tensor.
"""


@dataclass(frozen=True)
class WriterEdit:
    """One writer's share of an edit.

    Attributes:
        writer: the linear map.
        map: on its output, before the norm where one follows; its constant, in the writer's own units, goes into the
            writer's bias, or the rows of an embedding.
        rows: whether the constant goes into the rows.
        keep_norms: whether its weight's vectors keep their lengths.
    """

    writer: Writer
    map: LowRankMap
    rows: bool = False
    keep_norms: bool = False

    @property
    def of_weight(self) -> TensorEdit:
        """The edit of the writer's weight."""
        stream_map = self.map if self.rows else self.map.linear
        return TensorEdit(stream_map, self.writer.axis, keep_norms=self.keep_norms)

    @property
    def changes_weight(self) -> bool:
        """Whether the weight changes; false where only a bias gets a constant."""
        return self.map.rank > 0 or (self.rows and self.map.constant is not None)


class WriterEdits:
    """The edits of all writers, gathered step by step.

    Attributes:
        edits: one per edited writer, by its weight.
        norm_biases: bias of a norm behind a writer -> the map that it goes through, constant included.
        stream: the linear part of all steps as one map of the stream; None where there is none.
    """

    def __init__(self, anatomy: Anatomy, read: ParameterReader[Numbers], embeddings: str, projector: str) -> None:
        self.anatomy, self._read, self._embeddings, self._projector = anatomy, read, embeddings, projector
        self.edits: dict[str, WriterEdit] = {}
        self.norm_biases: dict[str, LowRankMap] = {}
        self._carriers: dict[int, ConstantCarrier] = {}
        self._behind: dict[str, LowRankMap] = {}
        self.stream: LowRankMap | None = LowRankMap.identity(anatomy.d_model)

    def map(self, change: StreamMap, step: EditStep) -> None:
        """Compose an affine map of the whole stream with the edits so far."""
        kept = any(edit.keep_norms for edit in self.edits.values())
        if kept or (change.keep_norms and any(edit.rows or edit.map.rank for edit in self.edits.values())):
            # Lengths are those of the source, so that after another map they would undo what that one did to them.
            raise UsageError(
                "norm-preserving ablation goes with no other edit of the whole stream, nor a constant in the "
                "embedding: find all directions together, and remove them in one step"
            )
        whole = change.map.times(step.strength)
        for writer in self.anatomy.writers:
            strength = self._strength(writer, step)
            if strength:
                self._through(writer, change.map.linear.times(strength), change.keep_norms)
        if self.stream is not None:
            self.stream = None if step.partial else self.stream.then(whole.linear)
        if whole.constant is not None:
            self._carry(change.enters, whole.constant)

    def add(self, change: Addition) -> None:
        """Add constant vectors at the inputs of blocks."""
        for layer, vector in change.vectors.items():
            self._carry(layer, vector)

    def _strength(self, writer: Writer, step: EditStep) -> float:
        """The strength of a step at a writer; 0 where the writer is spared."""
        if writer.role == "embedding" and self._embeddings == "skip":
            return 0.0
        if writer.role == "projector" and self._projector == "skip":
            return 0.0
        if writer.layer is not None and step.layers is not None and writer.layer not in step.layers:
            return 0.0
        kernel = 1.0 if step.kernel is None else step.kernel.at(writer.role, writer.layer, self.anatomy.n_layers)
        return step.strength * kernel

    def _through(self, writer: Writer, stream_map: LowRankMap, keep_norms: bool) -> None:
        known = self.edits.get(writer.weight, WriterEdit(writer, LowRankMap.identity(stream_map.width)))
        if writer.norm is None:
            laid = known.map.then(stream_map)
        else:
            # Composed behind the norm and laid in front of it once: what is orthogonal behind is not so in front, so
            # that one after the other would leave some of the first.
            nothing = LowRankMap.identity(stream_map.width)
            whole = self._behind[writer.weight] = self._behind.get(writer.weight, nothing).then(stream_map)
            laid = map_before(writer.norm, whole, self._read)
        self.edits[writer.weight] = WriterEdit(writer, laid, known.rows, keep_norms)
        if writer.norm is not None and writer.norm.bias is not None:
            bias = writer.norm.bias
            self.norm_biases[bias] = self.norm_biases.get(bias, LowRankMap.identity(stream_map.width)).then(stream_map)

    def _carry(self, layer: int, vector: Floats) -> None:
        """Add a constant to the carriers at a block's input."""
        found = constant_carriers(self.anatomy, layer, embeddings=self._embeddings, projector=self._projector)
        for carrier in found:
            self._put(carrier, vector / carrier.writer.scale)
        self._carriers[layer] = found[0]

    def _put(self, carrier: ConstantCarrier, vector: Floats) -> None:
        """Add a constant, in the writer's units, to a carrier."""
        writer, norm = carrier.writer, carrier.writer.norm
        nothing = np.zeros((len(vector), 0))
        shift = LowRankMap(nothing, nothing, vector)
        if carrier.behind_norm and norm is not None and norm.bias is not None:
            self.norm_biases[norm.bias] = self.norm_biases.get(norm.bias, LowRankMap.identity(len(vector))).then(shift)
            return
        known = self.edits.get(writer.weight, WriterEdit(writer, LowRankMap.identity(len(vector))))
        if known.keep_norms and carrier.rows:
            raise UsageError("norm-preserving ablation goes with no constant in the embedding")
        self.edits[writer.weight] = WriterEdit(writer, known.map.then(shift), carrier.rows, known.keep_norms)

    def _constant(self, carrier: ConstantCarrier) -> Floats:
        """The constant that a carrier holds so far, in the writer's units."""
        norm = carrier.writer.norm
        behind = norm is not None and norm.bias is not None and carrier.behind_norm
        stream_map = self.norm_biases[norm.bias] if behind and norm else self.edits[carrier.writer.weight].map  # type: ignore[index]
        return np.zeros(stream_map.width) if stream_map.constant is None else stream_map.constant

    @property
    def added(self) -> dict[int, Floats]:
        """Block -> the vector added to the stream at its input."""
        return {layer: c.writer.scale * self._constant(c) for layer, c in self._carriers.items()}

    @property
    def created(self) -> dict[str, Floats]:
        """Names of biases that are created -> their values."""
        return {c.creates: self._constant(c) for c in self._carriers.values() if c.creates is not None}


def map_before(norm: Norm, stream_map: LowRankMap, read: ParameterReader[Numbers]) -> LowRankMap:
    """The map before a norm that is equivalent to a given map of the stream after the norm.

    Args:
        norm: between a writer and the stream.
        stream_map: of the stream.
        read: gives the norm's weight by the name that `norm` has for it.

    Raises:
        UnsupportedError: a map that cannot be laid in front of this norm.
    """
    gain: Floats = (
        np.ones(stream_map.width) if norm.weight is None else as_float64(read(norm.weight)) + norm.gain_offset
    )
    try:
        before = map_before_norm(stream_map, gain, centred=norm.kind == "layer")
    except ValueError as error:
        raise UnsupportedError(
            f"'{norm.module or norm.weight}' stands between a writer and the stream: {error}"
        ) from None
    return before if norm.inner is None else map_before(norm.inner, before, read)
