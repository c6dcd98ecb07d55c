"""Access tokens are in no recipe: recipes are kept beside what they made, and passed on."""

from collections.abc import Iterator
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.redaction import holds_token


def check_no_token(content: Any, name: str) -> None:
    """Refuse a recipe with an access token in it.

    Args:
        content: the sections.
        name: of the recipe, for messages.

    Raises:
        UsageError: names the entry, and has no part of the token.
    """
    for where, text in _texts(content):
        if holds_token(text):
            raise UsageError(
                f"{name}: '{where}' holds an access token; recipes are passed on, so give it as `token` or HF_TOKEN, "
                "and renew it if this recipe has been seen by others",
                option="token",
            )


def _texts(value: Any, where: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Every text, keys among them, with the place that it stands at; what stands at several, once."""
    seen = set() if seen is None else seen
    if isinstance(value, dict | list | tuple):
        if id(value) in seen:
            return
        seen.add(id(value))
    if isinstance(value, str):
        yield where or "the recipe", value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield where or "a key", str(key)
            yield from _texts(entry, f"{where}.{key}" if where else str(key), seen)
    elif isinstance(value, list | tuple):
        for number, entry in enumerate(value):
            yield from _texts(entry, f"{where}.{number}", seen)
