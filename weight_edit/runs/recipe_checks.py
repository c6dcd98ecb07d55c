"""Checks of a recipe that need no torch, so that a typo is told at once."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np

from weight_edit.directions.names import check_method
from weight_edit.edits.changes import RuntimeOnly
from weight_edit.edits.direction_rows import MADE_BY, DirectionRows, lacking
from weight_edit.edits.registry import Given, edit_named
from weight_edit.plan.plan import not_bakeable
from weight_edit.prompts.load import check_prompts
from weight_edit.recipe.recipe import MAIN, EditEntry, Find, Recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.pick import PickRule
from weight_edit.utils.arrays import Floats, as_float64
from weight_edit.utils.registry_listing import registered
from weight_edit.utils.settings import validated


def check_recipe(recipe: Recipe) -> None:
    """Refuse unknown methods, prompt sets that cannot exist, given directions that cannot be read, and as `check_edit`.

    Raises:
        UsageError, UnsupportedError: naming the first.
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
    check_edit(recipe, given_directions(recipe))


_WIDTH = 4
"""Of the stand-ins where the model's width is not known yet."""


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


def check_edit(recipe: Recipe, given: Mapping[str, DirectionRows], d_model: int = _WIDTH) -> None:
    """Refuse an edit that no weights can make, or whose directions will not have what it needs.

    Args:
        given: the directions that the recipe brings along, by name.

    Raises:
        UnsupportedError, UsageError: as `check_step`.
    """
    for step in recipe.edit.steps if recipe.edit else []:
        name = step.directions or MAIN
        search = recipe.searches.get(name)
        check_step(step, d_model, given=given.get(name), method=None if search is None else search.method)


def check_step(step: EditEntry, d_model: int, *, given: DirectionRows | None = None, method: str | None = None) -> None:
    """Refuse an edit that no weights can make, before hours of searching for its directions.

    Where they are not given, the edit is asked with stand-ins for what its directions will be: which kind of change it
    makes does not depend on their numbers.

    Args:
        given: the directions, where a recipe brings them along.
        method: by which they will be found, else.

    Raises:
        UnsupportedError: it acts at run time alone; names the nearest that can be baked.
        UsageError: an option that the kind does not have, or a tensor that it needs and that will not be there.
    """
    at = (0,) if step.at == "found" else tuple(step.at)
    if given is None:
        asked = Given(
            rows=np.eye(1, d_model),
            need=partial(_stand_in, kind=step.kind, d_model=d_model, method=method),
            at=at,
            layer=0,
            strength=step.strength,
        )
    else:
        layer = given.metadata.get("layer")
        asked = Given(
            rows=as_float64(given.rows),
            need=partial(given.need, edit=step.kind),
            at=at,
            layer=layer if isinstance(layer, int) and not isinstance(layer, bool) else None,
            strength=step.strength,
        )
    change = edit_named(step.kind)(asked, step.options)
    if isinstance(change, RuntimeOnly):
        raise not_bakeable(step.kind, change)


def _stand_in(name: str, *, kind: str, d_model: int, method: str | None) -> Floats:
    """What a tensor beside directions may be; methods that are not this package's own may write any.

    Raises:
        UsageError: the method writes none of that name.
    """
    if name in MADE_BY:
        if method in registered("directions/finders", "finder") and method != MADE_BY[name]:
            raise lacking(name, kind)
        return np.eye(1, d_model)
    scales = {"mean": 1, "baseline_mean": 2, "target_mean": 3}
    return scales.get(name, 1) * np.ones(d_model)
