"""Damaged GGUF files, each made again from its seed: by what they say, and by their bytes."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import gguf

from tests.helpers.gguf_files import ARRAY, FLOAT32, INT32, TEXT, UINT32, Stored, Typed, gguf_bytes

NUMBERS = [0, 1, 2, 3, 5, 7, 31, 32, 33, 64, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
LONG = [*NUMBERS, 2**32, 2**53, 2**61, 2**62, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1]
NAMES = ["", "a", "a\0b", "x\x1b[31m\n", "é" * 32, "é" * 33, "y" * 64, "y" * 65, "../x", "token_embd.weight"]
KEYS = ["general.alignment", "general.architecture", "general.type", "split.count", "split.no", "split.tensors.count"]


@dataclass
class File:
    """What a GGUF file says, to be changed.

    Attributes:
        metadata, tensors: by name, in order; a name may come twice.
        alignment: by which it is laid out.
        version: of the format.
    """

    metadata: list[tuple[str, Typed]]
    tensors: list[tuple[str, Stored]]
    alignment: int = 32
    version: int = 3
    padding: bytes = field(default=b"\0")

    @classmethod
    def of(cls, path: Path) -> "File":
        """What a file without its own alignment says, as the package gguf reads it."""
        reader = gguf.GGUFReader(path)
        metadata: list[tuple[str, Typed]] = []
        for key, found in reader.fields.items():
            if not key.startswith("GGUF."):
                kinds = [int(kind) for kind in found.types]
                said = found.contents()
                metadata.append((key, (ARRAY, (kinds[1], said)) if kinds[0] == ARRAY else (kinds[0], said)))
        tensors = [
            (each.name, Stored(int(each.tensor_type), [int(n) for n in each.shape], each.data.tobytes()))
            for each in reader.tensors
        ]
        return cls(metadata, tensors)

    def content(self) -> bytes:
        """The file's bytes."""
        return gguf_bytes(
            self.metadata, self.tensors, alignment=self.alignment, version=self.version, padding=self.padding
        )


def mutated(file: File, seed: int) -> tuple[bytes, str]:
    """The bytes of a file damaged in one to three ways, and how; the same seed does the same."""
    rng = random.Random(seed)
    said = []
    copy = File(
        list(file.metadata),
        [(name, Stored(each.kind, list(each.dimensions), each.data, each.offset)) for name, each in file.tensors],
        file.alignment,
        file.version,
        file.padding,
    )
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        change = rng.choice(SAYS)
        change(rng, copy)
        said.append(change.__name__)
    raw = copy.content()
    for _ in range(rng.choice([0, 1, 1, 2]) if said else rng.choice([1, 1, 2, 3])):
        spoil = rng.choice(BYTES)
        raw = spoil(rng, raw)
        said.append(spoil.__name__)
    return raw, ", ".join(said)


def _tensor(rng: random.Random, file: File) -> Stored:
    return rng.choice(file.tensors)[1]


def dimension(rng: random.Random, file: File) -> None:
    """A dimension is another."""
    each = _tensor(rng, file)
    if each.dimensions:
        each.dimensions[rng.randrange(len(each.dimensions))] = rng.choice(LONG)


def dimensions(rng: random.Random, file: File) -> None:
    """There are more or fewer dimensions."""
    each = _tensor(rng, file)
    each.dimensions = rng.choice([[], each.dimensions[1:], [*each.dimensions, 1], [*each.dimensions, 2], [1] * 5])


def kind(rng: random.Random, file: File) -> None:
    """A tensor is of another type."""
    _tensor(rng, file).kind = rng.choice([*range(45), 2**31, 2**32 - 1])


def offset(rng: random.Random, file: File) -> None:
    """A tensor's data begin elsewhere."""
    _tensor(rng, file).offset = rng.choice([*LONG, *(number * 32 % 2**64 for number in LONG)])


def tensor_name(rng: random.Random, file: File) -> None:
    """A tensor has another name."""
    at = rng.randrange(len(file.tensors))
    file.tensors[at] = (rng.choice([*NAMES, file.tensors[0][0]]), file.tensors[at][1])


def tensors(rng: random.Random, file: File) -> None:
    """A tensor is left out, there twice, or at another place."""
    at = rng.randrange(len(file.tensors))
    each = file.tensors.pop(at)
    for _ in range(rng.choice([0, 1, 2])):
        file.tensors.insert(rng.randint(0, len(file.tensors)), each)
    if not file.tensors:
        file.tensors.append(each)


def entry(rng: random.Random, file: File) -> None:
    """An entry is changed, left out, added or there twice."""
    values: list[Typed] = [
        (UINT32, rng.choice(NUMBERS)),
        (INT32, -1),
        (FLOAT32, float("nan")),
        (TEXT, rng.choice(NAMES)),
        (TEXT, "llama"),
        (ARRAY, (UINT32, [1] * rng.choice([0, 1, 5000]))),
        (ARRAY, (TEXT, NAMES)),
    ]
    key = rng.choice([*KEYS, *NAMES, *(key for key, _ in file.metadata)])
    if rng.random() < 0.5:
        file.metadata = [(name, said) for name, said in file.metadata if name != key]
    if rng.random() < 0.8:
        file.metadata.insert(rng.randint(0, len(file.metadata)), (key, rng.choice(values)))


def layout(rng: random.Random, file: File) -> None:
    """Version, alignment or padding are others."""
    file.version = rng.choice([0, 1, 2, 3, 3, 4, 2**31])
    file.alignment = rng.choice([1, 8, 32, 64, 4096])
    file.padding = rng.choice([b"\0", b"\xff"])


def cut(rng: random.Random, raw: bytes) -> bytes:
    """It ends before."""
    return raw[: rng.choice([rng.randint(0, len(raw)), max(0, len(raw) - rng.randint(1, 64)), rng.randint(0, 32)])]


def longer(rng: random.Random, raw: bytes) -> bytes:
    """There is something behind it."""
    return raw + rng.randbytes(rng.randint(1, 100))


def number(rng: random.Random, raw: bytes) -> bytes:
    """Four or eight bytes of the header are another number."""
    at = rng.randint(0, min(len(raw), rng.choice([32, 400, 25_000])))
    form, values = rng.choice([("<I", NUMBERS), ("<Q", LONG)])
    put = struct.pack(form, rng.choice(values))
    return raw[:at] + put + raw[at + len(put) :]


def count(rng: random.Random, raw: bytes) -> bytes:
    """It claims more or fewer tensors or metadata."""
    at = rng.choice([8, 16])
    before = int.from_bytes(raw[at : at + 8].ljust(8, b"\0"), "little")
    claimed = rng.choice([*LONG, max(0, before - 1), (before + 1) % 2**64])
    return raw[:at] + struct.pack("<Q", claimed) + raw[at + 8 :]


def splice(rng: random.Random, raw: bytes) -> bytes:
    """Some bytes are left out, put in or there twice."""
    at, length = rng.randint(0, min(len(raw), rng.choice([64, 2000, 25_000]))), rng.choice([0, 1, 2, 8, 30])
    return raw[:at] + rng.choice([b"", rng.randbytes(rng.randint(1, 9)), raw[at : at + 40]]) + raw[at + length :]


SAYS: list[Callable[[random.Random, File], None]] = [
    dimension,
    dimensions,
    kind,
    offset,
    tensor_name,
    tensors,
    entry,
    entry,
    layout,
]
BYTES: list[Callable[[random.Random, bytes], bytes]] = [cut, longer, number, number, count, splice]
