"""Norm-preserving ablation: each column of a writer's matrix keeps its length."""

from weight_edit.edits.changes import Change, StreamMap
from weight_edit.edits.projection import ablation
from weight_edit.edits.registry import Given, edit
from weight_edit.errors import UsageError
from weight_edit.utils.settings import Section


class NormPreservingOptions(Section):
    """No settings."""


@edit("norm-preserving")
def norm_preserving(given: Given, options: NormPreservingOptions) -> Change:
    """Ablate, then restore each writer column's length (jim-plus/llm-abliteration).

    The lengths are those of the vectors that are added to the stream, one per input of a writer: rescaling them leaves
    nothing along the directions. To rescale rows, or the whole matrix, as is done elsewhere, puts part of it back.
    Biases are ablated as they are. The "biprojected" variant is this edit with a direction of `mean-difference` with
    `clip: 0.995` and `off_baseline: true`.

    Raises:
        UsageError: at a layer: it is an edit of weights, not of the stream.
    """
    if given.at:
        raise UsageError(
            "norm-preserving ablation is an edit of weights, so there is nothing to do `at` a layer of the stream",
            option="at",
        )
    return StreamMap(ablation(given.rows), keep_norms=True)
