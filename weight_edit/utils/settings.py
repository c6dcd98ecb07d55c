"""Validated settings of recipes, finders and edits, with errors that name the wrong key."""

import difflib
import re
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from weight_edit.errors import UsageError
from weight_edit.utils.names import unknown


class Section(BaseModel):
    """A group of settings: unknown keys, NaN and infinities are refused; immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Settings = TypeVar("Settings", bound=Section)

_SHOWN = 120
"""Characters of a wrong value that a message shows."""


def validated(kind: type[Settings], content: Mapping[str, Any], name: str, what: str = "") -> Settings:
    """Settings validated from plain values.

    Args:
        name: where they stand, for messages.
        what: of what they are keys, likewise; not said again when empty.

    Raises:
        UsageError: naming the first wrong key or value.
    """
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        raise UsageError(f"{name}: {_explained(error, kind, what)}") from error


def _explained(error: ValidationError, kind: type[BaseModel], what: str) -> str:
    """The first validation problem, in one line."""
    problems = error.errors()
    # A misspelt key also makes the right one missing: the misspelling is what to mend.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    # The member of a union that a value was read as stands in the path, too; it is no key.
    path = [str(part) for part in problem["loc"] if not re.fullmatch("<.*>", str(part))]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        known = _keys(kind, path[:-1])
        # The right key in the wrong section comes before another key that looks like it.
        near = keys_named(kind, path[-1]) or difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
        meant = " or ".join(f"'{each}'" for each in near)
        hint = f"; did you mean {meant}?" if near else f"; known keys: {', '.join(known) or 'none'}"
        if not known:
            return f"'{key}' is not a setting: there are none{what and f' of {what}'}; leave it out"
        return f"'{key}' is not a key{what and f' of {what}'}{hint}"
    said = problem["msg"].removeprefix("Value error, ")
    if not key:
        return str(said)
    if problem["type"] == "missing":
        return f"'{key}' is missing"
    if problem["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))
        return f"'{key}': {unknown('such value', problem['input'], known)}"
    return f"'{key}': {said} (it is {_shortened(repr(problem['input']))})"


def _shortened(text: str) -> str:
    """A value as it was given; of dozens of numbers, how they begin."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _keys(kind: type[BaseModel], path: Sequence[str]) -> list[str]:
    """The keys of the section at a path; list indices are skipped."""
    section: type[BaseModel] = kind
    for part in path:
        field = section.model_fields.get(part)
        section = section if field is None else _section_in(field.annotation) or section
    return list(section.model_fields)


def keys_named(kind: type[BaseModel], key: str, before: str = "") -> list[str]:
    """The keys of that name in any section, each behind its section; entries of lists and mappings apart."""
    found = [f"{before}{key}"] if key in kind.model_fields else []
    for name, field in kind.model_fields.items():
        optional = isinstance(field.annotation, UnionType)
        members = get_args(field.annotation) if optional else (field.annotation,)
        section = next((each for each in members if isinstance(each, type) and issubclass(each, BaseModel)), None)
        if section is not None:
            found += keys_named(section, key, f"{before}{name}.")
    return found


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section within an annotation of optional values, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_in(part))), None)
