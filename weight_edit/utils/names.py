"""Errors for unknown names of methods, edits, studies, prompt sets and so on."""

import difflib
from collections.abc import Iterable

from weight_edit.errors import UsageError

_MANY, _TOO_MANY = 12, 60
"""Above the first number of names only the nearest is told; above the second none is listed."""


def nearest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """The names most similar to `name`, best first; empty if none is similar."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.6)


def unknown(what: str, name: object, known: Iterable[str]) -> UsageError:
    """The error for an unknown name: with the nearest name, and all known ones.

    Args:
        what: what it would be the name of, such as "method".
        known: the names there are.
    """
    names = list(known)
    near = nearest(str(name), names)
    listed = ", ".join(names) or "none"
    if not near and len(names) > _TOO_MANY:
        return UsageError(f"there is no {what} {name!r}, and none of the {len(names)} that there are is like it")
    if not near:
        return UsageError(f"there is no {what} {name!r}; choose one of {listed}")
    others = f" (there are {listed})" if len(names) <= _MANY else ""
    return UsageError(f"there is no {what} {name!r}; did you mean {near[0]!r}?{others}")


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse an unknown name.

    Raises:
        UsageError: see `unknown`.
    """
    names = list(known)
    if name not in names:
        raise unknown(what, name, names)
