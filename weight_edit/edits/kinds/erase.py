"""LEACE over the whole stream: no linear classifier finds the concept any more."""

from typing import Literal

from weight_edit.edits.changes import Change, RuntimeOnly, StreamMap
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.registry import Given, edit
from weight_edit.errors import UsageError
from weight_edit.utils.settings import Section


class EraseOptions(Section):
    """Settings of the eraser.

    Attributes:
        enter: where the eraser's constant enters, see `AffineOptions`.
    """

    enter: Literal["found", "embedding"] = "found"


@edit("erase", paper="2306.03819")
def erase(given: Given, options: EraseOptions) -> Change:
    """Erase a concept linearly with the smallest change, `x -> x - L R^T (x - mean)` (LEACE).

    Needs directions of the method `leace`. The projection is oblique: what it takes off is along L, by what it finds
    along R. One eraser serves the whole stream, so that what R finds is the same constant from that layer on; the
    guarantee is that of the place where it was fitted.

    Raises:
        UsageError: the directions have no eraser beside them, one of another width, or do not say at which layer they
            were found.
    """
    left, right = given.need("left"), given.need("right")
    if left.ndim != 2 or left.shape != right.shape or left.shape[1] != given.rows.shape[1]:
        raise UsageError(
            f"`left` {left.shape} and `right` {right.shape} beside the directions are no eraser of a stream "
            f"{given.rows.shape[1]} wide; find the directions again, with the method leace"
        )
    eraser = LowRankMap(left.T, right.T)
    stream_map = LowRankMap(left.T, right.T, eraser.taken_off(given.vector("mean")))
    if given.at:
        return RuntimeOnly(
            given.at[0],
            "an affine map at one layer does not commute with the norms behind it",
            "`kind='erase'` without `at`: one eraser of the whole stream",
            stream_map.times(given.strength),
        )
    return StreamMap(stream_map, enters=given.layer_found if options.enter == "found" else 0)
