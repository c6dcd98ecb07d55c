"""The bundled recipes, by name."""

import difflib
import os
from pathlib import Path

from weight_edit.errors import UsageError

PUBLIC = "hub"
"""The overlay with public prompt sets, for models that are not embedded."""

OVERLAYS = (PUBLIC,)
"""Bundled files that are overlays for recipes."""


_SHOWN = 6
"""Files of a folder in a message."""


def recipe_folder() -> Path:
    """The folder of bundled recipes: inside the installed package, beside it in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def bundled_recipes() -> tuple[str, ...]:
    """The names of the bundled recipes, which `run` accepts in place of a file."""
    return tuple(sorted(path.stem for path in recipe_folder().glob("*.yaml") if path.stem not in OVERLAYS))


def recipe_file(name: str | Path, what: str = "recipe") -> Path:
    """The file of a recipe, by its path or a bundled name; a path wins.

    Args:
        what: "recipe" or "overlay", for the message.

    Raises:
        UsageError: neither, with the nearest of the bundled ones.
    """
    path = Path(name)
    if os.path.lexists(path) and not path.is_dir():
        return path
    known = OVERLAYS if what == "overlay" else bundled_recipes()
    if str(name) in (*bundled_recipes(), *OVERLAYS):
        return recipe_folder() / f"{name}.yaml"
    near = difflib.get_close_matches(path.stem, known, n=1, cutoff=0.5)
    if not near and (path.suffix in (".yaml", ".yml") or len(path.parts) > 1):
        there = sorted(each.name for each in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        more = " and others" if len(there) > _SHOWN else ""
        beside = f"; {path.parent} has {', '.join(there[:_SHOWN])}{more}" if there else ""
        raise UsageError(f"there is no {what} {name}{beside}")
    hint = f"did you mean '{near[0]}'? " if near else ""
    raise UsageError(f"there is no {what} {name}; {hint}bundled are {', '.join(known)}")
