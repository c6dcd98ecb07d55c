"""Activation addition: a constant vector enters the stream at chosen layers."""

from typing import Literal

import numpy as np

from weight_edit.edits.changes import Addition, Change
from weight_edit.edits.registry import Given, edit
from weight_edit.errors import UsageError
from weight_edit.utils.settings import Section


class AddOptions(Section):
    """Settings of the addition.

    Attributes:
        length: of the vector at strength 1: that of the "difference" of the class means, or "unit".
    """

    length: Literal["difference", "unit"] = "difference"


@edit("add", paper="2406.11717")
def add(given: Given, options: AddOptions) -> Change:
    """Add the direction at the input of a layer, `x -> x + s r`.

    Without layers, at the one where the direction was found. A negative strength takes it off. Baked as a bias of the
    last writer in front of that layer, or into the embedding's rows at layer 0.

    Raises:
        UsageError: no layer is named and none is known, there are several directions of unit length to add, or
            nothing is added.
    """
    layers = given.at or (() if given.layer is None else (given.layer,))
    if not layers:
        raise UsageError(
            "the directions do not say where they were found; name the layer to add at: `at=[12]`", option="at"
        )
    if options.length == "unit":
        if len(given.rows) != 1:
            raise UsageError(f"{len(given.rows)} directions have no common unit vector; use options.length=difference")
        vector = given.rows[0]
    else:
        try:
            vector = given.vector("vector")
        except UsageError as error:
            # Other tools' files have directions alone.
            raise UsageError(
                f"{error}; or give it length 1 times `strength`: `options: length=unit`", option=("strength", "options")
            ) from None
    if not np.any(given.strength * vector):
        raise UsageError("there is nothing to add: the strength or the vector is zero")
    return Addition({layer: np.asarray(given.strength * vector) for layer in layers})
