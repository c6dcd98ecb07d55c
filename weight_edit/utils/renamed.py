"""Renamed arguments and values: earlier ones are accepted with a `DeprecationWarning`."""

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, ParamSpec, TypeVar

EARLIER_VALUES: Mapping[str, Mapping[str, str]] = {
    "embeddings": {"keep": "both"},
    "projector": {"followed": "partial", "keep": "skip"},
    "mtp": {"keep": "skip"},
}
"""Setting -> its earlier words -> the present ones. "keep" meant both an embedding edited and a layer left as it is."""

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def _warn(message: str) -> None:
    """Warn at the line of the caller, behind the decorators of this file: Python hides warnings at other lines."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and frame.f_code.co_filename == __file__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, DeprecationWarning, stacklevel=level)


def present_values(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings, their values by the present words; what is no word stays."""
    said = dict(settings)
    for name, words in EARLIER_VALUES.items():
        if isinstance(said.get(name), str):
            said[name] = words.get(said[name], said[name])
    return said


def renamed_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that accepts keyword arguments by their earlier names.

    Args:
        names: earlier name -> present name.

    Raises:
        TypeError: when the function is called, if an argument is given by both names.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            for old, new in names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got '{new}' and '{old}', its earlier name")
                _warn(f"{function.__name__}({old}=...) is called {new} now")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def renamed_values(function: Callable[P, R]) -> Callable[P, R]:
    """A function that takes the words of `EARLIER_VALUES` too, for keyword arguments of these names."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in present_values(kwargs).items():
            if value != kwargs[name]:
                said = f'{function.__name__}({name}="{kwargs[name]}") is "{value}" now'
                _warn(said)
                kwargs[name] = value
        return function(*args, **kwargs)

    return call


def renamed_fields(**names: str) -> Callable[[C], C]:
    """A decorator under which a dataclass is made with fields by their earlier names too, as `renamed_arguments`."""

    def decorate(cls: C) -> C:
        made: Any = cls.__init__  # type: ignore[misc]
        made.__name__ = cls.__name__
        cls.__init__ = renamed_arguments(**names)(made)  # type: ignore[misc]
        return cls

    return decorate
