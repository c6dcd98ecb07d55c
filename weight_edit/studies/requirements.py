"""The directions, edits and files that a study's settings name, known before anything runs."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.manifest import sha256
from weight_edit.recipe.recipe import EditEntry
from weight_edit.utils.settings import Section


def directions_asked(settings: Any) -> list[str]:
    """The names of directions in settings, those of their edits included."""
    found: list[str] = []
    for key, value in _entries(settings):
        if key == "directions" and value is not None:
            found += [value] if isinstance(value, str) else list(value)
    return found


def steps_asked(settings: Any) -> list[EditEntry]:
    """The edits in settings."""
    return [value for _, value in _entries(settings) if isinstance(value, EditEntry)]


def files_asked(settings: Any) -> dict[str, str]:
    """File name in settings -> its SHA-256, since a file may change under its name.

    A column may stand behind a file's name, as in "mine.csv:question".
    """
    found = {}
    for _, value in _entries(settings):
        for name in (value, value.rpartition(":")[0]) if isinstance(value, str) else ():
            if name and Path(name).is_file():
                found[value] = sha256(Path(name))
    return found


def _entries(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every (name, value) nested within settings."""
    yield key, value
    if isinstance(value, Section):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _entries(entry, str(name))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _entries(entry, "")
