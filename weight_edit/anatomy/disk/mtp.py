"""Multi-token-prediction (MTP) layers: their tensors on disk, and the writers among these.

transformers does not load them, so that no trace can show what they do. Their blocks are blocks of the model under
other prefixes: what a tensor is for is read off the tensor of the same name in a block of the model.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from weight_edit.anatomy.disk.mtp_data import EMBEDDINGS, PLACES, PROJECTIONS, READERS, RENAMES, WRAPPERS
from weight_edit.anatomy.disk.names import DiskNames
from weight_edit.anatomy.parts import Anatomy, Norm
from weight_edit.errors import UnsupportedError
from weight_edit.utils.name_patterns import general

PROJECTION, EMBEDDING, BLOCK, NORM_BIAS = "projection", "embedding", "block", "norm bias"


@dataclass(frozen=True)
class MtpWriter:
    """A tensor on disk whose vectors are added to the stream of an MTP layer.

    Attributes:
        tensor: its name, as `checkpoint.quantized.formats.storage_of` takes it.
        axis: along which the vectors lie.
        kind: "projection" (what the stream starts from), "embedding" (a copy of the model's embedding), "block" (what a
            block adds), or "norm bias" (what the norm behind a block's writer adds).
        norm: the norm between the vectors and the stream, its weight and bias named as on disk; or None.
    """

    tensor: str
    axis: int
    kind: str
    norm: Norm | None


def mtp_tensors(anatomy: Anatomy, disk: DiskNames) -> tuple[str, ...]:
    """The tensors in `disk.extra` that belong to MTP layers, in its order."""
    return tuple(tensor.name for tensor in _tensors(_Blocks(anatomy, disk), disk.extra))


def mtp_writers(anatomy: Anatomy, disk: DiskNames, shapes: Mapping[str, tuple[int, ...]]) -> tuple[MtpWriter, ...]:
    """The writers of the MTP layers.

    Args:
        anatomy: of the model.
        disk: of its checkpoint.
        shapes: of the checkpoint's tensors, see `weight_edit.anatomy.disk.stored.Stored`.

    Raises:
        UnsupportedError: names a tensor of an MTP layer that nothing in the model's blocks or in the table explains, or
            that is not d_model wide where it should be.
    """
    blocks = _Blocks(anatomy, disk)
    tensors = _tensors(blocks, disk.extra)
    named = {(tensor.prefix, tensor.within): tensor.name for tensor in tensors}
    writers = []
    for tensor in tensors:
        use = _use(tensor, blocks)
        if use is None:
            continue
        shape = shapes[tensor.name]
        if use.axis >= len(shape) or shape[use.axis] != anatomy.d_model:
            raise UnsupportedError(
                f"'{tensor.name}' of a multi-token-prediction layer is {shape}, but should be {anatomy.d_model} wide "
                f"along its axis {use.axis}; `mtp='skip'` leaves these layers as they are",
                option="mtp",
            )
        norm = None if use.norm is None else _norm_beside(use.norm, tensor, named)
        writers.append(MtpWriter(tensor.name, use.axis, use.kind, norm))
    return tuple(writers)


@dataclass(frozen=True)
class _Tensor:
    """A tensor of an MTP layer: full name, the layer's prefix, and its name within the block."""

    name: str
    prefix: str
    within: str


@dataclass(frozen=True)
class _Use:
    """A writer's use of one tensor name; the norm's names are relative to its block."""

    axis: int
    kind: str
    norm: Norm | None = None


class _Blocks:
    """The model's blocks by their tensor names on disk.

    Attributes:
        last: for each beginning of names such as "model.layers." the last number behind it.
        uses: for each name within a block all that is done with it; None stands for reading.
    """

    def __init__(self, anatomy: Anatomy, disk: DiskNames) -> None:
        writing = dict(_written(anatomy, disk))
        modules = tuple(block.module + "." for block in anatomy.blocks)
        self.last: dict[str, int] = {}
        self.uses: dict[str, set[_Use | None]] = defaultdict(set)
        for parameter in disk.layout.parameters:
            if parameter.startswith(modules):
                for piece in disk.pieces(parameter):
                    head, number, within = _numbered(piece.name)
                    self.last[head] = max(number, self.last.get(head, 0))
                    self.uses[within].add(writing.get(piece.name))
        # What lies in a block of the model and is no parameter is not used by the model either.
        for name in disk.extra:
            head, number, within = _numbered(name)
            if head in self.last and number <= self.last[head] and within not in self.uses:
                self.uses[within].add(None)
        self._any_number: dict[str, set[_Use | None]] = defaultdict(set)
        for within, uses in self.uses.items():
            self._any_number[general(within)] |= uses

    def of(self, within: str) -> set[_Use | None]:
        """How the model's blocks use this tensor name, expert indices ignored; empty if unknown."""
        return self.uses.get(within) or self._any_number.get(general(within)) or set()


def _written(anatomy: Anatomy, disk: DiskNames) -> Iterator[tuple[str, _Use]]:
    """Each tensor on disk that belongs to a block's writer, with its use."""
    for writer in anatomy.writers:
        if writer.layer is None:
            continue
        norm = None if writer.norm is None else _norm_on_disk(writer.norm, disk)
        for name, axis in disk.edits_on_disk(writer.weight, writer.axis):
            yield name, _Use(axis, BLOCK, norm)
        if writer.bias is not None:
            for name, axis in disk.edits_on_disk(writer.bias, writer.bias_axis):
                yield name, _Use(axis, BLOCK, norm)
        if writer.norm is not None and writer.norm.bias is not None:
            for name, axis in disk.edits_on_disk(writer.norm.bias, 0):
                yield name, _Use(axis, NORM_BIAS)


def _norm_on_disk(norm: Norm, disk: DiskNames) -> Norm:
    """The norm with its weight's name on disk, relative to the block."""
    weight = None if norm.weight is None else _numbered(disk.only(norm.weight))[2]
    inner = None if norm.inner is None else _norm_on_disk(norm.inner, disk)
    return replace(norm, module="", weight=weight, bias=None, inner=inner)


def _norm_beside(norm: Norm, tensor: _Tensor, named: Mapping[tuple[str, str], str]) -> Norm:
    """The MTP block's own norm that corresponds to a norm of the model's blocks."""
    inner = None if norm.inner is None else _norm_beside(norm.inner, tensor, named)
    if norm.weight is None:
        return replace(norm, inner=inner)
    weight = named.get((tensor.prefix, norm.weight))
    if weight is None:
        raise UnsupportedError(
            f"'{tensor.name}' of a multi-token-prediction layer needs the norm '{norm.weight}' behind it, which lies "
            "nowhere beside it; `mtp='skip'` leaves these layers as they are",
            option="mtp",
        )
    return replace(norm, weight=weight, inner=inner)


def _tensors(blocks: _Blocks, extra: Iterable[str]) -> list[_Tensor]:
    found, numbered_on = [], []
    for name in extra:
        place = next((match for pattern in PLACES if (match := pattern.match(name))), None)
        head, number, within = _numbered(name)
        if place is not None:
            found.append(_Tensor(name, place[0], _unwrapped(name[place.end() :])))
        elif number > blocks.last.get(head, number):
            numbered_on.append(_Tensor(name, f"{head}{number}.", _unwrapped(within)))
    # Blocks behind the last one may also be those that a shortened config.json leaves out.
    layers = {tensor.prefix for tensor in numbered_on if PROJECTIONS.fullmatch(tensor.within)}
    mine = {tensor.name: tensor for tensor in (*found, *(tensor for tensor in numbered_on if tensor.prefix in layers))}
    return [mine[name] for name in extra if name in mine]


def _use(tensor: _Tensor, blocks: _Blocks) -> _Use | None:
    """The use of an MTP tensor; None for one that only reads."""
    uses = blocks.of(tensor.within)
    if not uses:
        if PROJECTIONS.fullmatch(tensor.within):
            return _Use(0, PROJECTION)
        if EMBEDDINGS.fullmatch(tensor.within):
            return _Use(1, EMBEDDING)
        if READERS.fullmatch(tensor.within):
            return None
        uses = _renamed(tensor.within, blocks)
    if len(uses) != 1:
        reason = "is used otherwise from block to block" if uses else "has no equal in the model's blocks"
        raise UnsupportedError(
            f"'{tensor.name}' of a multi-token-prediction layer {reason}, so that it is not known whether it must be "
            "edited; `mtp='skip'` leaves these layers as they are",
            option="mtp",
        )
    return next(iter(uses))


def _renamed(within: str, blocks: _Blocks) -> set[_Use | None]:
    """The model's use of a tensor name, after the table of renamings; empty if unknown."""
    for rename in RENAMES:
        match = re.fullmatch(rename.pattern, within)
        uses = set() if match is None else blocks.of(match.expand(rename.real))
        if uses:
            axis = rename.axis
            return {use if use is None or axis is None else replace(use, axis=axis) for use in uses}
    return set()


_NUMBERED = re.compile(r"((?:.*?\.)?)(\d+)\.(.*)")


def _numbered(name: str) -> tuple[str, int, str]:
    """Split a name at its first number: (prefix, number, suffix); number is -1 if there is none."""
    match = _NUMBERED.fullmatch(name)
    return (match[1], int(match[2]), match[3]) if match else (name, -1, "")


def _unwrapped(within: str) -> str:
    for wrapper in WRAPPERS:
        within = within.removeprefix(wrapper)
    return within
