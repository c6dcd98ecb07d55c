"""Which map goes to which writer: an edit laid out over a model, ready to be hooked, baked or made an adapter."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from weight_edit.anatomy.parts import Anatomy, Norm, Writer
from weight_edit.edits import LowRankMap, TensorEdit, ablation, before_norm
from weight_edit.edits.arrays import Floats, Numbers, floats
from weight_edit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from weight_edit.runtime.hooks import Hook

EMBEDDING_MODES = ("keep", "untie", "skip")
PROJECTOR_MODES = ("edit", "followed", "keep")


@dataclass(frozen=True)
class WriterEdit:
    """One writer's share of an edit.

    Attributes:
        writer: the linear map.
        map: on its output, before the norm where one follows.
    """

    writer: Writer
    map: LowRankMap


@dataclass(frozen=True)
class EditPlan:
    """An edit, laid out over an anatomy.

    Attributes:
        anatomy: of the model that is edited.
        directions: orthonormal rows, (k, d_model) float32.
        strength: 1 for a full ablation.
        embeddings: what happens to a token embedding: "keep" edits it, and with it an unembedding tied to it;
            "untie" edits it and writes the source's as a separate unembedding; "skip" leaves it.
        edits: one per edited writer.
        tied_map: what the unembedding's rows go through because they are the embedding's; None elsewhere.
    """

    anatomy: Anatomy
    directions: NDArray[np.float32]
    strength: float
    embeddings: str
    edits: tuple[WriterEdit, ...]
    tied_map: LowRankMap | None

    @property
    def complete(self) -> bool:
        """Whether nothing along the directions is written to the stream any more, by text at least."""
        own = sum(writer.role != "projector" for writer in self.anatomy.writers)
        return self.strength == 1.0 and sum(edit.writer.role != "projector" for edit in self.edits) == own

    @property
    def stream_map(self) -> LowRankMap:
        """The edit in the stream itself, which the bias of a norm behind a writer goes through."""
        return ablation(self.directions, self.strength)

    @property
    def unties(self) -> bool:
        """Whether the edited checkpoint needs an unembedding of its own."""
        return self.anatomy.tied and self.embeddings == "untie"

    def tensors(self) -> dict[str, TensorEdit]:
        """The edit as weights: parameter name to the map and its axis, for all that change."""
        changes: dict[str, TensorEdit] = {}
        for edit in self.edits:
            writer = edit.writer
            changes[writer.weight] = TensorEdit(edit.map.linear, writer.axis)
            if writer.bias is not None:
                changes[writer.bias] = TensorEdit(edit.map, writer.bias_axis)
            if writer.norm is not None and writer.norm.bias is not None:
                changes[writer.norm.bias] = TensorEdit(self.stream_map, 0)
        return changes

    def hooks(self, read: "Callable[[str], Tensor]") -> "list[Hook]":
        """The edit as hooks on the outputs of the writers: what the baked weights must agree with.

        Args:
            read: gives a parameter of the unedited model by name, a torch tensor.
        """
        from weight_edit.runtime.hooks import Hook

        # Parameters of one module, such as experts of two kinds, are hooked once, at its output.
        maps = {edit.writer.module: edit.map for edit in self.edits if edit.writer.module}
        hooks = [Hook(module, "output", map.apply) for module, map in maps.items()]
        for edit in self.edits:
            if not edit.writer.module:
                hooks.append(Hook(edit.writer.weight, "parameter", TensorEdit(edit.map.linear, edit.writer.axis)))
        for edit in self.edits:
            norm = edit.writer.norm
            if norm is not None and norm.bias is not None:
                # On the CPU, because some accelerators have no float64.
                bias = read(norm.bias).detach().cpu()
                hooks.append(Hook(norm.module, "output", _shift(self.stream_map.on_bias(bias) - bias)))
        if self.tied_map is not None:
            hooks.append(Hook(self.anatomy.unembedding, "input", self.tied_map.transposed().apply))
        return hooks


def edit_plan(
    anatomy: Anatomy,
    directions: Numbers,
    read: Callable[[str], Numbers],
    *,
    strength: float = 1.0,
    layers: Collection[int] | None = None,
    embeddings: str = "keep",
    projector: str = "edit",
) -> EditPlan:
    """Lay out a directional ablation over a model.

    Args:
        anatomy: of the model.
        directions: orthonormal rows, (k, d_model), a numpy array or a torch tensor; rounded to float32, which is what
            a manifest keeps of them.
        read: gives a parameter by name, as an array or a tensor; only the gains of norms between writers and the
            stream are read.
        strength: 1 removes the component from every writer, 2 reflects it, a fraction removes a part.
        layers: blocks whose writers are edited; all when None. Embeddings are not blocks: see `embeddings`.
        embeddings: "keep", "untie" or "skip", see `EditPlan`.
        projector: "edit" or "followed" for what brings images into the stream too, "keep" leaves it.

    Raises:
        UsageError: for a layer that the model has not, an unknown mode, or directions of another width.
    """
    if embeddings not in EMBEDDING_MODES:
        raise UsageError(f"embeddings '{embeddings}' is none of {', '.join(EMBEDDING_MODES)}")
    if projector not in PROJECTOR_MODES:
        raise UsageError(f"projector '{projector}' is none of {', '.join(PROJECTOR_MODES)}")
    rows = floats(directions).astype(np.float32)
    if rows.ndim != 2 or rows.shape[1] != anatomy.d_model:
        raise UsageError(
            f"the directions are {rows.shape}, but {anatomy.architecture} has a residual stream "
            f"{anatomy.d_model} wide; use directions found on this model"
        )
    check_layers(layers, anatomy)
    edits = []
    tied_map = None
    stream_map = ablation(rows, strength)
    for writer in anatomy.writers:
        if writer.role == "embedding" and embeddings == "skip":
            continue
        if writer.role == "projector" and projector == "keep":
            continue
        if writer.layer is not None and layers is not None and writer.layer not in layers:
            continue
        map = stream_map if writer.norm is None else map_before(writer.norm, rows, strength, read)
        edit = WriterEdit(writer, map)
        edits.append(edit)
        if anatomy.tied and writer.weight == anatomy.embedding_weight and embeddings == "keep":
            tied_map = edit.map
    return EditPlan(anatomy, rows, strength, embeddings, tuple(edits), tied_map)


def check_layers(layers: Collection[int] | None, anatomy: Anatomy) -> None:
    """Refuse layers that a model has not.

    Raises:
        UsageError: names the last of them.
    """
    last = anatomy.n_layers - 1
    if layers and max(layers) > last:
        raise UsageError(f"layer {max(layers)} does not exist: the model's are 0 to {last}")


def parse_layers(text: str | None) -> frozenset[int] | None:
    """Layers from "0-31", "3", or "0-3,8,10-12"; None for all.

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
    """Whether it is a layer's number: plain digits, and few enough to count up to."""
    return text.isascii() and text.isdecimal() and len(text) <= 5


def map_before(norm: Norm, rows: Numbers, strength: float, read: Callable[[str], Numbers]) -> LowRankMap:
    """The edit in front of a norm that leaves behind it what an ablation of the stream leaves.

    Args:
        norm: between a writer and the stream.
        rows: the directions, orthonormal, (k, d_model).
        strength: of the ablation.
        read: gives the norm's weight by the name that `norm` has for it.
    """
    gain: Floats = np.ones(np.shape(rows)[1]) if norm.weight is None else floats(read(norm.weight)) + norm.gain_offset
    before = before_norm(rows, gain, centred=norm.kind == "layer")
    return ablation(before, strength) if norm.inner is None else map_before(norm.inner, before, strength, read)


def _shift(by: "Tensor") -> "Callable[[Tensor], Tensor]":
    return lambda x: x + by.to(x.device, x.dtype)
