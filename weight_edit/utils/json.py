"""JSON in both directions: strict reading as RFC 8259 has it, of bounded depth and numbers, and NaN written as null."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

MAX_DEPTH = 100
"""Objects and lists within one another. Files of models have some ten; what walks through them may recurse."""

MAX_DIGITS = 300
"""Of a whole number: it still is a float's, and Python prints it, which it does not beyond 4,300."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """A text is not the JSON that is read here; the message is one line, without the text's name."""


def parse_json(text: str, *, unique_keys: bool = True, constants: bool = False) -> Any:
    """The value that a JSON text stands for.

    Args:
        unique_keys: refuse a key that one object has twice.
        constants: accept NaN and Infinity, which JSON has not; transformers writes them into some configs.

    Raises:
        json.JSONDecodeError: not JSON; it knows the line.
        JsonError: nested too deeply, a number too large, half of a surrogate pair, a key twice.
    """
    reader = _Reader(unique_keys, constants)
    try:
        found = json.loads(
            text,
            object_pairs_hook=reader.pairs,
            parse_int=reader.integer,
            parse_float=reader.number,
            parse_constant=reader.constant,
        )
    except RecursionError:
        raise JsonError("nested too deeply") from None
    halves = _HALF.search(text) is not None
    if halves or text.count("{") + text.count("[") > MAX_DEPTH:
        check_value(found, texts=halves)
    return found


class _Reader:
    """The hooks of the standard library's parser."""

    def __init__(self, unique_keys: bool, constants: bool) -> None:
        self._unique_keys, self._constants = unique_keys, constants

    def pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if self._unique_keys and len(found) != len(items):
            twice = first_repeated(key for key, _ in items)
            raise JsonError(f"the key {twice!r} appears twice")
        return found

    def integer(self, digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            raise JsonError(f"a number of {len(digits)} digits is too long")
        return int(digits)

    def number(self, text: str) -> float:
        found = float(text) if len(text) <= MAX_DIGITS else math.inf
        if math.isinf(found):
            raise JsonError(f"the number {text[:40]} is too large")
        return found

    def constant(self, name: str) -> float:
        if not self._constants:
            raise JsonError(f"{name} is no number that JSON has")
        return float(name)


def check_value(value: Any, *, texts: bool = True) -> None:
    """Refuse plain values (dictionaries, lists, texts, numbers) that are nested too deeply or hold no Unicode.

    Args:
        texts: look at texts too.

    Raises:
        JsonError: naming the first fault.
    """
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for entry in level:
            if isinstance(entry, dict):
                inner += entry.values()
                inner += entry if texts else ()
            elif isinstance(entry, list):
                inner += entry
            elif texts and isinstance(entry, str) and not is_unicode(entry):
                raise JsonError(f"{entry[:40]!a} is no valid Unicode")
        if not inner:
            return
        level = inner
    raise JsonError("nested too deeply")


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: it has no half of a surrogate pair, which JSON escapes can spell."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before, if any."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def json_safe(value: Any) -> Any:
    """The value with NaN and infinities as null, which is all that JSON has for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return value
