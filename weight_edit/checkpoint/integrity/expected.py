"""The expected headers of an edited checkpoint: tensors, dtypes, shapes and shards."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from weight_edit.checkpoint.files import printable
from weight_edit.checkpoint.rewrite.planning import AddedTensor
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.edited import TensorWriter
from weight_edit.checkpoint.tensor.header import TensorInfo

Problem = tuple[str, str, str | None]
"""(file, message, tensor); the tensor is None for a problem of the file."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The expected tensors of an edited checkpoint, from the base's and the edits.

    Attributes:
        base, edited: the two.
        targets: tensor that an edit writes -> the edit.
        gone: tensors of the base that an edit reads and none writes.
        relaid_tensors: tensors that an edit writes where the base has none, or another dtype or shape.
        added: tensors that only the edited side has.
        additions: what those of them must be of which that is known.
        twins: shard of the edited side -> the base's whose layout it must have.
    """

    base: Checkpoint
    edited: Checkpoint
    targets: Mapping[str, TensorWriter]
    gone: frozenset[str]
    relaid_tensors: frozenset[str]
    added: frozenset[str]
    additions: Mapping[str, AddedTensor]
    twins: Mapping[str, str]

    @classmethod
    def of(
        cls,
        base: Checkpoint,
        edited: Checkpoint,
        edits: Collection[TensorWriter],
        additions: Collection[str] | Mapping[str, AddedTensor],
    ) -> "Expected":
        """The expectation for a base with these edits and added tensors."""
        added = frozenset(additions)
        targets = {part: edit for edit in edits for part in edit.target.parts}
        # What an added tensor is made from stays.
        replacing = [edit for edit in edits if not edit.target.parts.keys() <= added]
        kept = targets.keys() | {part for edit in replacing for part in edit.target.aside}
        gone = {part for edit in replacing for part in edit.source.reads} - kept
        relaid = set()
        for name, edit in targets.items():
            before = base.tensors.get(name)
            if name not in added and (before is None or (before.dtype, before.shape) != edit.target.parts[name]):
                relaid.add(name)
        # A tensor that is edited as it is and not there is a mistake of the call, not a new tensor.
        relaid -= {name for name, edit in targets.items() if name in edit.source.parts and name not in base.tensors}
        new = added | {name for name in relaid if name not in base.tensors}
        twins = _twins(base, edited, frozenset(new))
        known = additions if isinstance(additions, Mapping) else {}
        return cls(
            base=base,
            edited=edited,
            targets=targets,
            gone=frozenset(gone),
            relaid_tensors=frozenset(relaid),
            added=added,
            additions=known,
            twins=twins,
        )

    @property
    def changes_index(self) -> bool:
        """Whether the list of tensors differs from the base's."""
        return bool(self.added or self.gone or self.relaid_tensors)

    def relaid(self, shard: str) -> bool:
        """Whether the edits change a shard's tensors, so that its header must differ."""
        here = {info.name for info in self.edited.headers[shard].tensors}
        there = {info.name for info in self.base.headers[self.twins[shard]].tensors}
        return bool((here | there) & self.relaid_tensors or there & self.gone)

    def edit_of(self, info: TensorInfo) -> TensorWriter | None:
        """The edit to check a tensor against; None if there is none or its inputs are missing."""
        edit = self.targets.get(info.name)
        if edit is None or not all(name in self.base.tensors for name in edit.source.reads):
            return None
        for name, (dtype, shape) in edit.target.reads.items():
            there = self.edited.tensors.get(name)
            if there is None or (there.dtype, there.shape) != (dtype, tuple(shape)):
                return None
        return edit

    def added_bytes(self, info: TensorInfo) -> tuple[str, int] | bytes | None:
        """The expected content of an added tensor: bytes, or (file, offset) in the base.

        None if it is not known.
        """
        new = self.additions.get(info.name)
        if new is None or (info.dtype, info.shape) != (new.dtype, tuple(new.shape)):
            return None
        if isinstance(new.content, bytes):
            return new.content if len(new.content) == info.size else None
        copied = self.base.tensors.get(new.content) if isinstance(new.content, str) else None
        return (copied.shard, copied.begin) if copied is not None and copied.size == info.size else None

    def problems(self) -> Iterator[Problem]:
        """Missing and surplus tensors and shards."""
        base, edited = self.base.tensors, self.edited.tensors
        anywhere = self.base.index_file or self.base.shards[0], self.edited.index_file or self.edited.shards[0]
        for name, info in base.items():
            if name in self.gone and name in edited:
                yield edited[name].shard, "is there, though an edit puts another tensor in its place", name
            elif name not in self.gone and name not in edited:
                yield info.shard, "is missing from the edited checkpoint", name
        for name, info in edited.items():
            if name not in base and name not in self.added and name not in self.relaid_tensors:
                yield info.shard, "is not in the base", name
        sources = {part for edit in self.targets.values() for part in edit.source.reads}
        for name in sorted(sources - base.keys()):
            yield anywhere[0], "is listed as edited but not in the base", name
        for name in sorted(self.relaid_tensors - edited.keys() - base.keys()):
            yield anywhere[1], "is missing, though an edit writes it", name
        for name in sorted(self.added):
            if name not in edited:
                yield anywhere[1], "is listed as added but missing", name
            elif name in base:
                yield edited[name].shard, "is listed as added but in the base too", name
        for shard in self.base.shards:
            if shard not in self.twins.values() and not self._only(self.base, shard, self.gone):
                yield shard, "the shard is missing from the edited checkpoint", None
        for shard in self.edited.shards:
            if shard not in self.twins and not self._only(self.edited, shard, self.added | self.relaid_tensors):
                yield shard, "the shard is not in the base", None

    def tensor_problems(self, info: TensorInfo) -> Iterator[Problem]:
        """Problems of one tensor's dtype, shape or place."""
        before = self.base.tensors.get(info.name)
        edit = self.targets.get(info.name)
        if info.name in self.relaid_tensors and edit is not None:
            whose, (dtype, shape) = "edit's", edit.target.parts[info.name]
        elif info.name in self.additions:
            whose, dtype, shape = "added tensor's", self.additions[info.name].dtype, self.additions[info.name].shape
        elif before is not None and info.name not in self.added:
            whose, dtype, shape = "base's", before.dtype, before.shape
            if self.twins.get(info.shard) != before.shard:
                yield info.shard, f"was in {printable(before.shard)} in the base", info.name
        else:
            return
        if info.dtype != dtype:
            yield info.shard, f"the dtype is {info.dtype}, the {whose} {dtype}", info.name
        if info.shape != tuple(shape):
            yield info.shard, f"the shape is {list(info.shape)}, the {whose} {list(shape)}", info.name

    @staticmethod
    def _only(side: Checkpoint, shard: str, names: frozenset[str]) -> bool:
        tensors = side.headers[shard].tensors
        return bool(tensors) and all(info.name in names for info in tensors)


def _twins(base: Checkpoint, edited: Checkpoint, new: frozenset[str]) -> Mapping[str, str]:
    """Shard of the edited side -> the base's shard that corresponds to it.

    They have the same name, except where a single-file base became sharded because tensors were added.
    """
    if base.index_file is None and edited.index_file is not None and new:
        own = [s for s in edited.shards if any(info.name not in new for info in edited.headers[s].tensors)]
        return {own[0]: base.shards[0]} if len(own) == 1 else {}
    return {shard: shard for shard in edited.shards if shard in base.headers}
