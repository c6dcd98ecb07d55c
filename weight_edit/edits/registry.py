"""Edits by name. Adding one is adding one file in `kinds/`, with a function under `@edit("its-name")`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

from weight_edit.edits.arrays import Floats
from weight_edit.edits.changes import Change
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.section import Section, validated


class Needed(Protocol):
    """Gives a tensor that lies beside the directions by name, float64; a `UsageError` where there is none."""

    def __call__(self, name: str) -> Floats: ...


@dataclass(frozen=True)
class Given:
    """What an edit is made of.

    Attributes:
        rows: the directions, orthonormal rows (k, d_model) float64.
        need: gives a tensor that lies beside them, such as "baseline_mean".
        at: blocks at whose inputs the edit is asked for; empty where none were named.
        layer: where the directions were found; None where that is not known.
        strength: as asked for; a `StreamMap` is scaled by it afterwards and need not look.
    """

    rows: Floats
    need: Needed
    at: tuple[int, ...]
    layer: int | None
    strength: float

    @property
    def layer_found(self) -> int:
        """The layer at whose input the directions were found.

        Raises:
            UsageError: it is not known.
        """
        if self.layer is None:
            raise UsageError("the directions do not say at which layer they were found; pass --option enter=embedding")
        return self.layer

    def vector(self, name: str) -> Floats:
        """A tensor that is one vector of the stream, (d_model,) float64.

        Raises:
            UsageError: there is none of that name, or it has another shape.
        """
        found = self.need(name)
        if found.size != self.rows.shape[1]:
            raise UsageError(
                f"`{name}` beside the directions has shape {found.shape}, but is to be one vector {self.rows.shape[1]} "
                "wide; find the directions again"
            )
        return found.reshape(-1)


Function = Callable[..., Change]
"""`function(given, options)`; `options` is a `Section` of its own."""


@dataclass(frozen=True)
class Kind:
    """One kind of edit.

    Attributes:
        name: what `--edit` takes.
        summary: the first line of its docstring.
        options: its settings.
        function: what makes the change.
    """

    name: str
    summary: str
    options: type[Section]
    function: Function

    def __call__(self, given: Given, options: Mapping[str, Any]) -> Change:
        """What the edit does to the stream.

        Raises:
            UsageError: an option that it does not have, a wrong value, or a tensor that the directions lack.
        """
        return self.function(given, self.settings(options))

    def settings(self, options: Mapping[str, Any]) -> Section:
        """Its settings, checked before anything runs."""
        return validated(self.options, options, f"edit {self.name}")


_KINDS: dict[str, Kind] = {}


def edit(name: str) -> Callable[[Function], Function]:
    """Register a function `(given, options)` under the name that `--edit` takes."""

    def register(function: Function) -> Function:
        if name in _KINDS:
            raise ValueError(f"two edits are called {name!r}")
        summary = (inspect.getdoc(function) or name).splitlines()[0]
        _KINDS[name] = Kind(name, summary, get_type_hints(function)["options"], function)
        return function

    return register


def edit_kinds() -> dict[str, Kind]:
    """All kinds of edits of this package by name."""
    import weight_edit.edits.kinds as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_KINDS.items()))


def edit_named(name: str) -> Kind:
    """One of them.

    Raises:
        UnsupportedError: there is none of that name.
    """
    known = edit_kinds()
    if name not in known:
        raise UnsupportedError(f"edit '{name}' is not supported; those that are: {', '.join(known)}")
    return known[name]
