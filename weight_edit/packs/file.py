"""The file of a pack: safetensors, a directions file too, with the edit's account in compressed tensors of bytes.

| tensor | what it holds |
|---|---|
| `direction`, and those beside it | the directions, where all steps have the same; float32, as `find` writes them |
| `pack` | JSON: the format's number, the packing version, the base's files, and how the base is made again |
| `manifest`, `card` | the bytes of `weight_edit.json` and of README.md |
| `reversal` | what rounding lost, where the pack is reversible |

The first line of trust: whoever reads a pack holds no more than these bounds, runs nothing of it, and takes kinds of
edits from the registry alone.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from weight_edit.baking.prepare import EditOptions
from weight_edit.checkpoint.files import (
    Stamp,
    check_relative,
    chunks,
    open_regular,
    printable,
    read_exactly,
    read_json,
)
from weight_edit.checkpoint.manifest import FileRecord, is_record, parse_manifest, records_of
from weight_edit.checkpoint.tensor.header import Header, HeaderEntry, TensorInfo, header_bytes, read_header
from weight_edit.checkpoint.whole_file import whole_file
from weight_edit.directions.file import KEY
from weight_edit.edits.direction_facts import KEPT
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.errors import UsageError
from weight_edit.packs.compression import compressed, expanded
from weight_edit.plan.step import EditStep
from weight_edit.version import __version__

FORMAT = 1
"""The number of this format; another one is refused."""

DOCUMENT, MANIFEST, CARD, REVERSAL = "pack", "manifest", "card", "reversal"

_LONGEST_HEADER = 1 << 20
_LONGEST = {DOCUMENT: 16_000_000, MANIFEST: 16_000_000, CARD: 4_000_000}
_MOST_VALUES = 1_000_000
_MOST_FILES = 100_000
_MOST_STEPS = 1000


@dataclass(frozen=True, kw_only=True)
class PackContent:
    """What a new pack says.

    Attributes:
        manifest, card: bytes of `weight_edit.json` and README.md.
        base: the base's files, where it was at hand: name -> digest and size; the origin is always "copied".
        reversal: how the base is made again, as JSON; None if the pack is not reversible.
        steps: of the edit.
    """

    manifest: bytes
    card: bytes
    steps: Sequence[EditStep]
    base: Mapping[str, FileRecord] | None = None
    reversal: Mapping[str, Any] | None = None

    @property
    def document(self) -> bytes:
        """The JSON of the tensor `pack`."""
        files = {name: {"sha256": each.sha256, "size": each.size} for name, each in (self.base or {}).items()}
        said = {
            "format": FORMAT,
            "weight_edit": __version__,
            "base": None if self.base is None else {"files": files},
            "reversal": self.reversal,
        }
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


@dataclass(frozen=True, kw_only=True)
class Pack:
    """A pack that was read and checked.

    Attributes:
        path: its file.
        sha256: of its file.
        made_with: the version of weight_edit that packed it.
        manifest_bytes, card: of the published result.
        manifest: the former, parsed.
        steps, options: the edit.
        base: the base's files, name -> digest and size; None where they were not at hand.
        reversal: how the base is made again, as JSON that is checked by its reader; None if it is not reversible.
        stored: where the tensor `reversal` is in the file.
    """

    path: Path
    sha256: str
    made_with: str
    manifest_bytes: bytes
    card: bytes
    manifest: Mapping[str, Any] = field(repr=False)
    steps: tuple[EditStep, ...]
    options: EditOptions
    base: Mapping[str, FileRecord] | None
    reversal: Mapping[str, Any] | None = field(repr=False)
    stored: TensorInfo | None = field(repr=False)

    @cached_property
    def name(self) -> str:
        """Its file's name, fit for a line."""
        return printable(self.path.name)

    @cached_property
    def records(self) -> dict[str, FileRecord]:
        """The published result's files but the manifest: name -> digest, size and origin."""
        return records_of(self.manifest)


def write_pack(path: Path, content: PackContent, reversal: BinaryIO | None = None) -> int:
    """Write a pack; it appears whole or not at all.

    Args:
        reversal: an open file with the bytes of the tensor `reversal`, read from its beginning.

    Returns:
        its size in bytes.

    Raises:
        UsageError: something that is no regular file is in the way.
        OSError: the disk is full, and so on.
    """
    tensors: dict[str, tuple[HeaderEntry, bytes]] = {}
    rows = shared_directions(content.steps)
    facts: dict[str, Any] = {}
    if rows is not None:
        facts = {key: rows.metadata[key] for key in KEPT if key in rows.metadata}
        for name, values in {"direction": rows.rows, **rows.tensors}.items():
            tensors[name] = (HeaderEntry(name, "F32", np.shape(values)), np.asarray(values, "<f4").tobytes())
    for name, text in ((DOCUMENT, content.document), (MANIFEST, content.manifest), (CARD, content.card)):
        raw = compressed(text)
        tensors[name] = (HeaderEntry(name, "U8", (len(raw),)), raw)
    entries = [entry for entry, _ in tensors.values()]
    size = 0
    if reversal is not None:
        size = reversal.seek(0, 2)
        reversal.seek(0)
        entries.append(HeaderEntry(REVERSAL, "U8", (size,)))
    metadata = {"format": "pt", KEY: json.dumps(facts, ensure_ascii=False, allow_nan=False)}
    with whole_file(path) as file:
        file.write(header_bytes(entries, metadata))
        for _, raw in tensors.values():
            file.write(raw)
        if reversal is not None:
            for piece in chunks(reversal, size, "reversal"):
                file.write(piece)
        return file.tell()


def shared_directions(steps: Sequence[EditStep]) -> DirectionRows | None:
    """The directions of an edit whose steps all have the same; None where they differ, or have a pack's names."""
    first = steps[0].directions

    def same(other: DirectionRows) -> bool:
        return (
            np.array_equal(first.rows, other.rows)
            and first.tensors.keys() == other.tensors.keys()
            and all(np.array_equal(values, other.tensors[name]) for name, values in first.tensors.items())
            and first.metadata == other.metadata
        )

    own = {"direction", "candidates", DOCUMENT, MANIFEST, CARD, REVERSAL}
    return first if all(same(step.directions) for step in steps[1:]) and not own & first.tensors.keys() else None


def is_pack(path: Path) -> bool:
    """Whether a file is a pack, which may be overwritten by another one.

    Raises:
        UsageError: it cannot be read at all.
    """
    with open_regular(path) as file:
        try:
            header = _header(file, path.name)
        except UsageError:
            return False
    return {DOCUMENT, MANIFEST, CARD} <= {info.name for info in header.tensors}


def read_pack(path: Path) -> Pack:
    """The pack in a file, checked.

    Raises:
        UsageError: no pack, a damaged one, one of another format, or one that says what none of ours says.
    """
    said = printable(str(path))
    with open_regular(path.resolve()) as file:
        header = _header(file, path.name)
        tensors = {info.name: info for info in header.tensors}
        missing = [name for name in (DOCUMENT, MANIFEST, CARD) if name not in tensors or tensors[name].dtype != "U8"]
        if missing:
            raise UsageError(
                f"{said} is no pack: it has no tensor {missing[0]!r} of bytes; give the file that pack wrote"
            )
        texts = {name: _text(file, tensors[name], most, said) for name, most in _LONGEST.items()}
        file.seek(0)
        digest = hashlib.sha256()
        for piece in chunks(file, Stamp.of(file).size, path.name):
            digest.update(piece)
    for name in (DOCUMENT, MANIFEST):
        # Of a text of brackets alone, the parsed value takes thirty times the memory.
        if sum(texts[name].count(mark) for mark in (b"[", b"{", b",")) > _MOST_VALUES:
            raise UsageError(f"{said}: its {name} has more values than any; it is no pack of ours")
    document = _document(texts[DOCUMENT], said)
    manifest = parse_manifest(texts[MANIFEST], f"{said}: its manifest")
    steps, options = edit_in(manifest, said)
    stored = tensors.get(REVERSAL)
    return Pack(
        path=path,
        sha256=digest.hexdigest(),
        made_with=document["weight_edit"],
        manifest_bytes=texts[MANIFEST],
        card=texts[CARD],
        manifest=manifest,
        steps=steps,
        options=options,
        base=_base(document["base"], said),
        reversal=document["reversal"],
        stored=stored if stored is not None and stored.dtype == "U8" else None,
    )


def edit_in(manifest: Mapping[str, Any], said: str) -> tuple[tuple[EditStep, ...], EditOptions]:
    """The steps and options of a manifest.

    Args:
        said: the name of the file that it is from, for messages.

    Raises:
        UsageError: a malformed one, an edit that this version does not know, or one of an adapter.
    """
    edit = manifest.get("edit")
    if not isinstance(edit, Mapping) or manifest.get("kind") == "adapter":
        raise UsageError(f"{said} has no edit of a checkpoint; give what bake or run wrote")
    if len(edit.get("steps", ())) > _MOST_STEPS:
        raise UsageError(f"{said}: {len(edit['steps'])} steps are too many; at most {_MOST_STEPS} are read")
    try:
        options = EditOptions.from_dict(edit)
        return tuple(EditStep.from_dict(entry) for entry in edit["steps"]), options
    except UsageError as error:
        raise UsageError(f"{said}: {error}") from error
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise UsageError(f"{said} does not say how the model was edited; make it again") from error


def _header(file: BinaryIO, name: str) -> Header:
    size = Stamp.of(file).size
    if size >= 8 and int.from_bytes(read_exactly(file, 8, name), "little") > _LONGEST_HEADER:
        raise UsageError(f"{printable(name)} is no pack: its header is longer than that of any")
    return read_header(file, size, name)


def _text(file: BinaryIO, info: TensorInfo, most: int, said: str) -> bytes:
    if info.size > most:
        raise UsageError(f"{said}: its {info.name} has {info.size} bytes, more than any; it is no pack of ours")
    file.seek(info.begin)
    return expanded(read_exactly(file, info.size, said), most, f"{said}: its {info.name}")


def _document(raw: bytes, said: str) -> dict[str, Any]:
    found = read_json(raw, f"{said}: its account")
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise UsageError(f"{said} is no pack: its account is none of ours")
    if found["format"] != FORMAT:
        raise UsageError(
            f"{said} is a pack of format {found['format']}, and this version of weight_edit ({__version__}) reads "
            f"format {FORMAT}; use the version that made it"
        )
    if found.keys() != {"format", "weight_edit", "base", "reversal"} or not isinstance(found["weight_edit"], str):
        raise UsageError(f"{said} is no pack: its account is none of ours")
    if found["reversal"] is not None and not isinstance(found["reversal"], dict):
        raise UsageError(f"{said}: its reversal is none of ours")
    return found


def _base(said: Any, where: str) -> dict[str, FileRecord] | None:
    if said is None:
        return None
    files = said.get("files") if isinstance(said, dict) else None
    if not isinstance(files, dict) or not 0 < len(files) <= _MOST_FILES:
        raise UsageError(f"{where}: its base has no files; it is no pack of ours")
    return dict(_records(files, where))


def _records(files: Mapping[str, Any], where: str) -> Iterator[tuple[str, FileRecord]]:
    for name, entry in files.items():
        check_relative(name, f"{where}: its base")
        if not isinstance(entry, dict) or not is_record({**entry, "origin": "copied"}):
            raise UsageError(f"{where}: its base's file {printable(name)!r} has no digest and size")
        yield name, FileRecord(entry["sha256"], entry["size"], "copied")
