"""Finders by name. Adding one is adding one file in `finders/`, with a function under `@finder("its-name")`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from weight_edit.directions.candidate import Candidate
from weight_edit.directions.problem import Problem
from weight_edit.errors import UsageError
from weight_edit.section import Section, validated

Function = Callable[..., list[Candidate]]
"""`function(problem, options)`: candidates at positions and layers, or fewer; `options` is a `Section` of its own."""


@dataclass(frozen=True)
class Finder:
    """One way of finding directions.

    Attributes:
        name: what `--method` takes.
        summary: the first line of its docstring.
        options: its settings.
        select: how the best of its candidates is chosen by default, see `selection.BY`.
        induces: whether adding its directions should bring the behaviour about, so that the bound on it makes sense.
        function: what computes them.
    """

    name: str
    summary: str
    options: type[Section]
    select: str
    induces: bool
    function: Function

    def __call__(self, problem: Problem, options: Mapping[str, Any] | None = None) -> list[Candidate]:
        """Candidates, positions first, then layers.

        Raises:
            UsageError: an option that the finder does not have, or a wrong value of one.
        """
        return self.function(problem, self.settings(options or {}))

    def settings(self, options: Mapping[str, Any]) -> Section:
        """Its settings, checked before anything runs."""
        return validated(self.options, options, f"method {self.name}")


_FINDERS: dict[str, Finder] = {}


def finder(name: str, *, select: str = "bypass", induces: bool = True) -> Callable[[Function], Function]:
    """Register a function `(problem, options)` under the name that `--method` takes.

    The annotation of `options` is its settings: a `Section`, whose fields have defaults.
    """

    def register(function: Function) -> Function:
        if name in _FINDERS:
            raise ValueError(f"two finders are called {name!r}")
        hints = get_type_hints(function)
        summary = (inspect.getdoc(function) or name).splitlines()[0]
        _FINDERS[name] = Finder(name, summary, hints["options"], select, induces, function)
        return function

    return register


def finders() -> dict[str, Finder]:
    """All finders of this package by name."""
    import weight_edit.directions.finders as package

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
