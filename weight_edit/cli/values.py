"""Settings in command-line arguments: `key=value`, and YAML or JSON."""

from collections.abc import Iterable, Mapping

from weight_edit.errors import UsageError
from weight_edit.utils.bounded_yaml import parse_yaml


def key_values(texts: Iterable[str] | None, option: str, *, example: str = "toward=target") -> dict[str, object]:
    """Settings from "key=value" texts; values are parsed as YAML.

    Args:
        option: the flag, for messages.
        example: one of them, likewise.

    Raises:
        UsageError: one that is not of that form.
    """
    found: dict[str, object] = {}
    for text in texts or ():
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{option} {text}: write key=value, for example {option} {example}")
        found[key.strip()] = _yaml(value, f"{option} {text}")
    return found


def numbers(text: str | None, option: str) -> tuple[float, ...]:
    """The numbers of `0.25,0.5,1`; none where nothing is given.

    Raises:
        UsageError: when one of them is no number.
    """
    found = []
    for part in text.split(",") if text is not None else ():
        try:
            found.append(float(part))
        except ValueError:
            raise UsageError(f"{option} takes numbers with commas between, such as 0.25,0.5,1, not {text!r}") from None
    return tuple(found)


def mapping(text: str | None, option: str) -> Mapping[str, object] | None:
    """A mapping from a YAML or JSON text; None for None.

    Raises:
        UsageError: it is something else.
    """
    if text is None:
        return None
    found = _yaml(text, f"{option} {text}")
    if not isinstance(found, dict):
        raise UsageError(f"{option} {text}: write keys and values, for example {option} '{{mlp: {{max: 1.2}}}}'")
    return {str(key): value for key, value in found.items()}


def _yaml(text: str, where: str) -> object:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise UsageError(f"{where}: the value is no YAML ({error})") from error
