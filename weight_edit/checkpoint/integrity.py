"""Is an edited checkpoint its base but for the listed tensors? Both sides are read once, in chunks."""

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import CHUNK, Stamp, chunks, read_exactly, read_json, shown
from weight_edit.checkpoint.header import TensorInfo
from weight_edit.checkpoint.manifest import FileRecord, read_manifest, records_of
from weight_edit.checkpoint.source import CONFIG, Checkpoint
from weight_edit.checkpoint.tensors import count_non_finite_bytes
from weight_edit.errors import UsageError, WeightEditError
from weight_edit.progress import Bar, bar


@dataclass(frozen=True)
class IntegrityReport:
    """What `check_integrity` found.

    Attributes:
        ok: there are no problems.
        problems: one line each, naming file and tensor.
        tensors_equal: tensors that are the base's byte for byte, among those that must be.
        tensors_edited: tensors that may differ and are there, finite, with the base's dtype and shape.
        tensors_added: added tensors that are there and finite.
        files_equal: files other than shards that are the base's byte for byte.
        bytes_compared: bytes compared with the base's.
    """

    ok: bool
    problems: tuple[str, ...]
    tensors_equal: int
    tensors_edited: int
    tensors_added: int
    files_equal: int
    bytes_compared: int

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {**asdict(self), "problems": list(self.problems)}


def check_integrity(
    base: Checkpoint,
    edited: Checkpoint | Path,
    *,
    may_differ: Collection[str],
    added: Collection[str] = (),
    written_files: Collection[str] = (),
    changed_config: Collection[str] = (),
) -> IntegrityReport:
    """Compare two checkpoints; collects every problem instead of stopping at the first.

    Checked: names, order, dtypes, shapes and shard layout of the tensors; the shards' header bytes; every
    byte of tensors and files that may not differ; that edited and added tensors are finite; the config but
    for some keys; the index; and, where `edited` has a manifest, that it lists the folder's files, all of
    them and no others, with their digests. A file that cannot be read or changes meanwhile is a problem too.

    Args:
        edited: the checkpoint, or its folder: then a folder that cannot be opened is a problem, not an error.
        may_differ: tensors whose values (not dtype or shape) may differ.
        added: tensors that only `edited` has.
        written_files: files that may differ from the base's or be new.
        changed_config: top-level keys of `config.json` that may differ.
    """
    problems: list[str] = []
    if not isinstance(edited, Checkpoint):
        try:
            edited = Checkpoint.open(edited)
        except WeightEditError as error:
            return IntegrityReport(False, (str(error),), 0, 0, 0, 0, 0)
    with bar("comparing", edited.size, unit="bytes") as progress:
        check = _Check(base, edited, frozenset(may_differ), frozenset(added), problems, progress)
        check.names()
        for shard in edited.shards:
            check.guarded(shard, check.shard)
        check.other_files(frozenset(written_files), frozenset(changed_config))
        check.manifest()
    return IntegrityReport(
        ok=not problems,
        problems=tuple(problems),
        tensors_equal=check.tensors_equal,
        tensors_edited=check.tensors_edited,
        tensors_added=check.tensors_added,
        files_equal=check.files_equal,
        bytes_compared=check.bytes_compared,
    )


class _Check:
    """One comparison under way."""

    def __init__(
        self,
        base: Checkpoint,
        edited: Checkpoint,
        may_differ: frozenset[str],
        added: frozenset[str],
        problems: list[str],
        progress: Bar,
    ) -> None:
        self.base, self.edited, self.progress = base, edited, progress
        self.may_differ, self.added, self.problems = may_differ, added, problems
        self.counterpart = _paired_shards(base, edited, added)
        self.digests: dict[str, FileRecord] = {}
        self.tensors_equal = self.tensors_edited = self.tensors_added = self.files_equal = self.bytes_compared = 0

    def say(self, file: str, problem: str, tensor: str | None = None) -> None:
        where = shown(file) if tensor is None else f"{shown(file)}: tensor {shown(tensor)!r}"
        self.problems.append(f"{where}: {problem}")

    def guarded(self, name: str, step: Any) -> None:
        """Run one file's check; one that cannot be read is a problem, and the others go on."""
        try:
            step(name)
        except WeightEditError as error:
            self.say(name, str(error))

    def names(self) -> None:
        """Tensors and shards: which there are, and where."""
        base, edited = self.base.tensors, self.edited.tensors
        for name, info in base.items():
            if name not in edited:
                self.say(info.shard, "is missing from the edited checkpoint", name)
        for name, info in edited.items():
            if name not in base and name not in self.added:
                self.say(info.shard, "is not in the base", name)
        for name in sorted(self.may_differ - base.keys()):
            self.say(self.base.index_file or self.base.shards[0], "is listed as edited but not in the base", name)
        for name in sorted(self.added):
            if name not in edited:
                self.say(self.edited.index_file or self.edited.shards[0], "is listed as added but missing", name)
            elif name in base:
                self.say(edited[name].shard, "is listed as added but in the base too", name)
        for shard in self.base.shards:
            if shard not in self.counterpart.values():
                self.say(shard, "the shard is missing from the edited checkpoint")
        for shard in self.edited.shards:
            if shard not in self.counterpart and not self._only_added(shard):
                self.say(shard, "the shard is not in the base")

    def _only_added(self, shard: str) -> bool:
        tensors = self.edited.headers[shard].tensors
        return bool(tensors) and all(info.name in self.added for info in tensors)

    def shard(self, shard: str) -> None:
        """One pass over a shard of the edited side: header, tensors, digest."""
        header = self.edited.headers[shard]
        digest = hashlib.sha256()
        with self.edited.open_file(shard) as file:
            head = read_exactly(file, header.data_start, shard)
            digest.update(head)
            twin = self.counterpart.get(shard)
            if twin is not None:
                self._header(shard, twin, head)
            for info in header.tensors:
                pieces = _digested(chunks(file, info.size, shard), digest, self.progress)
                self._tensor(info, pieces)
                for _ in pieces:
                    # The rest of a tensor that already differs still counts for the digest.
                    continue
            self.digests[shard] = FileRecord(digest.hexdigest(), Stamp.of(file).size, "copied")

    def _header(self, shard: str, twin: str, head: bytearray) -> None:
        self.bytes_compared += len(head)
        if head == self.base.header_bytes(twin):
            return
        before, after = self.base.headers[twin], self.edited.headers[shard]
        if before.metadata != after.metadata:
            self.say(shard, "the header's __metadata__ differs from the base's")
        names = [info.name for info in before.tensors], [info.name for info in after.tensors]
        if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
            self.say(shard, "the tensors are in another order than the base's")
        self.say(shard, "the header's bytes differ from the base's")

    def _tensor(self, info: TensorInfo, pieces: Iterator[bytearray]) -> None:
        base = self.base.tensors.get(info.name)
        if base is None or info.name in self.added:
            if self._finite(info, pieces) and base is None and info.name in self.added:
                self.tensors_added += 1
            return
        if self.counterpart.get(info.shard) != base.shard:
            self.say(info.shard, f"was in {shown(base.shard)} in the base", info.name)
        alike = True
        if info.dtype != base.dtype:
            self.say(info.shard, f"the dtype is {info.dtype}, the base's {base.dtype}", info.name)
            alike = False
        if info.shape != base.shape:
            self.say(info.shard, f"the shape is {list(info.shape)}, the base's {list(base.shape)}", info.name)
            alike = False
        if info.name in self.may_differ:
            self.tensors_edited += self._finite(info, pieces) and alike
        elif alike:
            self.tensors_equal += self._equal(info, pieces)

    def _finite(self, info: TensorInfo, pieces: Iterator[bytearray]) -> bool:
        bad = sum(count_non_finite_bytes(piece, info.dtype) for piece in pieces)
        if bad:
            self.say(info.shard, f"has {bad} NaN or infinite values", info.name)
        return not bad

    def _equal(self, info: TensorInfo, pieces: Iterator[bytearray]) -> bool:
        for number, (ours, theirs) in enumerate(zip(pieces, self.base.raw(info.name), strict=True)):
            self.bytes_compared += len(ours)
            if ours != theirs:
                first = number * CHUNK + _first_difference(ours, theirs)
                self.say(info.shard, f"differs from the base (first at its byte {first})", info.name)
                return False
        return True

    def other_files(self, written: frozenset[str], changed_config: frozenset[str]) -> None:
        """Config, index and every file that is not a weight file."""
        shards = {*self.base.shards, *self.edited.shards}
        there = set(self.base.files) - shards
        here = set(self.edited.files) - shards
        free = set(written)
        if self.added:
            free |= {name for name in (self.base.index_file, self.edited.index_file) if name is not None}
            if self.base.index_file is not None and self.edited.index_file is not None:
                self.guarded(self.edited.index_file, self._index)
        for name in sorted(there - here - free):
            self.say(name, "the file is missing from the edited checkpoint")
        for name in sorted(here - there - free):
            self.say(name, "the file is not in the base")
        if changed_config:
            free.add(CONFIG)
            self._config(changed_config)
        for name in sorted(here):
            compared = name in there and name not in free
            self.guarded(name, self._equal_file if compared else self._digest_file)

    def _digest_file(self, name: str) -> None:
        digest = hashlib.sha256()
        with self.edited.open_file(name) as file:
            size = Stamp.of(file).size
            for _ in _digested(chunks(file, size, name), digest, self.progress):
                continue
        self.digests[name] = FileRecord(digest.hexdigest(), size, "copied")

    def _equal_file(self, name: str) -> None:
        digest = hashlib.sha256()
        with self.base.open_file(name) as theirs, self.edited.open_file(name) as ours:
            sizes = Stamp.of(ours).size, Stamp.of(theirs).size
            pieces = _digested(chunks(ours, sizes[0], name), digest, self.progress)
            equal = sizes[0] == sizes[1]
            if not equal:
                self.say(name, f"the content differs from the base's ({sizes[0]} bytes, not {sizes[1]})")
            for piece in pieces:
                if equal:
                    self.bytes_compared += len(piece)
                    if piece != read_exactly(theirs, len(piece), name):
                        equal = False
                        self.say(name, "the content differs from the base's")
        self.files_equal += equal
        self.digests[name] = FileRecord(digest.hexdigest(), sizes[0], "copied")

    def _config(self, changed: frozenset[str]) -> None:
        before, after = self.base.config, self.edited.config
        for key in sorted((before.keys() | after.keys()) - changed):
            if key not in before or key not in after or _as_text(before[key]) != _as_text(after[key]):
                self.say(CONFIG, f"the key {shown(key)!r} differs from the base's")

    def _index(self, name: str) -> None:
        """With added tensors the index grows; where the base's tensors are was compared shard by shard."""
        if self.base.index_file != name:
            self.say(name, f"the base's index is {shown(str(self.base.index_file))}")
            return
        before, after = (read_json(side.read_file(name), name) for side in (self.base, self.edited))
        totals = {"total_size", "total_parameters"}
        for part in (before, after):
            part.pop("weight_map")
            part["metadata"] = {key: value for key, value in part.get("metadata", {}).items() if key not in totals}
        if _as_text(before) != _as_text(after):
            self.say(name, "differs from the base's in more than the added tensors")

    def manifest(self) -> None:
        """The manifest of the edited side lists exactly its files, with their digests."""
        try:
            manifest = read_manifest(self.edited.path)
        except UsageError as error:
            self.problems.append(str(error))
            return
        if manifest is None:
            return
        listed = records_of(manifest)
        for name in sorted(self.edited.files):
            if name not in listed:
                self.say(name, "is not in the manifest")
            elif name in self.digests:
                found, said = self.digests[name], listed[name]
                if (found.sha256, found.size) != (said.sha256, said.size):
                    self.say(name, "does not match the manifest's SHA-256")
        for name in sorted(listed.keys() - set(self.edited.files)):
            self.say(name, "is in the manifest but not in the folder")


def _paired_shards(base: Checkpoint, edited: Checkpoint, added: frozenset[str]) -> Mapping[str, str]:
    """Shard of the edited side -> the base's shard whose layout it must have.

    They have the same name, except where a single-file base became sharded because tensors were added.
    """
    if base.index_file is None and edited.index_file is not None and added:
        own = [s for s in edited.shards if any(info.name not in added for info in edited.headers[s].tensors)]
        return {own[0]: base.shards[0]} if len(own) == 1 else {}
    return {shard: shard for shard in edited.shards if shard in base.headers}


def _digested(pieces: Iterator[bytearray], digest: Any, progress: Bar) -> Iterator[bytearray]:
    for piece in pieces:
        digest.update(piece)
        progress.advance(len(piece))
        yield piece


def _first_difference(left: bytearray, right: bytearray) -> int:
    return next(i for i, (a, b) in enumerate(itertools.zip_longest(left, right)) if a != b)


def _as_text(value: object) -> str:
    # As text, because Python holds 1, 1.0 and True for equal.
    return json.dumps(value, sort_keys=True)
