"""Compression with fixed settings, so that nothing in a pack says how much memory it takes to read it.

LZMA2 saves the most, and is slow where much is random. There, what can be saved is in how often each value is there,
which Huffman codes have, at twenty times the speed.
"""

import lzma
import zlib

from weight_edit.errors import UsageError

_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]


def compressed(data: bytes | memoryview) -> bytes:
    """The data as a raw stream of LZMA2, with its end marked."""
    return lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)


def expanded(data: bytes | bytearray | memoryview, most: int, what: str) -> bytes:
    """The data of one whole stream.

    Args:
        most: its longest length in bytes; no more is ever held.
        what: the name of it, for messages.

    Raises:
        UsageError: damaged, cut, longer than `most`, or followed by something else.
    """
    reader = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_FILTERS)
    try:
        found = reader.decompress(bytes(data), max_length=most + 1)
        # The end may still have to be read where all is there.
        if not reader.eof and len(found) == most:
            found += reader.decompress(b"", max_length=1)
    except (lzma.LZMAError, EOFError, ValueError) as error:
        raise UsageError(f"{what} is damaged; get the pack again") from error
    if len(found) > most:
        raise UsageError(f"{what} is longer than the {most} bytes that it may have; it is no pack of ours")
    if not reader.eof or reader.unused_data:
        raise UsageError(f"{what} is cut or has something behind it; get the pack again")
    return found


def coded(data: bytes) -> bytes:
    """The data as a raw stream of deflate, of Huffman codes alone."""
    writer = zlib.compressobj(6, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return writer.compress(data) + writer.flush()


def decoded(data: bytes, most: int, what: str) -> bytes:
    """The data of `coded`; see `expanded`."""
    reader = zlib.decompressobj(-15)
    try:
        found = reader.decompress(data, most + 1)
    except zlib.error as error:
        raise UsageError(f"{what} is damaged; get the pack again") from error
    if len(found) > most or not reader.eof or reader.unused_data:
        raise UsageError(f"{what} is cut, or longer than it may be; get the pack again")
    return found


_SMALL = 1 << 16
"""Bytes of a payload up to which LZMA2 is quick enough."""

_BY_LZMA = 1 << 31


def framed(data: bytes) -> bytes:
    """A payload behind its length in four bytes, whose highest bit says by what it was compressed."""
    if not data:
        return bytes(4)
    small = len(data) <= _SMALL
    raw = compressed(data) if small else coded(data)
    return (len(raw) | _BY_LZMA * small).to_bytes(4, "little") + raw


def length_of(frame: bytes) -> tuple[int, bool]:
    """Of the first four bytes of `framed`, the length of what follows, and whether that is by LZMA2."""
    number = int.from_bytes(frame, "little")
    return number & (_BY_LZMA - 1), bool(number & _BY_LZMA)
