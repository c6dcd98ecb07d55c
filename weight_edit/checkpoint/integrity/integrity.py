"""The integrity check: an edited checkpoint is its base but for the edits.

One pass over both sides.
"""

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.integrity.config_and_index import config_problems, index_problems
from weight_edit.checkpoint.integrity.expected import Expected
from weight_edit.checkpoint.integrity.formula import TensorCheck, check_formula
from weight_edit.checkpoint.integrity.tensor_pairs import Part, Walk, Walked
from weight_edit.checkpoint.manifest import FileRecord, read_manifest, records_of
from weight_edit.checkpoint.rewrite.planning import AddedTensor
from weight_edit.checkpoint.source.checkpoint import CONFIG, Checkpoint
from weight_edit.checkpoint.source.reading import Files
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.checkpoint.tensor.header import TensorInfo
from weight_edit.checkpoint.tensor.scratch import keep_freed_memory
from weight_edit.errors import WeightEditError
from weight_edit.utils.progress import Bar, bar


@dataclass(frozen=True, kw_only=True)
class IntegrityReport:
    """The result of `check_integrity`.

    Attributes:
        ok: there are no problems.
        problems: one line each, naming file and tensor.
        tensors_equal: tensors that are the base's byte for byte, among those that must be.
        tensors_edited: edited tensors that are there and are the formula's, see `TensorCheck`.
        tensors_added: added tensors that are there and finite, and what was to be added where that is known.
        files_equal: files other than shards that are the base's byte for byte.
        bytes_compared: bytes compared with the base's.
        edits: every edited tensor that could be compared with the formula.
        bytes_read: of both sides; what was read twice counts twice.
        seconds: how long it took.
    """

    ok: bool
    problems: tuple[str, ...]
    tensors_equal: int = 0
    tensors_edited: int = 0
    tensors_added: int = 0
    files_equal: int = 0
    bytes_compared: int = 0
    edits: tuple[TensorCheck, ...] = ()
    bytes_read: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {**asdict(self), "problems": list(self.problems), "edits": [asdict(edit) for edit in self.edits]}


def check_integrity(
    base: Checkpoint,
    edited: Checkpoint | Path,
    *,
    edits: Collection[TensorWriter] = (),
    added: Collection[str] | Mapping[str, AddedTensor] = (),
    written_files: Collection[str] = (),
    changed_config: Collection[str] = (),
) -> IntegrityReport:
    """Compare two checkpoints and collect every problem.

    Checked: names, order, dtypes, shapes and shard layout of the tensors; the shards' header bytes; every byte of
    tensors and files that may not differ; edited tensors against the formula applied again to the base's, and what
    they have left along the directions; that added tensors are finite; the config but for some keys; the index; and,
    where `edited` has a manifest, that it lists the folder's files, all of them and no others, with their digests. A
    file that cannot be read or changes meanwhile is a problem too.

    Args:
        edited: the checkpoint, or its folder: then a folder that cannot be opened is a problem, not an error.
        edits: the edited tensors. Those of the base that an edit reads and none writes must be gone.
        added: tensors that only `edited` has; those that an edit writes are compared with it, and the others, where the
            tensors themselves are given and not their names alone, byte for byte with these.
        written_files: files that may differ from the base's or be new.
        changed_config: top-level keys of `config.json` that may differ, or with values what they must be.
    """
    began = time.monotonic()
    keep_freed_memory()
    if not isinstance(edited, Checkpoint):
        try:
            edited = Checkpoint.open(edited)
        except WeightEditError as error:
            return IntegrityReport(ok=False, problems=(str(error),))
    check = _Check(base, edited, Expected.of(base, edited, edits, added))
    with Files(base) as theirs, Files(edited) as ours, bar("comparing", edited.size, unit="bytes") as progress:
        # The pass has its own threads; those of the products would only be in their way.
        with threadpool_limits(1, "blas"):
            check.run(theirs, ours, frozenset(written_files), changed_config, progress)
        read = theirs.bytes_read + ours.bytes_read
    order = {name: place for place, name in enumerate(edited.tensors)}
    return IntegrityReport(
        ok=not check.problems,
        problems=tuple(check.problems),
        tensors_equal=check.tensors_equal,
        tensors_edited=sum(found.ok for found in check.edits if found.tensor not in added),
        tensors_added=check.tensors_added + sum(found.ok for found in check.edits if found.tensor in added),
        files_equal=check.files_equal,
        bytes_compared=check.bytes_compared,
        edits=tuple(sorted(check.edits, key=lambda found: order[found.tensor])),
        bytes_read=read,
        seconds=round(time.monotonic() - began, 3),
    )


class _Check:
    """One comparison under way."""

    def __init__(self, base: Checkpoint, edited: Checkpoint, expected: Expected) -> None:
        self.base, self.edited, self.expected = base, edited, expected
        self.problems: list[str] = []
        self.edits: list[TensorCheck] = []
        self.tensors_equal = self.tensors_added = self.files_equal = self.bytes_compared = 0
        self._of_tensor: dict[str, list[str]] = {}
        self._numbers: dict[str, int] = {}
        self._gaps: dict[str, dict[int, int]] = {}
        self._started: set[str] = set()

    def say(self, file: str, problem: str, tensor: str | None = None) -> None:
        where = printable(file) if tensor is None else f"{printable(file)}: tensor {printable(tensor)!r}"
        self.problems.append(f"{where}: {problem}")

    def run(self, base: Files, edited: Files, written: frozenset[str], config: Collection[str], progress: Bar) -> None:
        """Run all checks, in the order in which problems are reported."""
        for file, problem, tensor in self.expected.problems():
            self.say(file, problem, tensor)
        try:
            manifest = read_manifest(self.edited.path)
        except WeightEditError as error:
            self.problems.append(str(error))
            manifest = None
        compared = self.other_files(written, config)
        parts: dict[str, list[Part]] = {}
        for name in self.edited.files:
            try:
                if name in self.edited.headers:
                    parts[name] = self.shard_parts(name, base, edited, progress)
                else:
                    parts[name] = self.file_parts(name, name in compared, base, edited)
            except WeightEditError as error:
                self.say(name, str(error))
        walk = Walk(base, edited, digests=manifest is not None, progress=progress)
        found = walk.run(parts)
        for shard in self.edited.shards:
            if shard in parts:
                self.judge_shard(shard, parts[shard], found[shard])
        for name in self.edited.files:
            if name in parts and name not in self.edited.headers:
                self.judge_file(name, parts[name], found[name])
        if manifest is not None:
            self.manifest(records_of(manifest), found, edited)

    def shard_parts(self, shard: str, base: Files, edited: Files, progress: Bar) -> list[Part]:
        """The parts of a shard: the header, then every tensor in file order, with what a GGUF file has between them."""
        header, size = self.edited.headers[shard], edited.size(shard)
        twin = self.expected.twins.get(shard)
        same_place = twin is not None and self.base.headers[twin].data_start == header.data_start
        parts = [Part(header.data_start, (twin, 0) if twin is not None and same_place else None)]
        gaps = self._gaps[shard] = {}
        if self.edited.gguf is not None and twin is not None and base.size(twin) != size:
            self.say(shard, f"the file has {size} bytes, the base's {base.size(twin)}")
            same_place = False

        def gap(begin: int, end: int) -> None:
            if end > begin:
                gaps[len(parts)] = begin
                parts.append(Part(end - begin, (twin, begin) if twin is not None and same_place else None))

        done = header.data_start
        for info in header.tensors:
            gap(done, info.begin)
            done = info.end
            self._numbers[info.name] = len(parts)
            edit = self.expected.edit_of(info)
            before = self.base.tensors.get(info.name)
            if edit is not None and edit.target.name not in self._started:
                self._started.add(edit.target.name)
                parts.append(Part(info.size, job=self._job(edit, base, edited, progress)))
            elif edit is not None or info.name in self.expected.targets:
                parts.append(Part(info.size))
            elif before is None or info.name in self.expected.added:
                parts.append(Part(info.size, self.expected.added_bytes(info), info.dtype))
            elif (before.dtype, before.shape) == (info.dtype, info.shape):
                parts.append(Part(info.size, (before.shard, before.begin)))
            else:
                parts.append(Part(info.size))
        gap(done, size)
        return parts

    def _job(self, edit: TensorWriter, base: Files, edited: Files, progress: Bar) -> Any:
        name, shard = edit.target.name, self.edited.tensors[edit.target.name].shard

        def work() -> None:
            said = []
            try:
                found = check_formula(edit, base.tensor, edited.tensor, progress.advance)
            except WeightEditError as error:
                said = [str(error)]
            else:
                self.edits.append(found)
                if found.different:
                    said.append(
                        f"differs from the edit applied to the base's tensor in {found.different} of {found.entries} "
                        "entries, by more than rounding explains"
                    )
                if found.one_sided:
                    said.append(
                        f"has {found.inexact} entries that are rounded otherwise than the edit's, too many of them to "
                        "the same side for chance"
                    )
                if found.non_finite:
                    said.append(f"has {found.non_finite} NaN or infinite values")
            self._of_tensor[name] = [f"{printable(shard)}: tensor {printable(name)!r}: {what}" for what in said]

        return work

    def judge_shard(self, shard: str, parts: list[Part], found: Walked) -> None:
        """Report the problems that the walk found in one shard, in the order of its tensors."""
        twin = self.expected.twins.get(shard)
        for problem in found.problems:
            self.say(shard, problem)
        if twin is not None and not self.expected.relaid(shard):
            self.bytes_compared += parts[0].size
            if parts[0].like is None or 0 in found.first_difference:
                self._header(shard, twin)
        elif twin is not None and self.base.headers[twin].metadata != self.edited.headers[shard].metadata:
            self.say(shard, "the header's __metadata__ differs from the base's")
        for number, begin in self._gaps[shard].items():
            first = found.first_difference.get(number)
            if first is not None:
                self.say(
                    shard, f"bytes that belong to no tensor differ from the base's (first at byte {begin + first})"
                )
            elif parts[number].like is not None:
                self.bytes_compared += parts[number].size
        for info in self.edited.headers[shard].tensors:
            number = self._numbers[info.name]
            for file, problem, tensor in self.expected.tensor_problems(info):
                self.say(file, problem, tensor)
            self.problems += self._of_tensor.get(info.name, [])
            self._judge_tensor(info, number, parts[number], found)

    def _judge_tensor(self, info: TensorInfo, number: int, part: Part, found: Walked) -> None:
        bad, first = found.non_finite.get(number), found.first_difference.get(number)
        is_added = part.dtype is not None and info.name in self.expected.added
        if bad:
            self.say(info.shard, f"has {bad} NaN or infinite values", info.name)
        if first is not None:
            what = "is not what was to be added" if is_added else "differs from the base"
            self.say(info.shard, f"{what} (first at its byte {first})", info.name)
        elif found.problems:
            return
        elif is_added:
            of_another_kind = info.name in self.expected.additions and part.like is None
            self.tensors_added += not bad and not of_another_kind and info.name not in self.base.tensors
        elif part.like is not None:
            self.tensors_equal += 1
            self.bytes_compared += info.size

    def _header(self, shard: str, twin: str) -> None:
        before, after = self.base.headers[twin], self.edited.headers[shard]
        if before.metadata != after.metadata:
            self.say(shard, "the header's __metadata__ differs from the base's")
        names = [info.name for info in before.tensors], [info.name for info in after.tensors]
        if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
            self.say(shard, "the tensors are in another order than the base's")
        self.say(shard, "the header's bytes differ from the base's")

    def other_files(self, written: frozenset[str], changed_config: Collection[str]) -> frozenset[str]:
        """Check config, index and file names; returns the files that must equal the base's."""
        shards = {*self.base.shards, *self.edited.shards}
        there = set(self.base.files) - shards
        here = set(self.edited.files) - shards
        free = set(written)
        if self.expected.changes_index:
            free |= {name for name in (self.base.index_file, self.edited.index_file) if name is not None}
            if self.base.index_file is not None and self.edited.index_file is not None:
                self.problems += index_problems(self.base, self.edited)
        for name in sorted(there - here - free):
            self.say(name, "the file is missing from the edited checkpoint")
        for name in sorted(here - there - free):
            self.say(name, "the file is not in the base")
        if changed_config:
            free.add(CONFIG)
            self.problems += config_problems(self.base, self.edited, changed_config)
        return frozenset(here & there - free)

    def file_parts(self, name: str, compared: bool, base: Files, edited: Files) -> list[Part]:
        """The single part of a file that is no shard."""
        size = edited.size(name)
        if compared and base.size(name) != size:
            self.say(name, f"the content differs from the base's ({size} bytes, not {base.size(name)})")
            compared = False
        return [Part(size, (name, 0) if compared else None)]

    def judge_file(self, name: str, parts: list[Part], found: Walked) -> None:
        """Report the problems that the walk found in one file that is no shard."""
        for problem in found.problems:
            self.say(name, problem)
        if found.first_difference:
            self.say(name, "the content differs from the base's")
        elif parts[0].like is not None and not found.problems:
            self.files_equal += 1
            self.bytes_compared += parts[0].size

    def manifest(self, listed: Mapping[str, FileRecord], found: Mapping[str, Walked], edited: Files) -> None:
        """Check that the manifest lists exactly the folder's files, with digests and sizes."""
        for name in sorted(self.edited.files):
            walked = found.get(name)
            if name not in listed:
                self.say(name, "is not in the manifest")
            elif walked is not None and walked.sha256 is not None and walked.sha256 != listed[name].sha256:
                self.say(name, "does not match the manifest's SHA-256")
            elif walked is not None and walked.sha256 is not None and edited.size(name) != listed[name].size:
                self.say(name, f"has not the {listed[name].size} bytes that the manifest says")
        for name in sorted(listed.keys() - set(self.edited.files)):
            self.say(name, "is in the manifest but not in the folder")
