"""The verdict on two checkpoints: what is asked of their files, gathered for `verdict`."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from weight_edit.checkpoint.source.checkpoint import Checkpoint
from weight_edit.checkpoint.tensor.numbers import STORED
from weight_edit.difference.collecting import LONGEST, Changed, tensor_verdicts, vector_changes, with_eraser
from weight_edit.difference.model_parts import model_parts
from weight_edit.difference.pairs import Values
from weight_edit.difference.result import Reshaped, TensorDifference
from weight_edit.difference.verdict import Evidence, verdict
from weight_edit.difference.verdict_result import Verdict
from weight_edit.errors import WeightEditError
from weight_edit.hub.source import Source
from weight_edit.utils.progress import bar


def verdict_on(
    source: Source,
    sides: tuple[Checkpoint, Checkpoint],
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
    a, b = sides
    parts = model_parts(source, a)
    vectors = vector_changes(changed)
    with bar("judging", len(changed)) as progress:
        matrices = tensor_verdicts(
            changed, parts, width, shared=rows.T.astype(np.float64), vectors=vectors, advance=lambda: progress.advance()
        )
    matrices, eraser = with_eraser(matrices, changed)
    same = [tensor.name for tensor in tensors if tensor.problem == "the same numbers in other bytes"]
    unknown = [tensor.name for tensor in tensors if tensor.problem is not None and tensor.name not in same]
    return verdict(
        Evidence(
            matrices=matrices,
            vectors=vectors,
            new_vectors=_new_vectors(a, b),
            undecoded=unknown,
            resized=[each.name for each in reshaped],
            bytes_only=same,
            parts=parts,
            width=width,
            eraser=eraser,
        )
    )


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
