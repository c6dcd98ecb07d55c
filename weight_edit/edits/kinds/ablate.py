"""Directional ablation: no writer writes along the directions any more."""

from weight_edit.edits.changes import Change, RuntimeOnly, StreamMap
from weight_edit.edits.projection import ablation
from weight_edit.edits.registry import Given, edit
from weight_edit.utils.settings import Section


class AblateOptions(Section):
    """No settings."""


@edit("ablate", paper="2406.11717")
def ablate(given: Given, options: AblateOptions) -> Change:
    """Remove the component along the directions, `x -> x - s V V^T x`.

    Several directions are removed together. With a direction of the method `false-refusal`, this is the edit of arXiv
    2410.03415; with one of `cleaned`, that of 2601.08489.
    """
    stream_map = ablation(given.rows)
    if given.at:
        return RuntimeOnly(
            given.at[0],
            "a projection at one layer does not commute with the norms behind it",
            "`kind='ablate'` without `at` (the whole stream), or `kind='reflect'` with `at` (which is exact at one "
            "layer)",
            stream_map.times(given.strength),
        )
    return StreamMap(stream_map)
