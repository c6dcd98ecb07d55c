"""The counterfactual flip: the component along the directions changes its sign."""

from weight_edit.edits.changes import BasisChange, Change, StreamMap
from weight_edit.edits.projection import ablation
from weight_edit.edits.registry import Given, edit
from weight_edit.errors import UsageError
from weight_edit.utils.settings import Section


class ReflectOptions(Section):
    """No settings."""


@edit("reflect", paper="2606.13720")
def reflect(given: Given, options: ReflectOptions) -> Change:
    """Reflect the component along the directions, `x -> x - 2 V V^T x`.

    Without a layer, every writer is reflected, so that the stream has the opposite component everywhere. At a layer,
    the stream is reflected once, at its input, which is exact by a change of basis of all that follows.

    Raises:
        UsageError: at several layers, or with a strength at one layer: only a full reflection keeps lengths.
    """
    if not given.at:
        return StreamMap(ablation(given.rows, 2.0))
    if len(given.at) > 1:
        raise UsageError("a reflection is at one layer; list several edits to reflect again at another")
    if given.strength != 1.0:
        raise UsageError(
            f"a reflection at one layer has strength 1, not {given.strength:g}: only then norms do not notice it; "
            "leave `at` out to reflect all writers by a part",
            option="at",
        )
    return BasisChange(given.at[0], ablation(given.rows, 2.0))
