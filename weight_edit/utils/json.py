"""JSON, read strictly (RFC 8259, bounded depth and numbers), written with NaN as null."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

MAX_DEPTH = 100
"""The deepest nesting of objects and lists; model files have some ten levels."""

MAX_DIGITS = 300
"""The most digits of a whole number: it still fits a float, and Python prints it."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """Raised for a text that is not acceptable JSON; the message is one line."""


def parse_json(text: str, *, unique_keys: bool = True, constants: bool = False) -> Any:
    """The value of a JSON text.

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
    """Hooks for the standard library's parser."""

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
    """Refuse plain values that are nested too deeply or hold invalid Unicode.

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
    """Whether a text can be encoded as UTF-8: it has no lone surrogate."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs a second time; None if all are distinct."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def json_safe(value: Any) -> Any:
    """The value with NaN and infinities replaced by None, which JSON writes as null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return value
