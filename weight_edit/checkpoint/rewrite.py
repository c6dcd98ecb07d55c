"""Write a copy of a checkpoint in which only some tensors' bytes differ.

Shards are streamed: their headers are copied as bytes, so that every offset stays; untouched ranges go from
file to file in chunks; edited tensors pass through torch one at a time.
"""

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from weight_edit.checkpoint.files import (
    DigestWriter,
    Stamp,
    check_relative,
    chunks,
    read_exactly,
    read_json,
    shown,
)
from weight_edit.checkpoint.header import TensorInfo, build_header
from weight_edit.checkpoint.manifest import MANIFEST, FileRecord, Origin
from weight_edit.checkpoint.source import CONFIG, INDEX, Checkpoint
from weight_edit.checkpoint.tensors import DTYPE_NAMES, count_non_finite, to_bytes, to_tensor
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.progress import Bar, bar

TensorEdit = Callable[[torch.Tensor], torch.Tensor]
"""A tensor as it is stored -> the edited one, same shape and dtype. It may work in place."""

ADDED_SHARD = "model-added.safetensors"
"""Where tensors added to a sharded checkpoint go (`model-added-2` if taken, and so on).

Converters that look for `model*.safetensors` find it too.
"""

_SPLIT = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@dataclass(frozen=True)
class RewriteResult:
    """What `rewrite` wrote.

    Attributes:
        files: relative path -> digest, size and origin, for every file written.
        edited, added: names of tensors.
        skipped: folders of the source that belong to tools and were not copied.
        other_weights: copied weight files that transformers does not load and that no edit reached.
        bytes_copied, bytes_edited: bytes that are the source's, and bytes of edited and added tensors.
    """

    files: Mapping[str, FileRecord]
    edited: tuple[str, ...]
    added: tuple[str, ...]
    skipped: tuple[str, ...]
    other_weights: tuple[str, ...]
    bytes_copied: int
    bytes_edited: int


def rewrite(
    source: Checkpoint,
    out: Path,
    edits: Mapping[str, TensorEdit],
    *,
    added: Mapping[str, torch.Tensor] | None = None,
    files: Mapping[str, bytes] | None = None,
    config: Mapping[str, Any] | None = None,
) -> RewriteResult:
    """Write every file of `source` into the folder `out`, with edits.

    Args:
        out: an existing, empty folder (see `output.staged`).
        edits: tensor name -> edit.
        added: new tensors. They go into a shard of their own and the index is updated; a single-file source
            becomes a sharded one only then. Shards that exist keep their bytes and, if sharded, their names.
        files: relative path -> content, written instead of or in addition to the source's.
        config: top-level keys of `config.json` to set; order and all other keys stay.

    Raises:
        UsageError: an edit of a tensor that is not there, an addition of one that is, non-finite values in an
            edited tensor before or after, a source that changes meanwhile.
        UnsupportedError: tensors added where the config names a single weight file; a dtype unknown to torch.
        ValueError: an edit that changes shape or dtype; `out` not empty; `files` naming the manifest, the
            config, the index or a shard.
    """
    added, files, config = added or {}, files or {}, config or {}
    _check_call(source, Path(out), edits, added, files)
    renamed = _renamed_shards(source, bool(added))
    written: dict[str, FileRecord] = {}
    with bar("writing", source.size, unit="bytes") as progress:
        job = _Job(source, Path(out), progress)
        for shard in source.shards:
            written[renamed[shard]] = job.shard(shard, renamed[shard], edits)
        if added:
            name = _added_name(source)
            written[name] = job.added_shard(name, added)
            index_name = source.index_file or INDEX
            origin: Origin = "edited" if source.index_file else "added"
            index = _index_with(source, renamed, added, name)
            written[index_name] = job.content(index_name, index, origin)
        elif source.index_file is not None:
            written[source.index_file] = job.copy(source.index_file)
        text = _config_with(source, config)
        written[CONFIG] = job.copy(CONFIG) if text is None else job.content(CONFIG, text, "edited")
        for name in source.other_files:
            if name not in files:
                written[name] = job.copy(name)
        for name, data in files.items():
            written[name] = job.content(name, data, "replaced" if name in source.other_files else "added")
    return RewriteResult(
        files={name: written[name] for name in sorted(written)},
        edited=tuple(name for name in source.tensors if name in edits),
        added=tuple(added),
        skipped=source.skipped,
        other_weights=tuple(name for name in source.other_weights if name not in files),
        bytes_copied=job.bytes_copied,
        bytes_edited=job.bytes_edited,
    )


def needed_bytes(source: Checkpoint, added: Mapping[str, torch.Tensor] | None = None) -> int:
    """About how many bytes `rewrite` will write, for the check of free space."""
    extra = sum(tensor.numel() * tensor.element_size() for tensor in (added or {}).values())
    return source.size + extra + 1_000_000


class _Job:
    """One rewrite under way: the two folders and the counts."""

    def __init__(self, source: Checkpoint, out: Path, progress: Bar) -> None:
        self.source, self.out, self.progress = source, out, progress
        self.bytes_copied = 0
        self.bytes_edited = 0

    def shard(self, shard: str, name: str, edits: Mapping[str, TensorEdit]) -> FileRecord:
        """Write one shard under `name`; returns its record."""
        targets = [info for info in self.source.headers[shard].tensors if info.name in edits]
        with self.source.open_file(shard) as file, DigestWriter(self.out, name) as target:
            size = Stamp.of(file).size
            for info in targets:
                self._copy(file, target, info.begin - target.size, shard)
                self._edit(file, target, info, edits[info.name])
            self._copy(file, target, size - target.size, shard)
        # `open_file` compares with what was there at `open`: a writer may have come in since this one began.
        self.source.open_file(shard).close()
        return FileRecord(target.sha256, target.size, "edited" if targets else "copied")

    def copy(self, name: str) -> FileRecord:
        """Copy one file as it is."""
        with self.source.open_file(name) as file, DigestWriter(self.out, name) as target:
            before = Stamp.of(file)
            self._copy(file, target, before.size, name)
            if Stamp.of(file) != before:
                raise UsageError(f"{shown(name)} changed while it was copied; start again")
        return FileRecord(target.sha256, target.size, "copied")

    def content(self, name: str, data: bytes, origin: Origin) -> FileRecord:
        """Write one file from memory."""
        with DigestWriter(self.out, name) as target:
            target.write(data)
        return FileRecord(target.sha256, target.size, origin)

    def added_shard(self, name: str, added: Mapping[str, torch.Tensor]) -> FileRecord:
        """Write the shard of the added tensors."""
        layout = {key: (_dtype_name(key, tensor), tuple(tensor.shape)) for key, tensor in added.items()}
        raw, header = build_header(layout, {"format": "pt"}, name)
        with DigestWriter(self.out, name) as target:
            target.write(raw)
            for info in header.tensors:
                tensor = added[info.name]
                _check_finite(tensor, f"the added tensor {shown(info.name)!r}", "refusing to write it")
                target.write(to_bytes(tensor))
                self.bytes_edited += info.size
        return FileRecord(target.sha256, target.size, "added")

    def _copy(self, file: BinaryIO, target: DigestWriter, count: int, name: str) -> None:
        # The one place where untouched bytes move; a copy inside the kernel would go here.
        for piece in chunks(file, count, name):
            target.write(piece)
            self.progress.advance(len(piece))
        self.bytes_copied += count

    def _edit(self, file: BinaryIO, target: DigestWriter, info: TensorInfo, edit: TensorEdit) -> None:
        where = f"{shown(info.shard)}: tensor {shown(info.name)!r}"
        before = to_tensor(read_exactly(file, info.size, info.shard), info)
        dtype, shape = before.dtype, before.shape
        _check_finite(before, f"{where} before the edit", "the source is damaged; fetch it again")
        after = edit(before)
        if not isinstance(after, torch.Tensor) or after.dtype != dtype or after.shape != shape:
            got = f"{after.dtype} {tuple(after.shape)}" if isinstance(after, torch.Tensor) else type(after).__name__
            raise ValueError(f"the edit of {info.name} must return {dtype} {tuple(shape)}, not {got}")
        _check_finite(after, f"{where} after the edit", "the edit overflows its dtype")
        target.write(to_bytes(after))
        self.bytes_edited += info.size
        self.progress.advance(info.size)


def _check_call(
    source: Checkpoint,
    out: Path,
    edits: Mapping[str, TensorEdit],
    added: Mapping[str, torch.Tensor],
    files: Mapping[str, bytes],
) -> None:
    for name in edits:
        info = source.info(name)
        if info.dtype in ("F4", "F6_E2M3", "F6_E3M2"):
            raise UnsupportedError(f"{shown(info.shard)}: tensor {shown(name)!r} is {info.dtype}, which packs elements")
    for name, tensor in added.items():
        if name in source.tensors or name == "__metadata__":
            raise UsageError(f"cannot add the tensor {shown(name)!r}: the checkpoint already has that name")
        _dtype_name(name, tensor)
    for name in files:
        check_relative(name, "files")
        if name in (CONFIG, MANIFEST, INDEX, source.index_file, *source.shards):
            raise ValueError(f"{name} is written by rewrite or write_manifest and cannot be given as a file")
    if not out.is_dir() or any(out.iterdir()):
        raise ValueError(f"{out} must be an existing, empty folder")
    if added and source.index_file is None and "transformers_weights" in source.config:
        raise UnsupportedError(
            f"config.json names one weight file, {shown(source.shards[0])} (transformers_weights), so that no"
            " tensors can be added; remove that key and rename the file to model.safetensors"
        )
    new = (*_SPLIT, INDEX) if source.index_file is None else (_added_name(source),)
    for name in new if added else ():
        if name in source.files or name in files:
            raise UsageError(f"cannot add tensors: {name} is in the way; remove it from {shown(str(source.path))}")


def _added_name(source: Checkpoint) -> str:
    if source.index_file is None:
        return _SPLIT[1]
    stem, suffix = ADDED_SHARD.split(".")
    later = (f"{stem}-{number}.{suffix}" for number in itertools.count(2))
    return next(name for name in itertools.chain([ADDED_SHARD], later) if name not in source.files)


def _dtype_name(name: str, tensor: torch.Tensor) -> str:
    dtype = DTYPE_NAMES.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedError(f"cannot add the tensor {shown(name)!r}: {tensor.dtype} has no place in safetensors")
    return dtype


def _check_finite(tensor: torch.Tensor, what: str, then: str) -> None:
    bad = count_non_finite(tensor)
    if bad:
        raise UsageError(f"{what} has {bad} NaN or infinite values; {then}")


def _renamed_shards(source: Checkpoint, adding: bool) -> dict[str, str]:
    """Shard -> its name in the output: its own, except when a single file has to become one of two."""
    if adding and source.index_file is None:
        return {source.shards[0]: _SPLIT[0]}
    return {shard: shard for shard in source.shards}


def _index_with(source: Checkpoint, renamed: Mapping[str, str], added: Mapping[str, torch.Tensor], shard: str) -> bytes:
    """The index with the added tensors: what it had stays in its order, the totals are brought up to date."""
    size = sum(tensor.numel() * tensor.element_size() for tensor in added.values())
    if source.index_file is None:
        total = sum(info.size for info in source.tensors.values())
        index: dict[str, Any] = {
            "metadata": {"total_size": total + size},
            "weight_map": {info.name: renamed[info.shard] for info in source.tensors.values()},
        }
    else:
        index = read_json(source.read_file(source.index_file), source.index_file)
        counts = {"total_size": size, "total_parameters": sum(tensor.numel() for tensor in added.values())}
        # transformers does not load an index without metadata.
        metadata = index.setdefault("metadata", {})
        for key, extra in counts.items():
            if type(metadata.get(key)) is int:
                metadata[key] += extra
    index["weight_map"].update(dict.fromkeys(added, shard))
    return (json.dumps(index, indent=2) + "\n").encode("utf-8")


def _config_with(source: Checkpoint, changes: Mapping[str, Any]) -> bytes | None:
    """config.json with some top-level keys set, laid out as transformers does; None when nothing changes."""
    raw = source.read_file(CONFIG)
    if all(key in source.config and _same_json(source.config[key], value) for key, value in changes.items()):
        return None
    config = {**read_json(raw, CONFIG), **changes}
    # Text in other scripts stays readable where the source has it so.
    text = json.dumps(config, indent=2, ensure_ascii=raw.isascii())
    return (text + ("\n" if raw.endswith(b"\n") else "")).encode("utf-8")


def _same_json(left: object, right: object) -> bool:
    # As text, because Python holds 1, 1.0 and True for equal.
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)
