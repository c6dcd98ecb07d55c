"""The recipe of a point: one file of a few kilobytes that makes the edit again, to the bit."""

from collections.abc import Mapping
from typing import Any

import yaml

from weight_edit.edits.packed_rows import packed
from weight_edit.search.point import Point


def point_recipe(point: Point, recipe: Mapping[str, Any]) -> str:
    """A recipe in YAML that bakes a point; its directions are in it.

    Args:
        recipe: what else it says, such as `model`, `verify` and `evaluate`; sections that look for an edit are left
            out.
    """
    sought = ("find", "finds", "search", "studies", "directions", "edit")
    content = {
        "title": f"{recipe.get('title') or 'search'}: point {point.digest}",
        **{key: value for key, value in recipe.items() if key not in (*sought, "title")},
        "directions": {"main": packed(point.rows)},
        "edit": {
            "kind": point.step.kind,
            "kernel": point.strengths.kernels.model_dump(),
            "embeddings": point.embeddings,
        },
    }
    return yaml.safe_dump(content, sort_keys=False, width=120)
