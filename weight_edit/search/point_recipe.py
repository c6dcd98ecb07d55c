"""The recipe of a point: one small file that bakes the same edit, to the bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from weight_edit.checkpoint.whole_file import write_whole
from weight_edit.directions.recipe_entry import recipe_entry
from weight_edit.edits.direction_rows import DirectionRows
from weight_edit.edits.packed_directions import directions_in, packed_directions
from weight_edit.recipe.recipe import MAIN, EditSection
from weight_edit.search.point import Point

_KEPT = ("prompts", "revision", "refusal_tokens", "tokens_from", "papers")
"""Facts that are those of a point's directions, too, wherever these are from."""

OPTIMISED = ("descent", "further direction")
"""Origins of points whose directions are not a finder's own."""


def point_recipe(
    point: Point,
    sections: Mapping[str, Any],
    *,
    title: str = "",
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The recipe of a point: JSON values that `parse_recipe` takes.

    Args:
        point: the edit.
        sections: the recipe's other sections: the model, what is measured, bounds and so on. Of `edit` what is said of
            the edit as a whole is kept, such as `rounding`.
        title: of the recipe.
        facts: of the search for directions that came first, which manifest and card repeat: its prompts, and what tells
            that refusal is meant. What was said of its choice alone is left out.
    """
    known = {key: value for key, value in (facts or {}).items() if key in _KEPT}
    if point.origin in OPTIMISED:
        # What a gradient turned is no longer what the finder's paper describes.
        known.pop("papers", None)
    rows = DirectionRows(point.rows, {"method": f"search ({point.origin})" if point.origin else "search", **known})
    whole = {key: value for key, value in (sections.get("edit") or {}).items() if key in EditSection.of_the_whole()}
    edit: dict[str, Any] = {**whole, "kind": point.step.kind, "strength": 1.0, "embeddings": point.embeddings}
    strengths = {float(each) for each in point.strengths.vector}
    if len(strengths) == 1 and min(strengths) > 0:
        # Said so, an ablation of everything is known to leave nothing.
        edit["strength"] = strengths.pop()
    else:
        edit["kernel"] = point.strengths.kernels.model_dump()
    own = ("title", "find", "finds", "search", "studies", "directions", "edit")
    others = {key: value for key, value in sections.items() if key not in own}
    return {"title": title, **others, "directions": {MAIN: packed_directions(rows)}, "edit": edit}


def save_point(
    point: Point,
    path: Path,
    sections: Mapping[str, Any],
    *,
    title: str = "",
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write the recipe of a point; returns its path.

    Args:
        path: of the file, ending in .yaml; where the directions are too many numbers for it, they are beside it, in
            a file of the same name that ends in .safetensors.
        point, sections, title, facts: as in `point_recipe`.
    """
    recipe = point_recipe(point, sections, title=title, facts=facts)
    recipe["directions"] = {MAIN: recipe_entry(directions_in(recipe["directions"][MAIN]), path)}
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    write_whole(path, f"# The edit {point.digest}, found by a search.\n#\n#   weight-edit run {path.name}\n{text}")
    return path
