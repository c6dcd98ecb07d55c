"""The edit of a recipe by itself, such as of a point of a search: to be tried before anything is baked."""

from pathlib import Path

from weight_edit.errors import UsageError
from weight_edit.plan.step import EditStep
from weight_edit.recipe.recipe import MAIN, load_recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.studies.lab import edit_step


def recipe_edit(path: Path) -> EditStep:
    """The edit that a recipe makes of directions that it brings along.

    Raises:
        UsageError: as `load_recipe`; or its edit is none, several, or of directions that it would find first.
    """
    recipe = load_recipe(path)
    steps = [] if recipe.edit is None else recipe.edit.steps
    if len(steps) != 1:
        raise UsageError(f"{path} has {len(steps)} edits; one can be tried")
    given = given_directions(recipe)
    name = steps[0].directions or MAIN
    if name not in given:
        raise UsageError(f"{path} finds its directions when it is run; give one that has them, as a search's points")
    return edit_step(steps[0], given[name])
