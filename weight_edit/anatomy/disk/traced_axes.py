"""Meta tensors that track the origin of their axes through a loader's operations.

The loader's own code runs on them, whatever operations a family has; only the few functions of torch that move axes are
known here. After any other function no axis is known any more, so that nothing wrong can be said.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from weight_edit.anatomy.disk.layout import Axes, Piece


class Traced(Tensor):
    """A meta tensor with its `pieces`: the tensors it consists of, and their axes in it."""

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, name: str, shape: Sequence[int], *, transposed: bool = False) -> "Traced":
        """A whole tensor on disk.

        Args:
            shape: as it lies on disk.
            transposed: whether the loader is given it with its last two axes exchanged.
        """
        axes: list[int | None] = list(range(len(shape)))
        if transposed:
            axes[-2:] = axes[-1], axes[-2]
        found = torch.empty([shape[axis] for axis in axes if axis is not None], device="meta").as_subclass(cls)
        found.pieces = (Piece(name, tuple(axes)),)
        return found

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function for its result's shape, and derive the result's pieces."""
        kwargs = kwargs or {}
        result = super().__torch_function__(func, types, args, kwargs)
        results = [item for item in (result if isinstance(result, tuple | list) else [result]) if isinstance(item, cls)]
        if results:
            name = getattr(func, "__name__", "")
            rule = _RULES.get(name, _unknown)
            given = list(_traced([args, list(kwargs.values())]))
            for item in results:
                item.pieces = rule(item, given, args, kwargs)
        return result


def _traced(values: Iterable[Any]) -> Iterator[Traced]:
    for value in values:
        if isinstance(value, Traced):
            yield value
        elif isinstance(value, tuple | list):
            yield from _traced(value)


Rule = Callable[[Tensor, list[Traced], Any, Any], tuple[Piece, ...]]


def moved(pieces: Iterable[Piece], sources: Sequence[int | None]) -> tuple[Piece, ...]:
    """The pieces with permuted axes: axis i is axis `sources[i]` of the input, or new if None."""
    return tuple(Piece(p.name, tuple(None if a is None else p.axes[a] for a in sources)) for p in pieces)


def _unknown(result: Tensor, given: list[Traced], args: Any, kwargs: Any) -> tuple[Piece, ...]:
    return tuple(Piece(piece.name, (None,) * result.ndim) for tensor in given for piece in tensor.pieces)


def _same(result: Tensor, given: list[Traced], args: Any, kwargs: Any) -> tuple[Piece, ...]:
    return given[0].pieces


def _cut_or_joined(result: Tensor, given: list[Traced], args: Any, kwargs: Any) -> tuple[Piece, ...]:
    """The pieces after a split or concatenation: only axes of unchanged length stay whole."""
    return tuple(
        piece
        for tensor in given
        for piece in moved(
            tensor.pieces, [a if result.shape[a] == tensor.shape[a] else None for a in range(result.ndim)]
        )
    )


def _stacked(result: Tensor, given: list[Traced], args: Any, kwargs: Any) -> tuple[Piece, ...]:
    dim = int(_argument(args, kwargs, 1, "dim", 0)) % result.ndim
    axes = list(range(result.ndim - 1))
    sources = [*axes[:dim], None, *axes[dim:]]
    return tuple(piece for tensor in given for piece in moved(tensor.pieces, sources))


def _transposed(result: Tensor, given: list[Traced], args: Any, kwargs: Any) -> tuple[Piece, ...]:
    first = int(_argument(args, kwargs, 1, "dim0", 0)) % result.ndim
    second = int(_argument(args, kwargs, 2, "dim1", 1)) % result.ndim
    sources = list(range(result.ndim))
    sources[first], sources[second] = second, first
    return moved(given[0].pieces, sources)


def _reshaped(result: Tensor, given: list[Traced], args: Any, kwargs: Any) -> tuple[Piece, ...]:
    if any(isinstance(value, torch.dtype) for value in [*args, *kwargs.values()]):
        # A view of the bits as other numbers.
        return _unknown(result, given, args, kwargs)
    return moved(given[0].pieces, kept_axes(tuple(given[0].shape), tuple(result.shape)))


def kept_axes(before: tuple[int, ...], after: tuple[int, ...]) -> Axes:
    """Each axis after a reshape as an axis before it, or None if joined or cut."""
    if before == after:
        return tuple(range(len(after)))
    sources: list[int | None] = [None] * len(after)
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    i = j = 0
    while i < len(old) and j < len(new):
        # The shortest groups of axes that hold the same numbers.
        k, m = i + 1, j + 1
        while prod(before[a] for a in old[i:k]) != prod(after[a] for a in new[j:m]):
            if prod(before[a] for a in old[i:k]) < prod(after[a] for a in new[j:m]):
                k += 1
            else:
                m += 1
            if k > len(old) or m > len(new):
                return tuple(sources)
        if (k, m) == (i + 1, j + 1):
            sources[new[j]] = old[i]
        i, j = k, m
    return tuple(sources)


def _argument(args: Any, kwargs: Any, place: int, name: str, default: int) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("contiguous", "clone", "detach", "to", "cpu", "float"), _same),
    **dict.fromkeys(("cat", "concat", "concatenate", "chunk", "split"), _cut_or_joined),
    **dict.fromkeys(("reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze"), _reshaped),
    **dict.fromkeys(("transpose", "swapaxes"), _transposed),
    "stack": _stacked,
}
