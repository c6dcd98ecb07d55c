"""Overrides of single entries of a recipe, as `--set` gives them."""

from typing import Any

from weight_edit.errors import UsageError
from weight_edit.utils.bounded_yaml import parse_yaml


def override_entry(content: dict[str, Any], override: str) -> None:
    """Set one entry of a recipe's content, in place.

    Args:
        override: "key=value" with dots for sections and numbers for entries of lists; the value is read as YAML,
            or is "@name".

    Raises:
        UsageError: no such form, or a key that leads through what is no section.
    """
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UsageError(
            f"`overrides: {override}`: write key=value, for example `overrides: edit.strength=0.5`", option="overrides"
        )
    *sections, last = key.split(".")
    place: Any = content
    for section in sections:
        if isinstance(place, list):
            place = place[_index(section, place, override)]
        else:
            place = place.setdefault(section, {})
        if not isinstance(place, dict | list):
            raise UsageError(f"`overrides: {override}`: '{section}' is not a section", option="overrides")
    try:
        # No YAML begins so: it is the name of a prompt set, which a shell has left without its quotes.
        read = value if value.startswith("@") else parse_yaml(value)
        place[_index(last, place, override) if isinstance(place, list) else last] = read
    except ValueError as error:
        raise UsageError(f"`overrides: {override}`: the value is no YAML ({error})", option="overrides") from error


def _index(key: str, entries: list[Any], override: str) -> int:
    """The index of a list entry, as in "studies.0.options.control=false"."""
    if not key.isdecimal() or len(key) > 9 or int(key) >= len(entries):
        raise UsageError(
            f"`overrides: {override}`: '{key}' is not the number of an entry, from 0 to {len(entries) - 1}",
            option="overrides",
        )
    return int(key)
