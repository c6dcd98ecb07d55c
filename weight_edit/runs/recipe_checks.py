"""Checks of a recipe that need no torch, so that a typo is told at once."""

from collections.abc import Iterable, Iterator

import numpy as np

from weight_edit.directions.names import check_method
from weight_edit.edits.changes import RuntimeOnly
from weight_edit.edits.registry import Given, edit_named
from weight_edit.plan.plan import not_bakeable
from weight_edit.prompts.load import check_prompts
from weight_edit.recipe.recipe import EditEntry, Find, Recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.pick import PickRule
from weight_edit.utils.settings import validated


def check_recipe(recipe: Recipe) -> None:
    """Refuse unknown methods, prompt sets that cannot exist, and given directions that cannot be read.

    Raises:
        UsageError: naming the first.
    """
    for search in recipe.searches.values():
        check_method(search.method)
    if recipe.search is not None:
        PickRule.parse(recipe.search.pick, over_refusal=recipe.search.over_refused is not None)
        validated(DescentOptions, recipe.search.descent, "search.descent")
        for name in recipe.search.finders:
            check_method(name)
    for spec in _prompts(recipe):
        check_prompts(spec)
    given_directions(recipe)


def _prompts(recipe: Recipe) -> Iterator[str]:
    for search in recipe.searches.values():
        yield from _searched(search)
    if recipe.search is not None and recipe.search.over_refused is not None:
        yield recipe.search.over_refused
    yield recipe.verify.prompts
    measured = recipe.evaluate
    sets = (measured.refused, measured.answered, measured.over_refused, measured.harmless_looking, measured.text)
    yield from (spec for spec in sets if spec is not None)


def _searched(search: Find) -> Iterable[str]:
    for given in (search.target, search.baseline, search.protect, search.validation_target, search.validation_baseline):
        yield from [given] if isinstance(given, str) else given or []


def check_step(step: EditEntry, d_model: int) -> None:
    """Refuse an edit that no weights can make, before hours of searching for its directions.

    The edit is asked with stand-ins for what its directions will be: which kind of change it makes does not depend on
    their numbers.

    Raises:
        UnsupportedError: it acts at run time alone; names the nearest that can be baked.
        UsageError: an option that the kind does not have.
    """
    row = np.eye(1, d_model)
    vectors = {name: scale * np.ones(d_model) for scale, name in enumerate(("mean", "baseline_mean", "target_mean"), 1)}
    given = Given(
        rows=row,
        need=lambda name: row if name in ("left", "right") else vectors.get(name, np.ones(d_model)),
        at=(0,) if step.at == "found" else tuple(step.at),
        layer=0,
        strength=step.strength,
    )
    change = edit_named(step.kind)(given, step.options)
    if isinstance(change, RuntimeOnly):
        raise not_bakeable(step.kind, change)
