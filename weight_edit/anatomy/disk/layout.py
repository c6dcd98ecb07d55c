"""The layout of a model's parameters in a checkpoint's tensors: plain data, free of torch."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

Axes = tuple[int | None, ...]


@dataclass(frozen=True)
class Piece:
    """A tensor on disk that holds a parameter or part of one.

    Attributes:
        name: of the tensor, as `checkpoint.quantized.formats.storage_of` takes it.
        axes: for each axis of the parameter the axis of the tensor along which it lies whole and in order; None where
            it does not: the number of the expert, of which this tensor holds one; an axis that was concatenated, cut or
            permuted.
    """

    name: str
    axes: Axes


@dataclass(frozen=True)
class Run:
    """Pieces with consecutive numbers in their names, such as the experts of one block.

    The layout of 70 000 tensors stays small with these.

    Attributes:
        head, tail: what stands before and after the number; the whole name is the head where there is none.
        first: the first number; None for a single name.
        count: how many pieces.
        axes: of each.
    """

    head: str
    first: int | None
    count: int
    tail: str
    axes: Axes

    def __iter__(self) -> Iterator[Piece]:
        for index in range(self.count):
            number = "" if self.first is None else str(self.first + index)
            yield Piece(self.head + number + self.tail, self.axes)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The tensors that hold each parameter or persistent buffer, as transformers loads them.

    Nothing is judged here: see `weight_edit.anatomy.disk.names`.

    Attributes:
        parameters: the pieces of each, in transformers' order; one that is tied to another may have none.
        how: the operations between disk and memory, for parameters that are not read as they are.
        missing: parameters that are not on disk and must be, with the reason where transformers' conversion gave one.
        mismatched: parameters that would be of another shape than config.json says, with that shape.
        clashes: tensors that are for one and the same parameter, where one would silently win.
        extra: tensors that no parameter takes.
        shifts: what is added to the numbers of the file to give those of a parameter, where that is not 0: -1 where a
            norm's 1 + weight is stored.
        container: "GGUF" where the tensors lie in such a file, whose names and sizes cannot change; else empty.
    """

    parameters: dict[str, tuple[Run, ...]]
    how: dict[str, str]
    missing: dict[str, str]
    mismatched: dict[str, tuple[int, ...]]
    clashes: tuple[tuple[str, ...], ...]
    extra: tuple[str, ...]
    shifts: dict[str, float] = field(default_factory=dict)
    container: str = ""


def runs_of(pieces: Iterable[Piece]) -> tuple[Run, ...]:
    """The same pieces in the same order, as runs."""
    runs: list[Run] = []
    before: list[str] = []
    place: int | None = None
    for piece in pieces:
        parts = _NUMBERS.split(piece.name)
        last = runs[-1] if runs else None
        step = _step(before, parts) if last is not None and last.axes == piece.axes else None
        if last is not None and step is not None and (last.count == 1 or step == place):
            place = step
            head, tail = "".join(parts[:step]), "".join(parts[step + 1 :])
            runs[-1] = Run(head, int(parts[step]) - last.count, last.count + 1, tail, piece.axes)
        else:
            runs.append(Run(piece.name, None, 1, "", piece.axes))
        before = parts
    return tuple(runs)


_NUMBERS = re.compile(r"(0|[1-9][0-9]*)")


def _step(before: Sequence[str], parts: Sequence[str]) -> int | None:
    """The index of the one number in which a name differs from the one before, by 1; else None."""
    if len(before) != len(parts):
        return None
    differing = [index for index, (old, new) in enumerate(zip(before, parts, strict=True)) if old != new]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    return differing[0] if int(parts[differing[0]]) == int(before[differing[0]]) + 1 else None
