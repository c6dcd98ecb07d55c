"""JSON values as texts that a storage holds: floats exact, NaN and infinities by name, long ones in pieces."""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.utils.json import parse_json

_LONG = 1 << 15
"""Characters from which on a text is compressed."""

_ZIPPED, _PIECES = "zlib:", "pieces:"
"""What such texts begin with, and no JSON does."""


def encoded(value: Any) -> str:
    """The ASCII text of a JSON value; `decoded` gives the value back, to the bit.

    Raises:
        TypeError: something in it is no JSON value, such as a numpy array.
        ValueError: it would not be read again: half of a surrogate pair, keys that become equal as texts.
    """
    text = json.dumps(value, separators=(",", ":"))
    parse_json(text, constants=True)
    if len(text) < _LONG:
        return text
    return _ZIPPED + base64.b64encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def decoded(text: str) -> Any:
    """The value that `encoded` was given: tuples are lists, keys are texts.

    Raises:
        ValueError: the text is none of `encoded`'s.
    """
    if text.startswith(_ZIPPED):
        try:
            text = zlib.decompress(base64.b64decode(text.removeprefix(_ZIPPED), validate=True)).decode("ascii")
        except zlib.error as error:
            raise ValueError(f"a compressed text is damaged ({error})") from None
    return parse_json(text, constants=True)


def parts(key: str, text: str, longest: int, slot: int = 0) -> Iterator[tuple[str, str]]:
    """Attributes (key, text) of at most `longest` characters that hold a text, to be written in this order.

    The one named `key` comes last: where it is, all are.

    Args:
        slot: 0 or 1; a text that replaces another takes the other slot, so that the one before is whole until then.
    """
    if len(text) <= longest:
        yield key, text
        return
    count = -(-len(text) // longest)
    for number in range(count):
        yield f"{key}.{slot}.{number}", text[number * longest : (number + 1) * longest]
    yield key, f"{_PIECES}{slot}:{count}"


def joined(attributes: Mapping[str, Any], key: str) -> str | None:
    """The text that `parts` took apart; None where it is not there."""
    text = attributes.get(key)
    if not isinstance(text, str) or not text:
        return None
    if not text.startswith(_PIECES):
        return text
    slot, count = map(int, text.removeprefix(_PIECES).split(":"))
    return "".join(attributes[f"{key}.{slot}.{number}"] for number in range(count))
