"""Affine concept editing: the component along the directions becomes a class's mean."""

from typing import Literal

from weight_edit.edits.changes import Change, RuntimeOnly, StreamMap
from weight_edit.edits.low_rank import LowRankMap
from weight_edit.edits.projection import ablation
from weight_edit.edits.registry import Given, edit
from weight_edit.utils.settings import Section


class AffineOptions(Section):
    """Settings of affine concept editing.

    Attributes:
        enter: where the mean enters: at the input of the layer where it was "found", so that before it the component is
            zero; or with the "embedding", so that it is the same everywhere: a mean taken deep in a model is long
            beside the stream at its beginning.
        toward: the class whose mean component is set: "baseline" removes the behaviour, "target" brings it about.
        shift: how much of the difference of the class means is added along the directions besides: the paper's alpha.
    """

    enter: Literal["found", "embedding"] = "found"
    toward: Literal["baseline", "target"] = "baseline"
    shift: float = 0.0


@edit("affine", paper="2411.09003")
def affine(given: Given, options: AffineOptions) -> Change:
    """Set the component along the directions to a class's mean, `x -> x - V V^T x + V V^T m + a r`.

    Zero, which is what an ablation sets, need not be what ordinary prompts have along the directions; their mean is.
    The means are those of the place where the directions were found. The constant lies in the directions' span, to
    which nothing else is written any more: it enters once, and is the same at every layer from there on.

    Raises:
        UsageError: it is not known at which layer the directions were found.
    """
    projection = ablation(given.rows)
    mean = given.vector(f"{options.toward}_mean")
    if options.shift:
        mean = mean + options.shift * (given.vector("target_mean") - given.vector("baseline_mean"))
    stream_map = LowRankMap(projection.left, projection.right, projection.taken_off(mean))
    if given.at:
        return RuntimeOnly(
            given.at[0],
            "an affine map at one layer does not commute with the norms behind it",
            "`kind='affine'` without `at`: one affine map of the whole stream",
            stream_map.times(given.strength),
        )
    return StreamMap(stream_map, enters=given.layer_found if options.enter == "found" else 0)
