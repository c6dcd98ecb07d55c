"""Finders by name. Adding one is adding one file here, with a function under `@finder("its-name")`."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from weight_edit.errors import UsageError
from weight_edit.runtime import Model


class Finder(Protocol):
    """Gives a candidate direction for each position and layer, (positions, layers, d_model) float32 on the
    CPU.

    A candidate points from baseline to target, with the length at which it would be added to the stream; zero
    where there is none. `target` and `baseline` are token ids of training prompts, `positions` negative.
    """

    def __call__(
        self,
        model: Model,
        target: Sequence[Sequence[int]],
        baseline: Sequence[Sequence[int]],
        positions: Sequence[int],
        *,
        batch_size: int,
    ) -> Tensor: ...


_FINDERS: dict[str, Finder] = {}


def finder(name: str) -> Callable[[Finder], Finder]:
    """Register a function under the name that `--method` takes."""

    def register(function: Finder) -> Finder:
        if name in _FINDERS:
            raise ValueError(f"two finders are called {name!r}")
        _FINDERS[name] = function
        return function

    return register


def finders() -> dict[str, Finder]:
    """All finders of this package by name."""
    import weight_edit.directions as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_FINDERS.items()))


def finder_named(name: str) -> Finder:
    """One of them.

    Raises:
        UsageError: there is none of that name.
    """
    known = finders()
    if name not in known:
        raise UsageError(f"there is no method {name!r} to find directions; choose one of {', '.join(known)}")
    return known[name]
