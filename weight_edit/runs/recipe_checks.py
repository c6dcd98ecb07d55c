"""Checks of a recipe that need no torch, so that a typo is told at once."""

from collections.abc import Iterable, Iterator

from weight_edit.directions.names import check_method
from weight_edit.prompts.load import check_prompts
from weight_edit.recipe.recipe import Find, Recipe


def check_recipe(recipe: Recipe) -> None:
    """Refuse unknown methods and prompt sets that cannot exist.

    Raises:
        UsageError: naming the first.
    """
    for search in recipe.searches.values():
        check_method(search.method)
    for spec in _prompts(recipe):
        check_prompts(spec)


def _prompts(recipe: Recipe) -> Iterator[str]:
    for search in recipe.searches.values():
        yield from _searched(search)
    yield recipe.verify.prompts
    measured = recipe.evaluate
    sets = (measured.refused, measured.answered, measured.over_refused, measured.harmless_looking)
    yield from (spec for spec in sets if spec is not None)


def _searched(search: Find) -> Iterable[str]:
    for given in (search.target, search.baseline, search.protect, search.validation_target, search.validation_baseline):
        yield from [given] if isinstance(given, str) else given or []
