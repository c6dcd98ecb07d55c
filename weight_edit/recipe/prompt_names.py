"""Names for prompt sets within a recipe: "@name" stands for one of its `prompts`."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.recipe.bundled import PUBLIC, recipe_file
from weight_edit.recipe.file import content_of
from weight_edit.utils.names import nearest


def with_named_sets(value: Any, sets: Mapping[Any, Any], recipe: str) -> Any:
    """The content with every "@name" replaced by the prompt set of that name.

    Args:
        sets: prompt sets by name; they may stand for one another.
        recipe: its name, for messages.

    Raises:
        UsageError: a name that is not among the sets, or that stands for itself.
    """
    if isinstance(value, str) and value.startswith("@"):
        return _set_named(value, sets, recipe)
    if isinstance(value, dict):
        return {key: with_named_sets(entry, sets, recipe) for key, entry in value.items()}
    return [with_named_sets(entry, sets, recipe) for entry in value] if isinstance(value, list) else value


def _set_named(reference: str, sets: Mapping[Any, Any], recipe: str) -> Any:
    passed = [reference]
    while isinstance(reference, str) and reference.startswith("@"):
        if reference[1:] not in sets:
            known = ", ".join(map(str, sets)) or "none"
            raise UsageError(f"{recipe}: '{reference}' is not among 'prompts', which are {known}")
        reference = sets[reference[1:]]
        if reference in passed:
            raise UsageError(f"{recipe}: {' -> '.join([*passed, reference])} stands for itself; name a prompt set")
        passed.append(reference)
    return reference


def names_asked(content: Mapping[str, Any]) -> set[str]:
    """The names of `prompts` for which the other sections of a recipe ask, those that stand for one another among them.

    It is empty for the recipe in a run's folder, where the sets stand in the place of their names.
    """
    sets = names_given(content)
    asked = {name for key, value in content.items() if key != "prompts" for name in _names_in(value)}
    through = list(asked)
    while through:
        further = set(_names_in(sets.get(through.pop()))) - asked
        asked |= further
        through += further
    return asked


def names_given(content: Mapping[str, Any]) -> Mapping[Any, Any]:
    """The `prompts` of a recipe's content, by name; empty where they are none."""
    given = content.get("prompts")
    return given if isinstance(given, dict) else {}


def check_names_asked(names: Iterable[Any], asked: Collection[str], where: str) -> None:
    """Refuse a name of a prompt set, written in a file, for which nothing asks: a misspelt one changes nothing.

    The names that all recipes share may stand there all the same, so that one overlay does for any of them, and so may
    every name where nothing asks by name at all.

    Args:
        names: of the file's `prompts`.
        asked: those for which the whole recipe asks.
        where: the file, for the message.

    Raises:
        UsageError: naming the first, and the nearest that is asked for.
    """
    left = [str(name) for name in names if name not in asked]
    if asked and left:
        shared = names_given(content_of(recipe_file(PUBLIC, "overlay")))
        unknown = next((name for name in left if name not in shared), None)
        if unknown is not None:
            raise UsageError(f"{where}: {_not_asked(unknown, asked)}")


def check_names_overridden(override: str, asked: Collection[str]) -> None:
    """Refuse an override, "prompts.NAME=...", of a name for which the recipe does not ask.

    Args:
        asked: those for which the recipe asks, with everything laid over it, and all its overrides.

    Raises:
        UsageError: naming the nearest that is asked for.
    """
    key = override.partition("=")[0]
    section, _, name = key.partition(".")
    if section == "prompts" and name and name not in asked:
        raise UsageError(f"`overrides: {override}`: {_not_asked(name, asked)}", option="overrides")


def _not_asked(name: str, asked: Collection[str]) -> str:
    if not asked:
        return (
            f"nothing in the recipe asks for a prompt set by name, so that 'prompts.{name}' would change nothing; set "
            "the entry itself, such as find.target or evaluate.refused"
        )
    near = nearest(name, sorted(asked))
    listed = ", ".join(sorted(asked))
    hint = f"did you mean 'prompts.{near[0]}'? (it asks for {listed})" if near else f"it asks for {listed}"
    return f"nothing in the recipe asks for 'prompts.{name}'; {hint}"


def _names_in(value: Any) -> Iterator[str]:
    """The names after "@" in a value, at any depth."""
    if isinstance(value, str):
        if value.startswith("@"):
            yield value[1:]
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _names_in(entry)
