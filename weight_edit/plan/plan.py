"""The plan of an edit: each writer's map, ready to be hooked, baked or made an adapter."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weight_edit.anatomy.parts import Anatomy
from weight_edit.edits.changes import Addition, BasisChange, RuntimeOnly, removed
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.kernel import Kernels
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.on_tensor import TensorEdit
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.plan.reflection import Reflection, plan_reflection
from weight_edit.plan.step import EditStep
from weight_edit.plan.writer_edits import ParameterReader, WriterEdit, WriterEdits
from weight_edit.utils.arrays import Floats, Numbers, as_float64
from weight_edit.utils.fixed_sums import inner_products
from weight_edit.utils.names import check_known

if TYPE_CHECKING:
    from weight_edit.anatomy.readers import Reading

EMBEDDING_MODES = ("both", "untie", "skip")
PROJECTOR_MODES = ("edit", "partial", "skip")


@dataclass(frozen=True, kw_only=True)
class EditPlan:
    """An edit, laid out over an anatomy.

    Attributes:
        anatomy: of the model that is edited.
        steps: what the edit is made of, in order.
        embeddings: what happens to a token embedding: "both" edits it, and with it an unembedding tied to it;
            "untie" edits it and writes the source's as a separate unembedding; "skip" leaves it.
        edits: one per edited writer.
        norm_biases: bias of a norm behind a writer -> the map that it goes through, constant included.
        added: block -> the vector that is added to the stream at its input, after all steps.
        created: names of biases that are created -> their values.
        reflections: changes of basis, which come last.
        stream: the linear part of the whole edit, as one map of the stream, where there is one.
    """

    anatomy: Anatomy
    steps: tuple[EditStep, ...]
    embeddings: str
    edits: tuple[WriterEdit, ...]
    norm_biases: Mapping[str, LowRankMap]
    added: Mapping[int, Floats]
    created: Mapping[str, Floats]
    reflections: tuple[Reflection, ...]
    stream: LowRankMap | None

    @property
    def whole(self) -> bool:
        """Whether every writer that text goes through is edited."""
        own = sum(writer.role != "projector" for writer in self.anatomy.writers)
        return sum(edit.writer.role != "projector" for edit in self.edits) == own

    @cached_property
    def removed(self) -> Floats:
        """Orthonormal rows (k, d_model): directions with no prompt-dependent part left; see `level`.

        There are none if the edit leaves a part, at least of text.
        """
        if self.stream is None or not self.whole or self.reflections:
            return np.zeros((0, self.anatomy.d_model))
        return removed(self.stream)

    def level(self, layer: int) -> Floats:
        """The constants along the removed directions at a block's input, (k,)."""
        entered = [vector for block, vector in self.added.items() if block <= layer]
        found = np.zeros(len(self.removed))
        for vector in entered:
            found += inner_products(self.removed, vector[None])[:, 0]
        return found

    @property
    def complete(self) -> bool:
        """Whether no writer that text goes through writes along the directions any more."""
        return len(self.removed) > 0

    @property
    def directions(self) -> NDArray[np.float32]:
        """Orthonormal rows to measure the stream along: `removed`, or the first step's directions."""
        return self.removed.astype(np.float32) if self.complete else self.steps[0].directions.rows

    @property
    def unties(self) -> bool:
        """Whether the edited checkpoint needs an unembedding of its own."""
        return self.anatomy.tied and self.embeddings == "untie"

    @property
    def tied_edit(self) -> WriterEdit | None:
        """The embedding's edit, if the unembedding shares it."""
        if not self.anatomy.tied or self.embeddings != "both":
            return None
        return next((edit for edit in self.edits if edit.writer.weight == self.anatomy.embedding_weight), None)

    def tensors(self) -> dict[str, TensorEdit]:
        """Every changed parameter's name with its map and axis."""
        changes: dict[str, TensorEdit] = {}
        for edit in self.edits:
            writer = edit.writer
            if edit.changes_weight:
                changes[writer.weight] = edit.of_weight
            if writer.bias is not None:
                changes[writer.bias] = TensorEdit(edit.map.linear if edit.rows else edit.map, writer.bias_axis)
        changes |= {name: TensorEdit(stream_map, 0) for name, stream_map in self.norm_biases.items()}
        for each in self.reflections:
            changes = each.applied(changes)
        return changes


def plan_edit(
    anatomy: Anatomy,
    steps: Sequence[EditStep],
    read: ParameterReader[Numbers],
    *,
    embeddings: str = "both",
    projector: str = "edit",
    reading: "Reading | None" = None,
) -> EditPlan:
    """Lay out an edit of one or several steps over a model.

    Args:
        anatomy: of the model.
        steps: in order; each edits what those before it made.
        read: of the parameters, only norms are read: those between writers and the stream, and for a change of basis
            those in front of readers.
        embeddings: "both", "untie" or "skip", see `EditPlan`.
        projector: "edit" or "partial" for what brings images into the stream too, "skip" leaves it.
        reading: how the model reads the stream; needed for a change of basis.

    Raises:
        UsageError: a layer out of range, an unknown mode, directions of another width, or steps that do not
            go together.
        UnsupportedError: an edit that no weights of this model can make.
    """
    _check(anatomy, steps, embeddings, projector)
    laid = WriterEdits(anatomy, read, embeddings, projector)
    reflections: list[Reflection] = []
    for step in steps:
        change = step.change
        if reflections:
            raise UsageError("a reflection at a layer turns all that follows it, so that it must be the last edit")
        if isinstance(change, RuntimeOnly):
            raise not_bakeable(step.kind, change)
        if isinstance(change, BasisChange):
            check_reflection(anatomy, embeddings)
            reflections.append(plan_reflection(anatomy, change, read, reading))
        elif isinstance(change, Addition):
            laid.add(change)
        else:
            laid.map(change, step)
    created = laid.created
    for each in reflections:
        created = each.of_created(created)
    return EditPlan(
        anatomy=anatomy,
        steps=tuple(steps),
        embeddings=embeddings,
        edits=tuple(laid.edits.values()),
        norm_biases=laid.norm_biases,
        added=laid.added,
        created=created,
        reflections=tuple(reflections),
        stream=laid.stream,
    )


def plan_ablation(
    anatomy: Anatomy,
    directions: Numbers,
    read: ParameterReader[Numbers],
    *,
    strength: float = 1.0,
    layers: Collection[int] | None = None,
    embeddings: str = "both",
    projector: str = "edit",
) -> EditPlan:
    """Lay out a directional ablation over a model: `plan_edit` of a single step.

    Args:
        directions: orthonormal rows, (k, d_model), a numpy array or a torch tensor; rounded to float32, which is what
            a manifest keeps of them.
        strength: 1 removes the component from every writer, 2 reflects it, a fraction removes a part.
        layers: blocks whose writers are edited; all when None. Embeddings are not blocks: see `embeddings`.
    """
    step = EditStep(
        directions=DirectionRows(as_float64(directions).astype(np.float32)),
        strength=strength,
        layers=None if layers is None else frozenset(layers),
    )
    return plan_edit(anatomy, [step], read, embeddings=embeddings, projector=projector)


def _check(anatomy: Anatomy, steps: Sequence[EditStep], embeddings: str, projector: str) -> None:
    check_known("mode of embeddings", embeddings, EMBEDDING_MODES)
    check_known("mode of the projector", projector, PROJECTOR_MODES)
    if not steps:
        raise UsageError("there is no edit to make")
    for step in steps:
        rows = step.directions.rows
        if rows.ndim != 2 or rows.shape[1] != anatomy.d_model:
            raise UsageError(
                f"the directions are {rows.shape}, but {anatomy.architecture} has a residual stream "
                f"{anatomy.d_model} wide; use directions found on this model"
            )
        check_layers(step.layers, anatomy)
        check_layers(step.at, anatomy)
        check_kernel(step.kernel, anatomy)


def check_kernel(kernel: Kernels | None, anatomy: Anatomy) -> None:
    """Refuse factors for another number of layers than the model has.

    Raises:
        UsageError: with both numbers.
    """
    if kernel is not None and kernel.layers is not None and kernel.layers != anatomy.n_layers:
        raise UsageError(
            f"`kernel` has numbers for {kernel.layers} layers, but {anatomy.architecture} has {anatomy.n_layers}; give "
            "one for each, or a kernel, which fits any number",
            option="kernel",
        )


def not_bakeable(kind: str, change: RuntimeOnly) -> UnsupportedError:
    """The error of a change that no weights can make; it names the nearest that can be baked."""
    return UnsupportedError(
        f"edit {kind} cannot be baked: {change.why}; the nearest that can: {change.nearest}", option=("kind", "at")
    )


def check_reflection(anatomy: Anatomy, embeddings: str) -> None:
    """Refuse a reflection at a layer if its embedding and unembedding are tied and stay so.

    Raises:
        UsageError: the two are tied and stay so.
    """
    if anatomy.tied and embeddings != "untie":
        raise UsageError(
            "a reflection at a layer changes the unembedding, tied here to the embedding: `embeddings='untie'` (in a "
            "recipe, edit.embeddings: untie)",
            option="embeddings",
        )


def check_layers(layers: Collection[int] | None, anatomy: Anatomy) -> None:
    """Raise `UsageError` if a layer index is out of range.

    Raises:
        UsageError: names one of them.
    """
    last = anatomy.n_layers - 1
    wrong = [layer for layer in layers or () if not 0 <= layer <= last]
    if wrong:
        raise UsageError(f"layer {max(wrong)} does not exist: the model's are 0 to {last}")


def parse_layers(text: str | None) -> frozenset[int] | None:
    """The layers named by "0-31", "3", or "0-3,8,10-12"; None for all.

    Raises:
        UsageError: when the text is none of these.
    """
    if text is None:
        return None
    layers: set[int] = set()
    for part in str(text).split(","):
        first, dash, last = part.strip().partition("-")
        if not _number(first) or (dash and not _number(last)) or (dash and int(last) < int(first)):
            raise UsageError(f"layers '{text}' is no range; write for example 0-31 or 4,8-12")
        layers.update(range(int(first), int(last if dash else first) + 1))
    return frozenset(layers)


def _number(text: str) -> bool:
    """Whether a text is a layer's number: plain digits, at most five."""
    return text.isascii() and text.isdecimal() and len(text) <= 5
