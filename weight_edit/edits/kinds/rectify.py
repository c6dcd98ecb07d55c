"""One-sided ablation: only positive components are removed. Hooks can do it; weights cannot."""

from weight_edit.edits.changes import Change, RuntimeOnly
from weight_edit.edits.projection import ablation
from weight_edit.edits.registry import Given, edit
from weight_edit.errors import UsageError
from weight_edit.utils.settings import Section


class RectifyOptions(Section):
    """No settings."""


@edit("rectify")
def rectify(given: Given, options: RectifyOptions) -> Change:
    """Remove the component along each direction where it is positive, `x -> x - s V max(V^T x, 0)`; runtime only.

    Raises:
        UsageError: no layer is named and none is known.
    """
    layers = given.at or (() if given.layer is None else (given.layer,))
    if not layers:
        raise UsageError("the directions do not say where they were found; name the layer: `at=[12]`", option="at")
    return RuntimeOnly(
        layers[0],
        "what it does depends on the sign of the stream's component, which no linear map can see",
        "`kind='ablate'` (both signs), or `kind='affine'` (the component becomes the ordinary one)",
        ablation(given.rows, given.strength),
        rectified=True,
    )
