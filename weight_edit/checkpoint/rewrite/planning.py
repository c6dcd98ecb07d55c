"""The plan of a rewritten checkpoint: its files and pieces, before any writing."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import check_relative, printable, read_json
from weight_edit.checkpoint.manifest import MANIFEST, Origin
from weight_edit.checkpoint.rewrite.indexes import config_with, index_with
from weight_edit.checkpoint.rewrite.layout import Copy, FilePlan, Literal, New, Piece, RewritePlan
from weight_edit.checkpoint.source.checkpoint import CONFIG, INDEX, Checkpoint
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.checkpoint.tensor.header import DTYPE_BITS, HeaderEntry, header_bytes, size_of
from weight_edit.checkpoint.tensor.nonfinite import count_non_finite
from weight_edit.checkpoint.tensor.numbers import STORED, encode
from weight_edit.errors import UnsupportedError, UsageError

ADDED_SHARD = "model-added.safetensors"
"""The shard for tensors added to a sharded checkpoint (`model-added-2` if taken, and so on).

Converters that look for `model*.safetensors` find it too.
"""

_SPLIT = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@dataclass(frozen=True)
class AddedTensor:
    """A tensor new in the output: a copy of another, an edit of one, or given bytes.

    Attributes:
        dtype, shape: as in a safetensors header.
        content: a tensor of the source, a stream that makes this tensor from one, or the bytes themselves.
    """

    dtype: str
    shape: tuple[int, ...]
    content: str | bytes | TensorWriter

    @property
    def size(self) -> int:
        """The tensor's size in bytes."""
        return size_of(self.dtype, self.shape)

    @classmethod
    def of(cls, numbers: NDArray[np.float64], dtype: str) -> "AddedTensor":
        """The tensor with given numbers, rounded once, as edited tensors are.

        Raises:
            UnsupportedError: a dtype that is none of F64, F32, F16 and BF16.
            UsageError: numbers that are not finite in it.
        """
        if dtype not in STORED:
            raise UnsupportedError(f"a tensor cannot be added as {dtype}; those that can be: {', '.join(STORED)}")
        raw = np.empty(size_of(dtype, numbers.shape), np.uint8)
        encode(np.array(numbers, np.float64).reshape(-1), dtype, raw)
        if count_non_finite(raw, dtype):
            largest = float(np.abs(numbers).max())
            raise UsageError(f"a tensor cannot be added as {dtype}: its numbers go up to {largest:.3g}")
        return cls(dtype, numbers.shape, raw.tobytes())


def plan_rewrite(
    source: Checkpoint,
    edits: Collection[TensorWriter],
    *,
    added: Mapping[str, AddedTensor] | None = None,
    files: Mapping[str, bytes] | None = None,
    config: Mapping[str, Any] | None = None,
    moved: Mapping[str, str] | None = None,
) -> RewritePlan:
    """The plan of a copy of `source` in which only some tensors' bytes differ.

    Args:
        edits: the edited tensors.
        added: new tensors. They go into a shard of their own and the index is updated; a single-file source becomes
            a sharded one only then. Shards that exist keep their bytes and, if sharded, their names.
        files: relative path -> content, written instead of or in addition to the source's.
        config: top-level keys of `config.json` to set, or to take out where None; order and all other keys stay.
        moved: other files of the source that get another name.

    Raises:
        UsageError: an edit of a tensor that is not there, an addition of one that is, a new file's name that is taken.
        UnsupportedError: tensors added where the config names a single weight file.
        ValueError: two edits of one tensor; `files` naming the manifest, the config, the index or a shard.
    """
    added, files, config, moved = added or {}, files or {}, config or {}, moved or {}
    changed = _Changed.of(source, edits)
    if source.gguf is not None:
        _check_gguf(source, changed, added, config)
    _check_call(source, added, files)
    renamed = _renamed_shards(source, bool(added))
    plans = [_shard(source, shard, renamed[shard], changed) for shard in source.shards]
    if added:
        plans.append(FilePlan(_added_name(source), _added_shard(source, added), "added"))
    plans.extend(_index(source, renamed, changed, added))
    if source.gguf is None:
        text = config_with(source, config)
        plans.append(_copied(source, CONFIG) if text is None else FilePlan(CONFIG, (Literal(text),), "edited"))
    plans.extend(_copied(source, name, moved.get(name)) for name in source.other_files if name not in files)
    for name, data in files.items():
        plans.append(FilePlan(name, (Literal(data),), "replaced" if name in source.other_files else "added"))
    return RewritePlan(
        source=source,
        files=tuple(plans),
        edited=tuple(name for name in source.tensors if name in changed.parts),
        added=(*added, *(name for name in changed.parts if name not in source.tensors)),
        removed=tuple(name for name in source.tensors if name in changed.removed),
        other_weights=tuple(name for name in source.other_weights if name not in files),
    )


@dataclass(frozen=True)
class _Changed:
    """The tensors that change.

    Attributes:
        parts: name in the output -> the edited tensor that it is a part of.
        removed: names of the source that the output does not have.
        instead: name of the source -> the new names that stand in its place.
    """

    parts: Mapping[str, TensorWriter]
    removed: frozenset[str]
    instead: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, source: Checkpoint, edits: Collection[TensorWriter]) -> "_Changed":
        parts: dict[str, TensorWriter] = {}
        instead: dict[str, tuple[str, ...]] = {}
        for edited in edits:
            for name in edited.source.reads:
                source.info(name)
            for name in edited.target.parts:
                if name in parts:
                    raise ValueError(f"two edits of {name}")
                if name in source.tensors and name not in edited.source.parts:
                    raise UsageError(
                        f"cannot write the tensor {printable(name)!r}: the checkpoint already has that name"
                    )
                parts[name] = edited
            new = tuple(name for name in edited.target.parts if name not in edited.source.parts)
            if new:
                instead[edited.source.name] = new
        removed = frozenset(name for edited in edits for name in edited.source.reads if name not in edited.target.reads)
        return cls(parts, removed, instead)

    def names(self, name: str) -> Iterator[str]:
        """Names in the output that replace the source's tensor `name`."""
        if name not in self.removed:
            yield name
        yield from self.instead.get(name, ())


def _check_gguf(
    source: Checkpoint, changed: _Changed, added: Mapping[str, AddedTensor], config: Mapping[str, Any]
) -> None:
    """Refuse what would give a GGUF file another size or header.

    Raises:
        UnsupportedError: tensors that are added, or stored in another type; settings of a config that it has not.
    """
    where = printable(source.shards[0])
    for name in (*added, *(name for name in changed.parts if name not in source.tensors)):
        raise UnsupportedError(
            f"{where} has no tensor {printable(name)!r}, and none is added to a GGUF file; choose an edit that "
            "needs none (`embeddings='both'` leaves embeddings tied), or edit the model that it was converted from",
            option="embeddings",
        )
    for name, edited in changed.parts.items():
        info, (dtype, shape) = source.tensors[name], edited.target.parts[name]
        if (info.dtype, info.shape) != (dtype, tuple(shape)):
            raise UnsupportedError(
                f"{where}: tensor {printable(name)!r} stays {info.dtype}, and cannot become {dtype}: tensors of a GGUF "
                "file are edited in their own type; leave `dequantize` out",
                option="dequantize",
            )
    for key in config:
        raise UnsupportedError(
            f"{where}: the edit sets {printable(key)!r} of a config.json, which a GGUF file has not; edit the model "
            "that it was converted from, and convert the result"
        )


def _check_call(source: Checkpoint, added: Mapping[str, AddedTensor], files: Mapping[str, bytes]) -> None:
    for name in added:
        if name in source.tensors or name == "__metadata__":
            raise UsageError(f"cannot add the tensor {printable(name)!r}: the checkpoint already has that name")
    for name in files:
        check_relative(name, "files")
        if name in (CONFIG, MANIFEST, INDEX, source.index_file, *source.shards):
            raise ValueError(f"{name} is written by the rewrite or as the manifest and cannot be given as a file")
    if added and source.index_file is None and "transformers_weights" in source.config:
        raise UnsupportedError(
            f"config.json names one weight file, {printable(source.shards[0])} (transformers_weights), so that no"
            " tensors can be added; remove that key and rename the file to model.safetensors"
        )
    new = (*_SPLIT, INDEX) if source.index_file is None else (_added_name(source),)
    for name in new if added else ():
        if name in files or _in_the_way(source, name):
            raise UsageError(f"cannot add tensors: {name} is in the way; remove it from {printable(str(source.path))}")
    # A file of that name is an earlier manifest and is not copied.
    if any(name.startswith(f"{MANIFEST}/") for name in source.files):
        raise UsageError(
            f"{MANIFEST} is a folder in {printable(str(source.path))}; the output's record goes there, remove it"
        )


def _in_the_way(source: Checkpoint, name: str) -> bool:
    """Whether the source has a file or folder named `name`."""
    return any(file == name or file.startswith(f"{name}/") for file in source.files)


def _copied(source: Checkpoint, name: str, new_name: str | None = None) -> FilePlan:
    return FilePlan(new_name or name, (Copy(name, 0, source.file_size(name)),), "copied")


def _shard(source: Checkpoint, shard: str, name: str, changed: _Changed) -> FilePlan:
    """The plan of one shard.

    Its header stays, byte for byte, unless a tensor's name, dtype or shape changes. Of a GGUF file, which has bytes
    between its tensors and behind the last, all stays but the edited tensors' own.
    """
    header = source.headers[shard]
    if source.gguf is not None:
        pieces = tuple(_joined(list(_in_place(source, shard, changed))))
        return FilePlan(name, pieces, "copied" if all(isinstance(piece, Copy) for piece in pieces) else "edited")
    content: list[tuple[HeaderEntry, Piece]] = []
    for info in header.tensors:
        for new in changed.names(info.name):
            if new in changed.parts:
                dtype, shape = changed.parts[new].target.parts[new]
                content.append((HeaderEntry(new, dtype, shape), New(changed.parts[new], new, size_of(dtype, shape))))
            else:
                content.append((HeaderEntry(new, info.dtype, info.shape), Copy(shard, info.begin, info.size)))
    entries = [entry for entry, _ in content]
    head: Piece = Copy(shard, 0, header.data_start)
    if entries != [HeaderEntry(info.name, info.dtype, info.shape) for info in header.tensors]:
        head = Literal(header_bytes(entries, header.metadata))
    pieces = tuple(_joined([head, *(piece for _, piece in content)]))
    return FilePlan(name, pieces, "copied" if all(isinstance(piece, Copy) for piece in pieces) else "edited")


def _in_place(source: Checkpoint, shard: str, changed: _Changed) -> Iterator[Piece]:
    """The pieces of a file in which edited tensors take the place of their own bytes, and all else is copied."""
    done = 0
    for info in source.headers[shard].tensors:
        if info.name in changed.parts:
            yield Copy(shard, done, info.begin - done)
            yield New(changed.parts[info.name], info.name, info.size)
            done = info.end
    yield Copy(shard, done, source.file_size(shard) - done)


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """The pieces with adjacent copies merged and empty pieces dropped."""
    last: Piece | None = None
    for piece in pieces:
        if isinstance(last, Copy) and isinstance(piece, Copy) and last.begin + last.size == piece.begin:
            last = Copy(last.file, last.begin, last.size + piece.size)
            continue
        if last is not None and last.size:
            yield last
        last = piece
    if last is not None and last.size:
        yield last


def _added_name(source: Checkpoint) -> str:
    if source.index_file is None:
        return _SPLIT[1]
    stem, suffix = ADDED_SHARD.split(".")
    later = (f"{stem}-{number}.{suffix}" for number in itertools.count(2))
    return next(name for name in itertools.chain([ADDED_SHARD], later) if name not in source.files)


def _added_shard(source: Checkpoint, added: Mapping[str, AddedTensor]) -> tuple[Piece, ...]:
    # As safetensors lays them out: widest dtype first, then by name, so that every tensor is aligned.
    order = sorted(added, key=lambda name: (-DTYPE_BITS[added[name].dtype], name))
    entries = [HeaderEntry(name, added[name].dtype, added[name].shape) for name in order]
    pieces: list[Piece] = [Literal(header_bytes(entries, {"format": "pt"}))]
    for name in order:
        content = added[name].content
        if isinstance(content, str):
            info = source.info(content)
            pieces.append(Copy(info.shard, info.begin, info.size))
        elif isinstance(content, bytes):
            pieces.append(Literal(content))
        else:
            pieces.append(New(content, name, added[name].size))
        if pieces[-1].size != added[name].size:
            raise ValueError(f"the added tensor {name} has {pieces[-1].size} bytes, which is not its dtype and shape")
    return tuple(pieces)


def _renamed_shards(source: Checkpoint, adding: bool) -> dict[str, str]:
    """Shard -> its name in the output; only a single file that gets a second shard is renamed."""
    if adding and source.index_file is None:
        return {source.shards[0]: _SPLIT[0]}
    return {shard: shard for shard in source.shards}


def _index(
    source: Checkpoint, renamed: Mapping[str, str], changed: _Changed, added: Mapping[str, AddedTensor]
) -> list[FilePlan]:
    """The plan of the index: the source's entries in their order, then added or changed ones."""
    if source.index_file is None and not added:
        return []
    if source.index_file is not None and not added and not changed.removed and not changed.instead:
        return [_copied(source, source.index_file)]
    names = source.tensors
    if source.index_file is not None:
        names = read_json(source.read_file(source.index_file), source.index_file)["weight_map"]
    weight_map = {new: renamed[source.tensors[name].shard] for name in names for new in changed.names(name)}
    weight_map |= dict.fromkeys(added, _added_name(source))
    layouts = [edited.target.parts[name] for name, edited in changed.parts.items()]
    more = sum(size_of(*layout) for layout in layouts) + sum(tensor.size for tensor in added.values())
    more -= sum(source.tensors[name].size for name in {*changed.parts, *changed.removed} if name in source.tensors)
    numbers = sum(math.prod(tensor.shape) for tensor in added.values())
    origin: Origin = "edited" if source.index_file else "added"
    return [FilePlan(source.index_file or INDEX, (Literal(index_with(source, weight_map, more, numbers)),), origin)]
