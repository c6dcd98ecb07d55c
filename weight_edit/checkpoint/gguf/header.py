"""The header of a GGUF file: what model it holds and where its tensors are, read strictly.

The format, little endian: "GGUF", version, number of tensors, number of entries; the entries, each a key, a type and a
value; for each tensor its name, its dimensions with the innermost first, its type, and where its data begin; then the
data, which begin at a multiple of `general.alignment`, as each tensor does. See
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeAlias

from weight_edit.checkpoint.files import Stamp, open_regular, printable
from weight_edit.checkpoint.gguf.reading import HeaderReader
from weight_edit.checkpoint.gguf.types import GGML_TYPES
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.errors import UsageError

SUFFIX = ".gguf"

Value: TypeAlias = int | float | bool | str | tuple[int | float | bool, ...]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_ENTRIES = 100_000
_MOST_TENSORS = 100_000
_MOST_BYTES = 1 << 26
"""The longest text; chat templates have some ten thousand bytes."""

_LONGEST_KEY = 65_535
_LONGEST_NAME = 64
_MOST_DIMENSIONS = 4
_MOST_KEPT = 4096
"""The longest list of numbers that is kept: one for each layer, say. Those of a vocabulary are passed over."""

_ALIGNMENT = 32
_MOST_ALIGNMENT = 1 << 24
_MOST_BITS = 63

_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Type of a value -> its form in `struct`."""
_TEXT, _ARRAY = 8, 9
_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What a GGUF file says of its model.

    Attributes:
        version: of the format.
        architecture: llama.cpp's name of it, such as "qwen2"; empty in all parts of a model but the first.
        context_length: the longest context in tokens that it was made for; None where it does not say.
        templates: chat templates by name; the one without a name is "default".
        parts: the number of files that the model is divided into; 1 for a whole one.
        values: key -> number, text, or numbers of a short list. Lists of texts and long ones are not here.
        lengths: key of each list -> its number of elements.
        tensors: in the order of their bytes; none where they were not asked for.
        data_start: where the data begin; 0 where the tensors were not asked for.
    """

    version: int
    architecture: str
    context_length: int | None
    templates: Mapping[str, str]
    parts: int = 1
    values: Mapping[str, Value]
    lengths: Mapping[str, int]
    tensors: tuple[TensorInfo, ...] = ()
    data_start: int = 0

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all entries, sorted."""
        return tuple(sorted({*self.values, *self.lengths}))


def is_gguf(name: object) -> bool:
    """Whether a name is that of a GGUF file, there or not."""
    return str(name).lower().endswith(SUFFIX)


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of a GGUF file, of version 2 or 3, without its tensors.

    Raises:
        UsageError: there is no such file, it is none, or it is damaged or cut.
    """
    # A link is followed: caches of downloads consist of them.
    with open_regular(path.resolve()) as file:
        header = _header(HeaderReader(file, Stamp.of(file).size, str(path)))[0]
    if not header.architecture:
        raise no_architecture(str(path))
    return header


def no_architecture(name: str) -> UsageError:
    """The error for a model that does not say what it is."""
    return UsageError(f"{printable(name)} does not say what architecture its model has (general.architecture)")


def read_gguf(file: BinaryIO, size: int, shard: str) -> GgufHeader:
    """The header of an open GGUF file of `size` bytes, with its tensors.

    A tensor's `dtype` is the name of its type in ggml ("Q4_K"), and its shape has the innermost dimension last, as
    in torch.

    Args:
        shard: the file's name, for messages and for the tensors' `shard`.

    Raises:
        UsageError: no GGUF file, or a damaged one: lengths and places beyond the file, a key or a name twice, tensors
            that overlap or begin at no multiple of the alignment, an unknown type.
    """
    reader = HeaderReader(file, size, shard)
    header, count = _header(reader)
    table = _Table(reader, count, _alignment(reader, header.values))
    return GgufHeader(
        version=header.version,
        architecture=header.architecture,
        context_length=header.context_length,
        templates=header.templates,
        parts=header.parts,
        values=header.values,
        lengths=header.lengths,
        tensors=table.tensors,
        data_start=table.start,
    )


def _header(reader: HeaderReader) -> tuple[GgufHeader, int]:
    """Everything but the tensors, and how many these are."""
    if reader.size < len(_MAGIC) or reader.number("<I") != int.from_bytes(_MAGIC, "little"):
        reader.fail("it does not begin with 'GGUF', so it is no GGUF file")
    version, tensors, count = int(reader.number("<I")), reader.count(), reader.count()
    if version not in _VERSIONS:
        # A file of the other byte order shows as a huge version.
        reader.fail(f"it is of version {version}, and versions 2 and 3 are read")
    for claimed, most, what in ((count, _MOST_ENTRIES, "entries"), (tensors, _MOST_TENSORS, "tensors")):
        if claimed > most:
            reader.fail(f"it claims {claimed} {what}")
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    for _ in range(count):
        key = _name(reader, "a key", _LONGEST_KEY)
        if key in values or key in lengths:
            reader.fail(f"it has the key {printable(key)!r} twice")
        _entry(reader, key, values, lengths)
    return _read_as(version, values, lengths), tensors


def _read_as(version: int, values: Mapping[str, Value], lengths: Mapping[str, int]) -> GgufHeader:
    architecture = values.get("general.architecture")
    context, parts = values.get(f"{architecture}.context_length"), values.get("split.count")
    templates = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": text
        for key, text in values.items()
        if (key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")) and isinstance(text, str) and text.strip()
    }
    return GgufHeader(
        version=version,
        architecture=architecture if isinstance(architecture, str) else "",
        context_length=context if type(context) is int and context > 0 else None,
        templates=templates,
        parts=parts if type(parts) is int and parts > 1 else 1,
        values=values,
        lengths=lengths,
    )


def _entry(reader: HeaderReader, key: str, values: dict[str, Value], lengths: dict[str, int]) -> None:
    """Read the type and the value of an entry."""
    kind = int(reader.number("<I"))
    if kind in _NUMBERS:
        values[key] = reader.number(_NUMBERS[kind])
        return
    if kind == _TEXT:
        values[key] = reader.text(_MOST_BYTES, f"the entry {printable(key)!r}").decode("utf-8", "replace")
        return
    if kind != _ARRAY:
        reader.fail(f"the entry {printable(key)!r} is of the unknown type {kind}")
    inner, lengths[key] = int(reader.number("<I")), reader.count()
    if inner in _NUMBERS:
        numbers = reader.numbers(_NUMBERS[inner], lengths[key], _MOST_KEPT)
        if numbers is not None:
            values[key] = numbers
    elif inner == _TEXT:
        reader.pass_texts(lengths[key])
    else:
        reader.fail(f"the list {printable(key)!r} is of the unknown type {inner}")


def _name(reader: HeaderReader, what: str, most: int) -> str:
    """The next text, which names something."""
    raw = reader.text(most, what)
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        reader.fail(f"{what} is no text: {printable(repr(raw), 80)}")
    if not name or not name.isprintable():
        shown = repr(printable(name, 80)) if name else "empty"
        reader.fail(f"{what} is {shown}, which is no name")
    return name


def _alignment(reader: HeaderReader, values: Mapping[str, Value]) -> int:
    said = values.get("general.alignment", _ALIGNMENT)
    if type(said) is not int or not 0 < said <= _MOST_ALIGNMENT or said & (said - 1):
        reader.fail(
            f"general.alignment is {printable(repr(said), 40)}, which is no power of two up to {_MOST_ALIGNMENT}"
        )
    return said


class _Table:
    """The tensors of a file, in the order of their bytes, and where its data start."""

    def __init__(self, reader: HeaderReader, count: int, alignment: int) -> None:
        self._reader, self._alignment = reader, alignment
        entries = [self._entry() for _ in range(count)]
        # The data of a file without tensors, as the first part of a model can be, may be left out with their padding.
        self.start = min(-(-reader.place // alignment) * alignment, reader.size)
        found = [self._placed(*entry) for entry in entries]
        self._check_names(found)
        self.tensors = tuple(sorted(found, key=lambda info: info.begin))
        for before, after in pairwise(self.tensors):
            if before.end > after.begin:
                self._fail(f"its data overlap those of {printable(before.name)!r}", after.name)

    def _fail(self, problem: str, tensor: str, remedy: str = "fetch the file again") -> NoReturn:
        self._reader.fail(problem, tensor, remedy)

    def _entry(self) -> tuple[str, str, tuple[int, ...], int, int]:
        """The next entry: name, type, shape, offset of the data, their size."""
        reader = self._reader
        name = _name(reader, "the name of a tensor", _LONGEST_NAME)
        dimensions = int(reader.number("<I"))
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            self._fail(f"it has {dimensions} dimensions, and 1 to {_MOST_DIMENSIONS} are possible", name)
        inner_first = [reader.count() for _ in range(dimensions)]
        kind, offset = int(reader.number("<I")), reader.count()
        stored = GGML_TYPES.get(kind)
        if stored is None:
            newer = "a file in one of ggml's newer types needs a newer release of this package"
            self._fail(f"its type has the number {kind}, which stands for none that is known", name, newer)
        if 0 in inner_first or prod(inner_first) >= 1 << _MOST_BITS:
            self._fail(f"its dimensions {inner_first} are those of no tensor", name)
        if inner_first[0] % stored.numbers:
            self._fail(
                f"its rows of {inner_first[0]} numbers are no whole blocks of {stored.name}, {stored.numbers} each",
                name,
            )
        return (
            name,
            stored.name,
            tuple(reversed(inner_first)),
            offset,
            prod(inner_first) // stored.numbers * stored.size,
        )

    def _placed(self, name: str, dtype: str, shape: tuple[int, ...], offset: int, size: int) -> TensorInfo:
        if offset % self._alignment:
            self._fail(f"its data begin at {offset}, which is no multiple of the alignment {self._alignment}", name)
        begin = self.start + offset
        if begin + size > self._reader.size:
            self._fail(f"its data end at byte {begin + size}, beyond the file's {self._reader.size}", name)
        return TensorInfo(name=name, shard=self._reader.name, dtype=dtype, shape=shape, begin=begin, end=begin + size)

    def _check_names(self, tensors: list[TensorInfo]) -> None:
        seen: set[str] = set()
        for info in tensors:
            if info.name in seen:
                self._fail("the file has that name twice", info.name)
            seen.add(info.name)
