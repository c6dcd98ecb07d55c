"""Names for prompt sets within a recipe: "@name" stands for one of its `prompts`."""

from collections.abc import Mapping
from typing import Any

from weight_edit.errors import UsageError


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
