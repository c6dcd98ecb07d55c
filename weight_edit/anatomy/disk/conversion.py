"""The tensors on disk that hold each parameter, by the mapping of transformers' loader.

The steps are those of `convert_and_load_state_dict_in_model` in `transformers.core_model_loading`, on names and shapes
alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from weight_edit.anatomy.disk.layout import Layout, Piece, runs_of
from weight_edit.anatomy.disk.stored import Stored
from weight_edit.anatomy.disk.traced_axes import Traced
from weight_edit.errors import FOREIGN_ERRORS, UnsupportedError, first_line

LONGEST_NAME = 4000
"""The longest tensor name in characters; real ones are below 200.

Patterns and numbers of any length would take for ever, or fail.
"""
Pieces = dict[str, tuple[Piece, ...]]


def resolve(model: nn.Module, stored: Stored) -> Layout:
    """The layout of every parameter of a model in the tensors of a checkpoint.

    Args:
        model: a transformers model on the meta device, not quantised: its parameters and persistent buffers are looked
            for.
        stored: the tensors on disk.

    Raises:
        UnsupportedError: a tensor's name is longer than any model's.
    """
    for name in stored.shapes:
        if len(name) > LONGEST_NAME:
            raise UnsupportedError(
                f"the checkpoint has a tensor '{name[:40]}...' with a name of {len(name)} characters"
            )
    state = model.state_dict()
    found: Pieces = {}
    how: dict[str, str] = {}
    reasons: dict[str, str] = {}
    mismatched: dict[str, tuple[int, ...]] = {}
    clashes: list[tuple[str, ...]] = []
    for parameter, collected in _collected(model, stored, state).items():
        if collected.doubled:
            clashes.append(collected.doubled)
            continue
        try:
            made = dict(collected.made(model, stored))
        except FOREIGN_ERRORS as error:
            reasons[parameter] = first_line(error)
            continue
        for name, (pieces, shape) in made.items():
            if name not in state:
                continue
            if name in found:
                clashes.append((found[name][0].name, pieces[0].name))
                continue
            found[name] = pieces
            if collected.operations:
                how[name] = collected.operations
            if shape != tuple(state[name].shape):
                mismatched[name] = shape
    ties: dict[str, str] = getattr(model, "all_tied_weights_keys", {})
    for name, source in ties.items():
        # transformers ties the other way round where the checkpoint has the one and not the other.
        if source not in found and name in found:
            found[source] = found.pop(name)
    tied = {name for name, source in ties.items() if source in found}
    taken = {piece.name for pieces in found.values() for piece in pieces}
    taken.update(name for pair in clashes for name in pair)
    return Layout(
        parameters={name: runs_of(found[name]) for name in state if name in found},
        how=how,
        missing={
            name: reasons.get(name, "")
            for name in state
            if name not in found and name not in tied and not may_be_missing(model, name)
        },
        mismatched=mismatched,
        clashes=tuple(clashes),
        extra=tuple(sorted(set(stored.shapes) - taken)),
    )


def may_be_missing(model: nn.Module, name: str) -> bool:
    """Whether the family allows a parameter to be absent from checkpoints."""
    patterns = getattr(model, "_keys_to_ignore_on_load_missing", None) or ()
    return any(re.search(pattern, name) for pattern in patterns)


class _Collected:
    """The tensors of one conversion, which makes one or more parameters."""

    def __init__(self, parameter: str, converter: Any) -> None:
        self.parameter = parameter
        self.converter = converter
        self.names: dict[str, list[str]] = {}
        self.doubled: tuple[str, ...] = ()

    def add(self, name: str, pattern: str, converter: Any) -> None:
        """Add a tensor that a converter (None for a plain renaming) assigned by a pattern."""
        if self.names and (converter is not self.converter or converter is None):
            self.doubled = self.doubled or (next(iter(self.names.values()))[0], name)
            return
        self.names.setdefault(pattern, []).append(name)

    @property
    def operations(self) -> str:
        """The names of the converter's operations; empty for a plain renaming."""
        kinds = [] if self.converter is None else [type(op).__name__ for op in self.converter.operations]
        return ", ".join(kinds)

    def made(self, model: Any, stored: Stored) -> Iterator[tuple[str, tuple[tuple[Piece, ...], tuple[int, ...]]]]:
        """Parameter name -> (its pieces, its shape after the conversion)."""
        transposed = frozenset(stored.transposed)
        tensors = {
            pattern: [Traced.of(name, stored.shapes[name], transposed=name in transposed) for name in names]
            for pattern, names in self.names.items()
        }
        if self.converter is None:
            ((parameter, (tensor,)),) = tensors.items()
            yield parameter, (tensor.pieces, tuple(tensor.shape))
            return
        sources = [tensor for group in tensors.values() for tensor in group]
        converter = deepcopy(self.converter)
        for pattern, group in tensors.items():
            converter.collected_tensors[pattern] = group
        for parameter, value in converter.convert(self.parameter, model=model, config=model.config).items():
            result: Tensor = value[0] if isinstance(value, list) else value
            pieces = getattr(result, "pieces", None)
            if pieces is None:
                pieces = tuple(Piece(p.name, (None,) * result.ndim) for source in sources for p in source.pieces)
            yield parameter, (pieces, tuple(result.shape))


def _collected(model: Any, stored: Stored, state: dict[str, Tensor]) -> dict[str, _Collected]:
    """The tensors that transformers collects for each parameter."""
    from transformers.conversion_mapping import get_model_conversion_mapping

    collected: dict[str, _Collected] = {}
    mapping = get_model_conversion_mapping(model)
    for name, renamed, pattern, converter in parameters_of(model, mapping, stored.shapes, state):
        entry = collected.setdefault(renamed, _Collected(renamed, converter))
        entry.add(name, renamed if pattern is None else pattern, converter)
    return collected


def parameters_of(
    model: Any, mapping: Iterable[Any], names: Iterable[str], state: Mapping[str, Tensor]
) -> Iterator[tuple[str, str, str | None, Any]]:
    """Each tensor that a model takes, the parameter that it goes into, and by which pattern and converter.

    Pattern and converter are None where a tensor is only renamed; tensors that go nowhere are left out.

    Args:
        mapping: transformers' renamings and converters for the model.
        names: of the tensors on disk.
        state: the model's own, by name.
    """
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    known = list(mapping)
    renamings = [entry for entry in known if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in known if isinstance(entry, WeightConverter)]
    by_pattern = {pattern: entry for entry in converters for pattern in entry.source_patterns}
    prefix = model.base_model_prefix
    for name in sorted(names, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if renamed not in state and name in state:
            renamed, pattern = rename_source_key(name, [], [], base_model_prefix=prefix, meta_state_dict=state)
        if renamed in state:
            yield name, renamed, pattern, None if pattern is None else by_pattern[pattern]
