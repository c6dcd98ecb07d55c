"""Safetensors headers, parsed at least as strictly as by the safetensors package.

The format: 8 bytes of little-endian header length N, N bytes of JSON, then the data. The JSON maps each
tensor's name to its dtype, shape and data offsets; `__metadata__` maps strings to strings. The tensors must
cover the data without gaps or overlaps. See https://github.com/huggingface/safetensors.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from weight_edit.checkpoint.files import printable, read_exactly
from weight_edit.checkpoint.gguf.types import BY_NAME
from weight_edit.errors import UsageError
from weight_edit.utils.json import first_repeated

MAX_HEADER = 100_000_000
"""The longest header in bytes, as in the safetensors package."""

DTYPE_BITS: Mapping[str, int] = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element of every dtype that safetensors knows."""

_PREFIX = 8
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor's header entry: where its bytes are, their dtype and shape.

    `begin` and `end` are absolute byte offsets in the file `shard`; `dtype` is safetensors' name ("BF16"), or in a GGUF
    file ggml's ("Q4_K").
    """

    name: str
    shard: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.begin


@dataclass(frozen=True)
class HeaderEntry:
    """A tensor's entry for a header to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """A parsed header: tensors in the order of their bytes, metadata, and start of the data."""

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str] | None
    data_start: int


class _Reader:
    """A parser of one header, which names the file in every error."""

    def __init__(self, shard: str) -> None:
        self.shard = shard

    def fail(self, problem: str, tensor: str | None = None) -> NoReturn:
        where = "" if tensor is None else f" tensor {printable(tensor)!r}:"
        raise UsageError(f"{printable(self.shard)}:{where} {problem}")

    def pairs(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            twice = first_repeated(key for key, _ in items)
            self.fail(f"the header has the name {printable(str(twice))!r} twice")
        return found

    def integer(self, digits: str) -> int:
        # Python takes "-0" for 0 and refuses very long numbers with an error of its own.
        if digits.startswith("-") or len(digits) > 20:
            self.fail(f"the header has the number {printable(digits, 40)}, which is no size or offset")
        return int(digits)

    def no_number(self, text: str) -> NoReturn:
        self.fail(f"the header has {printable(text, 40)} where only whole numbers may be")

    def json_object(self, raw: bytes | bytearray) -> dict[str, Any]:
        if not raw.startswith(b"{"):
            self.fail("the header does not start with '{'; this is not a safetensors file")
        try:
            found = json.loads(
                bytes(raw).decode("utf-8"),
                object_pairs_hook=self.pairs,
                parse_int=self.integer,
                parse_float=self.no_number,
                parse_constant=self.no_number,
            )
        except UnicodeDecodeError as error:
            self.fail(f"the header is not valid UTF-8 (byte {error.start})")
        except RecursionError:
            self.fail("the header is nested too deeply")
        except ValueError as error:
            self.fail(f"the header is not valid JSON: {printable(str(error))}")
        if not isinstance(found, dict):
            self.fail("the header is not a JSON object")
        return found

    def text(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            self.fail(f"{what} must be a string")
        # JSON escapes can spell half of a surrogate pair, which no UTF-8 text holds.
        if any("\ud800" <= c <= "\udfff" for c in value):
            self.fail(f"{what} {printable(value)!r} is not valid Unicode")
        return value

    def metadata(self, value: object) -> Mapping[str, str] | None:
        if value is None:
            return None
        if not isinstance(value, dict):
            self.fail(f"{_METADATA} must be an object of strings")
        return {
            self.text(key, "a metadata key"): self.text(entry, f"the metadata entry {printable(key)!r}")
            for key, entry in value.items()
        }

    def tensor(self, name: str, entry: object, start: int, length: int) -> TensorInfo:
        self.text(name, "a tensor's name")
        if not isinstance(entry, dict) or entry.keys() != _FIELDS:
            self.fail("the entry must have dtype, shape and data_offsets and nothing else", name)
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            self.fail(f"unknown dtype {printable(repr(dtype), 40)}", name)
        if not isinstance(shape, list) or not all(type(n) is int for n in shape):
            self.fail("the shape must be a list of whole numbers", name)
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(n) is int for n in offsets):
            self.fail("data_offsets must be two whole numbers", name)
        begin, end = offsets
        if begin > end or end > length:
            self.fail(f"the offsets {begin} to {end} are not in the file's {length} bytes of data", name)
        bits, limit = DTYPE_BITS[dtype], 2**63
        reach = bits
        for n in shape:
            # Counting an empty axis as one keeps sizes that overflow out even when their product is zero.
            reach *= max(n, 1)
            if reach >= limit:
                self.fail("the shape is too large", name)
        wanted = 0 if 0 in shape else reach
        if wanted % 8 or wanted // 8 != end - begin:
            size = f"{wanted // 8}" if wanted % 8 == 0 else f"{wanted / 8}"
            self.fail(f"{dtype} of shape {shape} needs {size} bytes but the offsets give {end - begin}", name)
        return TensorInfo(
            name=name, shard=self.shard, dtype=dtype, shape=tuple(shape), begin=start + begin, end=start + end
        )


def parse_header(raw: bytes | bytearray, data_length: int, shard: str) -> Header:
    """Parse a header.

    Args:
        raw: the JSON bytes, without the eight bytes of length.
        data_length: bytes of the file after the header.
        shard: the file's name, for messages and for the tensors' `shard`.

    Raises:
        UsageError: anything that the safetensors package refuses, and a few things that it lets pass: a name
            twice, unknown keys in an entry, a header that does not start with a brace.
    """
    reader = _Reader(shard)
    start = _PREFIX + len(raw)
    found = reader.json_object(raw)
    metadata = reader.metadata(found.pop(_METADATA, None))
    tensors = [reader.tensor(name, entry, start, data_length) for name, entry in found.items()]
    tensors.sort(key=lambda info: (info.begin, info.end))
    covered = start
    for info in tensors:
        if info.begin != covered:
            problem = "leaves a hole before it" if info.begin > covered else "overlaps the tensor before it"
            reader.fail(f"the data {problem} (byte {covered - start})", info.name)
        covered = info.end
    if covered != start + data_length:
        extra = start + data_length - covered
        reader.fail(f"{extra} bytes of the file belong to no tensor; fetch the file again")
    return Header(tuple(tensors), metadata, start)


def read_header(file: BinaryIO, size: int, shard: str) -> Header:
    """Read and parse the header of an open safetensors file of `size` bytes.

    Raises:
        UsageError: as `parse_header`, and for a file too short for its header or a header above `MAX_HEADER`.
    """
    reader = _Reader(shard)
    if size < _PREFIX:
        reader.fail(f"{size} bytes is too short for a safetensors file; fetch the file again")
    file.seek(0)
    length = int.from_bytes(read_exactly(file, _PREFIX, shard), "little")
    if length > MAX_HEADER:
        reader.fail(f"the header's length of {length} bytes is above the limit of {MAX_HEADER}")
    if length > size - _PREFIX:
        reader.fail(f"the header's length of {length} bytes is longer than the file ({size} bytes)")
    return parse_header(read_exactly(file, length, shard), size - _PREFIX - length, shard)


def size_of(dtype: str, shape: tuple[int, ...]) -> int:
    """A tensor's size in bytes, also of one in a type of ggml's."""
    if dtype in DTYPE_BITS:
        return math.prod(shape) * DTYPE_BITS[dtype] // 8
    block = BY_NAME[dtype]
    return math.prod(shape) // block.numbers * block.size


def header_bytes(entries: Iterable[HeaderEntry], metadata: Mapping[str, str] | None) -> bytes:
    """The header of a new file, with its eight bytes of length, padded to a multiple of eight.

    Args:
        entries: the tensors in the order of their bytes.
        metadata: goes under `__metadata__`; none when None.
    """
    content: dict[str, Any] = {} if metadata is None else {_METADATA: dict(metadata)}
    offset = 0
    for entry in entries:
        end = offset + size_of(entry.dtype, entry.shape)
        content[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(_PREFIX, "little") + raw
