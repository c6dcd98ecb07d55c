"""The verdict on two checkpoints: what is asked of their files, gathered for `verdict`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.files import CHUNK
from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.source.reading import Files
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.difference.collecting import LONGEST, Changed, tensor_verdicts, vector_changes, with_eraser
from weight_edit.difference.evidence import Evidence
from weight_edit.difference.model_parts import ModelParts, model_parts
from weight_edit.difference.numbers import change_of
from weight_edit.difference.pairs import Pair, Values, first_rows
from weight_edit.difference.result import Reshaped, TensorDifference
from weight_edit.difference.verdict import verdict
from weight_edit.difference.verdict_result import Verdict
from weight_edit.errors import WeightEditError
from weight_edit.hub.source import Source
from weight_edit.utils.progress import bar

_VOCABULARY = re.compile(r"(^|[._])(embed\w*|wte|word_embeddings|lm_head|token_embd|output|unembed\w*)\.weight$")
"""Names of embeddings and unembeddings where the anatomy is not known."""


def verdict_on(
    source: Source,
    sides: tuple[Files, Files],
    changed: Sequence[Changed],
    *,
    width: int | None,
    rows: NDArray[np.float32],
    tensors: Sequence[TensorDifference],
    reshaped: Sequence[Reshaped],
) -> Verdict:
    """What B was made with.

    Args:
        source: of A.
        sides: A and B, open.
        changed: differing tensors whose numbers are known.
        width: of the stream.
        rows: (k, d) the directions that the differences share.
        tensors, reshaped: all that differs.
    """
    a, b = sides[0].checkpoint, sides[1].checkpoint
    parts = model_parts(source, a)
    common = _common_rows(sides, parts, width, reshaped)
    changed = [*changed, *common.changed]
    vectors = vector_changes(changed)
    with bar("judging", len(changed)) as progress:
        matrices = tensor_verdicts(
            changed, parts, width, shared=rows.T.astype(np.float64), vectors=vectors, advance=lambda: progress.advance()
        )
    found = with_eraser(matrices, changed)
    same = [tensor.name for tensor in tensors if tensor.problem == "the same numbers in other bytes"]
    looked_at = {*(each.name for each in matrices), *vectors, *same}
    names = [tensor.name for tensor in tensors] + list(common.vocabulary)
    new = _new_vectors(a, b)
    copied = list(_copies(sides, parts))
    added = [name for name in b.tensors if name not in a.tensors and name not in new and name not in copied]
    return verdict(
        Evidence(
            matrices=found.verdicts,
            vectors=vectors,
            new_vectors=new,
            added=added,
            missing=[name for name in a.tensors if name not in b.tensors and name not in copied],
            copied=copied,
            unread=[name for name in names if name not in looked_at and name not in common.equal],
            resized=[each.name for each in reshaped if each.name not in common.vocabulary],
            vocabulary=common.vocabulary,
            bytes_only=same,
            parts=parts,
            width=width,
            eraser=found.eraser,
            notes=() if found.note is None else (found.note,),
        )
    )


@dataclass(frozen=True, eq=False)
class _Common:
    """Embeddings of another number of rows: all, those whose common rows differ, and those whose are the same."""

    vocabulary: tuple[str, ...]
    changed: tuple[Changed, ...]
    equal: tuple[str, ...]


def _common_rows(
    sides: tuple[Files, Files], parts: ModelParts, width: int | None, reshaped: Sequence[Reshaped]
) -> _Common:
    """The rows that embeddings of both models have, compared."""
    vocabulary, changed, equal = [], [], []
    for each in reshaped:
        shapes = each.shapes
        if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1] or shapes[0][0] == shapes[1][0]:
            continue
        part = parts.parts.get(each.name)
        if not (part.role in ("embedding", "unembedding") if part is not None else _VOCABULARY.search(each.name)):
            continue
        rows = min(shape[0] for shape in shapes)
        ours, theirs = (first_rows(side.checkpoint, each.name, rows) for side in sides)
        if ours is None or theirs is None:
            continue
        pair = Pair(name=each.name, a=ours, b=theirs, read_a=sides[0].tensor, read_b=sides[1].tensor)
        change = change_of(pair, width)
        if change is None or (change.finite and not change.entries):
            equal.append(each.name)
        elif change.finite:
            changed.append(Changed(pair, change))
        vocabulary.append(each.name)
    return _Common(tuple(vocabulary), tuple(changed), tuple(equal))


def _copies(sides: tuple[Files, Files], parts: ModelParts) -> Iterator[str]:
    """The unembedding, where one of the two alone stores it and it is the embedding of either."""
    name = parts.unembedding
    embedding = parts.embedding
    for storing, other in (sides, sides[::-1]):
        held = storing.checkpoint.tensors
        for alone in sorted(held.keys() - other.checkpoint.tensors.keys()):
            if alone != name and alone != "lm_head.weight":
                continue
            if embedding is not None and any(_same(storing, alone, side, embedding) for side in sides):
                yield alone


def _same(one: Files, name: str, other: Files, embedding: str) -> bool:
    if embedding not in other.checkpoint.tensors:
        return False
    ours, theirs = one.checkpoint.tensors[name], other.checkpoint.tensors[embedding]
    if (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
        return False
    for begin in range(0, ours.size, CHUNK):
        left, right = (np.empty(min(CHUNK, ours.size - begin), np.uint8) for _ in range(2))
        one.tensor(name, begin, left)
        other.tensor(embedding, begin, right)
        if not np.array_equal(left, right):
            return False
    return True


def _new_vectors(a: Checkpoint, b: Checkpoint) -> Mapping[str, Values]:
    """Vectors that only B has."""
    found = {}
    for name in sorted(b.tensors.keys() - a.tensors.keys()):
        info = b.tensors[name]
        if len(info.shape) == 1 and 0 < info.shape[0] <= LONGEST and info.dtype in STORED:
            try:
                found[name] = np.asarray(b.values(name), np.float64)
            except WeightEditError:
                continue
    return found
