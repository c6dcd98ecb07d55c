"""The header of a GGUF file: what model it holds, read strictly and without its weights."""

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import open_regular, printable
from weight_edit.errors import UsageError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_ENTRIES = 100_000
_MOST_BYTES = 1 << 26
"""The longest text; chat templates have some ten thousand bytes."""

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Type of a value -> its form in `struct`."""
_TEXT, _ARRAY = 8, 9
_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of its model.

    Attributes:
        architecture: llama.cpp's name of it, such as "qwen2".
        context_length: the longest context in tokens that it was made for; None where it does not say.
        templates: chat templates by name; the one without a name is "default".
        parts: the number of files that the model is divided into; 1 for a whole one.
    """

    architecture: str
    context_length: int | None
    templates: Mapping[str, str]
    parts: int = 1


def is_gguf(name: object) -> bool:
    """Whether a name is that of a GGUF file, there or not."""
    return str(name).lower().endswith(SUFFIX)


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of a GGUF file, of version 2 or 3.

    Raises:
        UsageError: there is no such file, it is none, or it is damaged or cut.
    """
    where = printable(str(path))
    # A link is followed: caches of downloads consist of them.
    with open_regular(path.resolve()) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                entries = dict(_entries(content))
        except (struct.error, ValueError, _Damaged) as error:
            reason = f": {error}" if isinstance(error, _Damaged) else ", or it is cut"
            raise UsageError(f"{where} is no GGUF file that can be read{reason}; fetch it again") from None
    architecture = entries.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise UsageError(f"{where} does not say what architecture its model has (general.architecture)")
    context, parts = entries.get(f"{architecture}.context_length"), entries.get("split.count")
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": text
        for key, text in entries.items()
        if (key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")) and isinstance(text, str) and text.strip()
    }
    return GgufHeader(
        architecture=architecture,
        context_length=context if isinstance(context, int) and context > 0 else None,
        templates=templates,
        parts=parts if isinstance(parts, int) and parts > 1 else 1,
    )


class _Damaged(Exception):
    """Raised with what is wrong about a header."""


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """The keys with their values; arrays, such as vocabularies, are passed over."""
    if content[:4] != _MAGIC:
        raise _Damaged("it does not begin with 'GGUF'")
    version, _, count = struct.unpack_from("<IQQ", content, 4)
    if version not in _VERSIONS:
        # A file of the other byte order shows as a huge version.
        raise _Damaged(f"it is of version {version}, and versions 2 and 3 are read")
    if count > _MOST_ENTRIES:
        raise _Damaged(f"it claims {count} entries")
    place = 24
    for _ in range(count):
        key, place = _text(content, place)
        (kind,) = struct.unpack_from("<I", content, place)
        value, place = _value(content, place + 4, kind)
        yield key, value


def _value(content: Any, place: int, kind: int) -> tuple[Any, int]:
    """A value, and the place after it; None for an array."""
    if kind in _NUMBERS:
        form = f"<{_NUMBERS[kind]}"
        return struct.unpack_from(form, content, place)[0], place + struct.calcsize(form)
    if kind == _TEXT:
        return _text(content, place)
    if kind != _ARRAY:
        raise _Damaged(f"an entry is of the unknown type {kind}")
    inner, count = struct.unpack_from("<IQ", content, place)
    place += 12
    if inner in _NUMBERS:
        place += count * struct.calcsize(f"<{_NUMBERS[inner]}")
    elif inner == _TEXT:
        for _ in range(count):
            (length,) = struct.unpack_from("<Q", content, place)
            place += 8 + length
    else:
        raise _Damaged(f"a list is of the unknown type {inner}")
    return None, place


def _text(content: Any, place: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", content, place)
    end = place + 8 + length
    if length > _MOST_BYTES or end > len(content):
        raise _Damaged(f"a text of {length} bytes reaches beyond it")
    return content[place + 8 : end].decode("utf-8", "replace"), end
