"""JSON values as texts that a storage holds: floats exact, NaN and infinities by name, long ones in pieces."""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.utils.json import parse_json

LIMIT = 1 << 28
"""The most characters of a value's JSON.

What a search keeps most of is directions: those of three finders at five positions of 126 layers that are 16,384 wide
take 0.6 of it. A few hundred kilobytes that somebody else has compressed could become gigabytes.
"""

_LONG = 1 << 15
"""Characters from which on a text is compressed."""

_ZIPPED, _PIECES = "zlib:", "pieces:"
"""What such texts begin with, and no JSON does."""

_SLOTS = ("0", "1")


def encoded(value: Any) -> str:
    """The ASCII text of a JSON value; `decoded` gives the value back, to the bit.

    Raises:
        TypeError: something in it is no JSON value, such as a numpy array.
        ValueError: it would not be read again: half of a surrogate pair, keys that become equal as texts.
        UsageError: it is longer than `LIMIT`.
    """
    text = json.dumps(value, separators=(",", ":"))
    if len(text) > LIMIT:
        raise UsageError(
            f"a search keeps at most {_mebibytes(LIMIT)} MiB in an entry of its journal, and comes to "
            f"{_mebibytes(len(text))} MiB; take fewer finders, positions or prompts"
        )
    parse_json(text, constants=True)
    if len(text) < _LONG:
        return text
    return _ZIPPED + base64.b64encode(zlib.compress(text.encode("ascii"))).decode("ascii")


def decoded(text: Any) -> Any:
    """The value that `encoded` was given: tuples are lists, keys are texts.

    Raises:
        ValueError: the text is none of `encoded`'s.
    """
    if not isinstance(text, str):
        raise ValueError(f"{type(text).__name__} in place of a text")
    if text.startswith(_ZIPPED):
        text = _decompressed(base64.b64decode(text.removeprefix(_ZIPPED), validate=True)).decode("ascii")
    return parse_json(text, constants=True)


def _decompressed(raw: bytes) -> bytes:
    """What was compressed, where it is no longer than `LIMIT`.

    Raises:
        ValueError: it is longer, or damaged.
    """
    reader = zlib.decompressobj()
    try:
        content = reader.decompress(raw, LIMIT + 1)
    except zlib.error as error:
        raise ValueError(f"a compressed text is damaged ({error})") from None
    if len(content) > LIMIT:
        raise ValueError(f"a compressed text is longer than {_mebibytes(LIMIT)} MiB")
    if not reader.eof or reader.unused_data:
        raise ValueError("a compressed text is damaged: it ends elsewhere")
    return content


def _mebibytes(count: int) -> int:
    return count >> 20


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
    """The text that `parts` took apart; None where it is not there.

    Raises:
        ValueError: the attributes are none of `parts`'s.
    """
    text = attributes.get(key, "")
    if not isinstance(text, str):
        raise ValueError(f"{key} is no text")
    if not text:
        return None
    if not text.startswith(_PIECES):
        return text
    slot, _, count = text.removeprefix(_PIECES).partition(":")
    if slot not in _SLOTS or not count.isdecimal() or int(count) < 1:
        raise ValueError(f"{key} says nothing of its pieces")
    pieces = []
    for number in range(int(count)):
        piece = attributes.get(f"{key}.{slot}.{number}")
        if not isinstance(piece, str):
            raise ValueError(f"{key} lacks a piece")
        pieces.append(piece)
    return "".join(pieces)
