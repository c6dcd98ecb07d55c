"""The recipe that repeats what a verdict found."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from weight_edit.difference.beside import added_vector
from weight_edit.difference.evidence import Evidence
from weight_edit.difference.found_recipe import Place, addition, along_directions, at_a_layer, erasure
from weight_edit.difference.operator_names import AT_A_LAYER
from weight_edit.difference.sharing import Shared, behind_norm
from weight_edit.difference.tensor_verdict import TensorVerdict
from weight_edit.difference.verdict_result import EditedWriter


def recipe_of(
    given: Evidence,
    name: str,
    edited: Sequence[TensorVerdict],
    writers: Sequence[EditedWriter],
    shared: Shared,
) -> dict[str, Any] | None:
    """The edit as a recipe's sections; None where none of ours is that edit."""
    if any(each.part is None or each.part.side != each.side for each in edited):
        return None
    if name == AT_A_LAYER:
        turned = [each.part.layer for each in edited if each.part is not None and each.part.layer is not None]
        return at_a_layer(shared.rows, min(turned)) if len(shared.rows) and turned else None
    if given.eraser is not None:
        return erasure(*given.eraser)
    if name == "oblique erasure":
        return None
    operators = {writer.operator for writer in writers}
    if operators == {"addition"}:
        fit = edited[0].edit
        vector = None if fit is None else fit.rule.facts.get("constant")
        return addition(vector, 0) if isinstance(vector, np.ndarray) else None
    if len(operators) > 1 or any(each.part is None or not each.part.writes for each in edited):
        return None
    places = []
    for writer, each in zip(writers, edited, strict=True):
        if writer.strength is None:
            return None
        rows = behind_norm(each, writer.rows)
        places.append(Place(writer.role, writer.layer, writer.strength, rows))
    # What did not allow for the norms behind writers is another direction of the stream for each of them.
    gained = any(each.part is not None and each.part.gains is not None for each in edited)
    common = shared.rows if shared.through_norms or not gained else shared.rows[:0]
    return along_directions(writers[0].operator, places, common, given.parts.layers)


def addition_at(given: Evidence, constants: Sequence[str]) -> dict[str, Any] | None:
    """The recipe of a bias that adds one vector: behind the last writer of a block, for the next one's input."""
    weight = constants[0].removesuffix(".bias") + ".weight"
    part = given.parts.parts.get(weight)
    if len(constants) != 1 or part is None or part.layer is None or part.role != "mlp" or part.gains is not None:
        return None
    return addition(added_vector(given, constants[0]), part.layer + 1)
