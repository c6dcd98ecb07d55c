"""The layout of a model's parameters in a GGUF file, by what transformers' reader does to known numbers.

A small file with the names of the real one is filled with numbers that say in which tensor they are, and at which place
of it. transformers loads it, and the narrow copy's parameters tell where each of their numbers came from, whatever was
renamed, transposed, permuted, joined, cut or shifted on the way. What was found is then tried on random numbers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from weight_edit.anatomy.disk.conversion import may_be_missing
from weight_edit.anatomy.disk.gguf_reader import GgufReader, Values
from weight_edit.anatomy.disk.layout import Axes, Layout, Piece, runs_of
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.narrow.small import narrow_model
from weight_edit.anatomy.parts import Anatomy
from weight_edit.errors import UnsupportedError
from weight_edit.utils.name_patterns import general

_STEP = 8.0
"""The distance of two codes: what a reader adds to a number is less than half of it."""
_MOST_CODES = 1 << 20
"""So that codes are exact in float32."""
_CHANGED = "its values changed"
_UNREAD = "no reader of transformers, as llama.cpp multiplies with it"
Shape = tuple[int, ...]


def gguf_layout(real: nn.Module, config: Any, stored: Stored, reader: GgufReader, anatomy: Anatomy) -> Layout:
    """The layout of every parameter of a model in the tensors of a GGUF file.

    Args:
        real: the model on the meta device.
        config: its config, as transformers makes it of the file's metadata.
        stored: the tensors of the file, or of all its parts; the last axis is the one whose numbers lie side by side.
        reader: transformers' reader for it.
        anatomy: of the model: a writer that the package gguf names and transformers' reader leaves out lies as ggml
            multiplies with it.

    Raises:
        UnsupportedError: the reader fails, or does something else to random numbers than to codes.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in real.state_dict().items()}
    narrow = narrow_model(config)
    small = {name: tuple(tensor.shape) for name, tensor in narrow.state_dict().items()}
    takes = reader.parameters(real, stored.shapes)
    sharing = Counter(takes.values())
    shapes: dict[str, list[Shape]] = {}
    mismatched: dict[str, Shape] = {}
    for name, parameter in takes.items():
        found = _small_shapes(stored.shapes[name], wanted[parameter], small[parameter], sharing[parameter])
        if found:
            shapes[name] = found
        else:
            mismatched[parameter] = stored.shapes[name]
    trial = _Trial(reader, narrow.config, takes, shapes)
    places = trial.places()
    ties: dict[str, str] = getattr(real, "all_tied_weights_keys", {})
    laid: dict[str, tuple[Piece, ...]] = {}
    how: dict[str, str] = {}
    shifts: dict[str, float] = {}
    for parameter in wanted:
        if parameter in mismatched:
            laid[parameter] = tuple(Piece(name, (None,) * len(wanted[parameter])) for name in trial.given(parameter))
            continue
        place = places.get(parameter)
        if place is None:
            piece = _as_multiplied(anatomy, parameter, wanted[parameter], trial.given(parameter), stored)
            if piece is not None:
                laid[parameter], how[parameter] = (piece,), _UNREAD
            continue
        laid[parameter] = pieces = trial.pieces(parameter, place)
        if place.shift is None:
            how[parameter] = _CHANGED
        elif place.shift:
            shifts[parameter] = place.shift
        if place.shift is not None and any(piece.axes != tuple(range(len(piece.axes))) for piece in pieces):
            how[parameter] = "its numbers in another order"
    # A tied parameter is one with its source, and has a tensor of its own only where the file has one for it.
    for parameter, source in ties.items():
        if source in laid and laid.get(parameter) == laid[source]:
            del laid[parameter]
    taken = {piece.name for pieces in laid.values() for piece in pieces}
    return Layout(
        parameters={name: runs_of(laid[name]) for name in wanted if name in laid},
        how=how,
        missing={
            name: ""
            for name in wanted
            if name not in laid and not (name in ties and ties[name] in laid) and not may_be_missing(real, name)
        },
        mismatched=mismatched,
        clashes=(),
        extra=tuple(sorted(set(stored.shapes) - taken)),
        shifts=shifts,
        container="GGUF",
    )


def _as_multiplied(anatomy: Anatomy, parameter: str, wanted: Shape, tensors: list[str], stored: Stored) -> Piece | None:
    """The tensor of a writer that transformers does not read; None if it is no writer, or of other sizes.

    ggml multiplies each row of a matrix, numbers that lie side by side, with the input: an output is a row.
    """
    if len(tensors) != 1 or sorted(stored.shapes[tensors[0]]) != sorted(wanted):
        return None
    axes: list[int | None] = [None] * len(wanted)
    for writer in anatomy.writers:
        if parameter == writer.weight and writer.layer is not None and len(wanted) >= 2:
            axes[writer.axis] = len(wanted) - 2
        elif parameter == writer.bias:
            axes[writer.bias_axis] = len(wanted) - 1
    found = next((axis for axis in axes if axis is not None), None)
    if found is None or stored.shapes[tensors[0]][found] != anatomy.d_model:
        return None
    return Piece(tensors[0], tuple(axes))


def _small_shapes(stored: Shape, wanted: Shape, small: Shape, count: int) -> list[Shape]:
    """The shapes that a tensor of the narrow copy's file may have, the likeliest first; none where sizes do not fit.

    Args:
        stored: the real tensor's.
        wanted, small: the parameter's, in the real model and in the narrow copy.
        count: how many tensors go into that parameter.
    """
    found: list[Shape] = []
    pairs = [(wanted, small)]
    if count > 1:
        pairs = [
            (
                tuple(size // (count if axis == cut else 1) for axis, size in enumerate(wanted)),
                tuple(size // (count if axis == cut else 1) for axis, size in enumerate(small)),
            )
            for cut in range(len(wanted))
            if wanted[cut] % count == 0 and small[cut] % count == 0
        ]
    for large, little in pairs:
        for order in permutations(range(len(large))):
            for kept in _without_ones(large, order):
                if tuple(large[axis] for axis in kept) == stored:
                    found.append(tuple(little[axis] for axis in kept))
    return list(dict.fromkeys(found))


def _without_ones(sizes: Shape, order: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The order itself, and without the axes of size 1."""
    yield order
    yield tuple(axis for axis in order if sizes[axis] != 1)


@dataclass(frozen=True)
class _Place:
    """Where the numbers of one parameter lie: in which tensor, at which place of it, and what is added to them.

    Attributes:
        tensors, indices: for each number of the parameter; empty where `shift` is None.
        shift: the same for all; None where the values are changed in another way.
    """

    tensors: NDArray[np.int64]
    indices: NDArray[np.int64]
    shift: float | None


class _Trial:
    """Small files with chosen numbers, and what transformers makes of them."""

    def __init__(
        self, reader: GgufReader, config: Any, takes: Mapping[str, str], shapes: Mapping[str, list[Shape]]
    ) -> None:
        self._reader, self._config, self._takes, self._candidates = reader, config, takes, shapes
        self.names = list(shapes)
        self.shapes = {name: possible[0] for name, possible in shapes.items()}

    def given(self, parameter: str) -> list[str]:
        """The tensors that go into a parameter by their names."""
        return [name for name, taker in self._takes.items() if taker == parameter]

    def places(self) -> dict[str, _Place]:
        """Parameter -> where its numbers lie, for all that come out of the file.

        Raises:
            UnsupportedError: as `gguf_layout`.
        """
        if not self.names:
            return {}
        first, bad = self._shaped()
        second, _ = self._read({name: np.arange(prod(shape)) for name, shape in self.shapes.items()})
        takers = set(self._takes.values()) - bad
        found = {name: self._place(first[name], second[name]) for name in first if name in takers}
        self._try(found)
        return found

    def _shaped(self) -> tuple[dict[str, Values], frozenset[str]]:
        """What comes of numbers that name their tensor, in the shapes that transformers wants."""
        tried: Counter[str] = Counter()
        while True:
            found, bad = self._read({name: np.asarray(index) for index, name in enumerate(self.names)})
            again = {
                general(name)
                for name in self.names
                if self._takes[name] in bad and tried[general(name)] + 1 < len(self._candidates[name])
            }
            if not again:
                return found, bad
            tried.update(again)
            for name, possible in self._candidates.items():
                self.shapes[name] = possible[min(tried[general(name)], len(possible) - 1)]

    def _read(self, codes: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Values], frozenset[str]]:
        largest = max(int(np.max(code, initial=0)) for code in codes.values())
        if largest > _MOST_CODES:
            raise UnsupportedError(f"the narrow copy has {largest} numbers in one tensor, too many to be told apart")
        return self._reader.read(
            self._config,
            {
                name: np.ascontiguousarray(
                    np.broadcast_to(_STEP * (code + 1.0), prod(self.shapes[name])), np.float32
                ).reshape(self.shapes[name])
                for name, code in codes.items()
            },
        )

    def _place(self, first: Values, second: Values) -> _Place:
        nothing = np.zeros(0, np.int64)
        changed = _Place(nothing, nothing, None)
        if not first.size or not (np.isfinite(first).all() and np.isfinite(second).all()):
            return changed
        tensors = np.rint(first / _STEP)
        shift = float((first - _STEP * tensors).flat[0])
        indices = (second - shift) / _STEP
        exact = (first == _STEP * tensors + shift).all() and (indices == np.rint(indices)).all()
        if not exact or tensors.min() < 1 or tensors.max() > len(self.names) or indices.min() < 1:
            return changed
        place = _Place(tensors.astype(np.int64) - 1, indices.astype(np.int64) - 1, shift)
        sizes = np.asarray([prod(self.shapes[name]) for name in self.names])
        return place if (place.indices < sizes[place.tensors]).all() else changed

    def _try(self, places: Mapping[str, _Place]) -> None:
        """Hold what was found against random numbers; a multiple of 2^-12 and a shift are exact in float32."""
        generator = np.random.default_rng(3)
        random = {
            name: (generator.integers(-4096, 4096, self.shapes[name]) / 4096).astype(np.float32) for name in self.names
        }
        starts = np.cumsum([0, *(random[name].size for name in self.names)])
        everything = np.concatenate([random[name].reshape(-1) for name in self.names])
        found, _ = self._reader.read(self._config, random)
        for parameter, place in places.items():
            if place.shift is None:
                continue
            expected = everything[starts[place.tensors] + place.indices] + place.shift
            if not np.array_equal(found[parameter], expected):
                raise UnsupportedError(
                    f"transformers makes something else of random numbers in '{self.given(parameter)[0]}' than of "
                    "counted ones, so that its layout is not understood"
                )

    def pieces(self, parameter: str, place: _Place) -> tuple[Piece, ...]:
        """The tensors that hold a parameter, in the order of its numbers, with their axes."""
        if place.shift is None:
            ndim = self._ndim(parameter)
            return tuple(Piece(name, (None,) * ndim) for name in self.given(parameter))
        order = dict.fromkeys(place.tensors.reshape(-1).tolist())
        return tuple(Piece(self.names[tensor], self._axes(place, tensor)) for tensor in order)

    def _ndim(self, parameter: str) -> int:
        return max(len(self.shapes[name]) for name in self.given(parameter))

    def _axes(self, place: _Place, tensor: int) -> Axes:
        """For each axis of a parameter the axis of one of its tensors along which it lies whole and in order."""
        shape = self.shapes[self.names[tensor]]
        mine = place.tensors == tensor
        here = np.nonzero(mine)
        there = np.unravel_index(place.indices[mine], shape)
        counts = [len(np.unique(each)) for each in here]
        whole = prod(counts) == len(here[0])
        axes: list[int | None] = []
        for axis, size in enumerate(mine.shape):
            # An axis at its own place first: of axes of size 1 any would do.
            order = sorted(range(len(shape)), key=lambda other: (other != axis, other))
            able = whole and counts[axis] == size
            along = (b for b in order if able and shape[b] == size and b not in axes and (there[b] == here[axis]).all())
            axes.append(next(along, None))
        return tuple(axes)
