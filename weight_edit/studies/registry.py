"""Studies by name. Adding one is adding one file in `kinds/`, with a function under `@study("its-name")`."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from weight_edit.errors import UsageError
from weight_edit.section import Section, validated
from weight_edit.studies.lab import Lab

Function = Callable[..., dict[str, Any]]
"""`function(lab, options)`: writes tables and figures through the lab, and returns what matters, JSON values."""


@dataclass(frozen=True)
class Study:
    """One kind of experiment.

    Attributes:
        name: what a recipe's `studies` entry has as its kind.
        summary: the first line of its docstring.
        options: its settings.
        function: what carries it out.
    """

    name: str
    summary: str
    options: type[Section]
    function: Function

    def __call__(self, lab: Lab, options: Mapping[str, Any]) -> dict[str, Any]:
        """Carry it out.

        Raises:
            UsageError: an option that it does not have, or a wrong value of one.
        """
        return self.function(lab, self.settings(options))

    def settings(self, options: Mapping[str, Any]) -> Section:
        """Its settings, checked before anything runs."""
        return validated(self.options, options, f"study {self.name}")


_STUDIES: dict[str, Study] = {}


def study(name: str) -> Callable[[Function], Function]:
    """Register a function `(lab, options)` under a name."""

    def register(function: Function) -> Function:
        if name in _STUDIES:
            raise ValueError(f"two studies are called {name!r}")
        summary = (inspect.getdoc(function) or name).splitlines()[0]
        _STUDIES[name] = Study(name, summary, get_type_hints(function)["options"], function)
        return function

    return register


def studies() -> dict[str, Study]:
    """All studies of this package by name."""
    import weight_edit.studies.kinds as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_STUDIES.items()))


def study_named(name: str) -> Study:
    """One of them.

    Raises:
        UsageError: there is none of that name.
    """
    known = studies()
    if name not in known:
        raise UsageError(f"there is no study {name!r}; choose one of {', '.join(known)}")
    return known[name]
