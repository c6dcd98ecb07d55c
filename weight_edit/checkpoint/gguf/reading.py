"""A GGUF header read from front to back, in memory that no number in it can make large."""

import struct
from typing import BinaryIO, NoReturn

from weight_edit.checkpoint.files import printable, read_exactly
from weight_edit.errors import UsageError

MAX_HEADER = 100_000_000
"""The longest header in bytes, as of safetensors; those with large vocabularies have some ten million."""

_AHEAD = 1 << 16


class HeaderReader:
    """The bytes of a file's header from its start, read as they are asked for.

    Args:
        file: open, at any place.
        size: of the file in bytes.
        name: the file's, for messages.

    Attributes:
        place: the byte that is read next.
    """

    def __init__(self, file: BinaryIO, size: int, name: str) -> None:
        self.name, self.size, self.place = name, size, 0
        self._file, self._raw = file, bytearray()
        file.seek(0)

    def fail(self, problem: str, tensor: str | None = None, remedy: str = "fetch the file again") -> NoReturn:
        """Raise `UsageError` with what is wrong, naming the file."""
        where = "" if tensor is None else f" tensor {printable(tensor)!r}:"
        raise UsageError(f"{printable(self.name)}:{where} {problem}; {remedy}")

    def number(self, form: str) -> int | float | bool:
        """The next number, of a form of `struct`, little endian."""
        width = struct.calcsize(form)
        found: int | float | bool = struct.unpack_from(form, self._upto(width), self.place)[0]
        self.place += width
        return found

    def count(self) -> int:
        """The next number of 64 bits, of bytes, entries or elements."""
        return int(self.number("<Q"))

    def text(self, most: int, what: str) -> bytes:
        """The next text, of at most `most` bytes."""
        length = self.count()
        if length > most or length > self.size - self.place:
            self.fail(f"{what} claims {length} bytes, which is beyond the file or any such text")
        raw = self._upto(length)
        self.place += length
        return bytes(raw[self.place - length : self.place])

    def numbers(self, form: str, count: int, kept: int) -> tuple[int | float | bool, ...] | None:
        """The next numbers, of one form; passed over where there are more than `kept`."""
        width = struct.calcsize(form)
        if count > (self.size - self.place) // width:
            self.fail(f"a list claims {count} numbers, which is beyond the file")
        raw, place = self._upto(count * width), self.place
        self.place += count * width
        return struct.unpack_from(f"<{count}{form[1:]}", raw, place) if count <= kept else None

    def pass_texts(self, count: int) -> None:
        """Pass over the next texts."""
        if count > (self.size - self.place) // 8:
            self.fail(f"a list claims {count} texts, which is beyond the file")
        place, raw, end = self.place, self._raw, len(self._raw)
        length_of = struct.Struct("<Q").unpack_from
        for _ in range(count):
            if place + 8 > end:
                self.place = place
                raw = self._upto(8)
                end = len(raw)
            place += 8 + length_of(raw, place)[0]
            if place > self.size:
                self.fail("a text in a list reaches beyond the file")
        self.place = place
        self._upto(0)

    def _upto(self, count: int) -> bytearray:
        """What was read so far, with at least the next `count` bytes."""
        end = self.place + count
        missing = end - len(self._raw)
        if missing > 0:
            if end > self.size:
                self.fail(f"it ends in its header: {self.size} bytes, and {end} are needed")
            if end > MAX_HEADER:
                self.fail(f"the header is longer than {MAX_HEADER} bytes")
            # Twice as much each time, so that the whole costs as much as one reading.
            more = min(max(missing, len(self._raw), _AHEAD), self.size - len(self._raw))
            self._raw += read_exactly(self._file, more, self.name)
        return self._raw
