"""Options that say the same by other names in other verbs: what is suggested where a verb does not have one."""

from collections.abc import Collection, Mapping

ALIKE: tuple[tuple[str, ...], ...] = (
    ("--limit", "--n-train", "--n-validation", "--n-evaluate", "--n-prompts"),
    ("--target", "--refused", "--prompts"),
    ("--baseline", "--answered", "--prompts"),
    ("--against", "--base"),
    ("--out", "--save", "--save-chat", "--folder", "--output", "-o"),
    ("--overwrite", "--force", "-f"),
    ("--layers", "--at", "--layer"),
)
"""Rows of options that say the same; some of them are other tools' alone."""


def unknown_option(option: str, known: Collection[str], arguments: Mapping[str, str]) -> str:
    """The message about an option that a verb does not have, with what may be meant.

    Args:
        option: as it was given.
        known: the verb's options.
        arguments: the verb's arguments, which have no option: name -> what help calls it.
    """
    said = f"no such option: {option}"
    name = option.lstrip("-").replace("-", "_")
    if name in arguments:
        return f"{said}; {arguments[name]} stands by itself, without an option"
    meant = [each for row in ALIKE if option in row for each in row if each in known]
    meant = list(dict.fromkeys(meant)) or _keys_of_recipe(name, known) or _looking_like(option, known)
    words = ", ".join(meant[:-1]) + (" or " if meant[:-1] else "") + "".join(meant[-1:])
    return f"{said}; did you mean {words}?" if words else said


def _keys_of_recipe(name: str, known: Collection[str]) -> list[str]:
    """The keys by which a recipe says what other verbs have an option for, of a verb that takes keys."""
    if "--set" not in known:
        return []
    from weight_edit.recipe.recipe import Recipe
    from weight_edit.utils.settings import keys_named

    return [f"`--set {key}=...`" for key in keys_named(Recipe, name)]


def _looking_like(option: str, known: Collection[str]) -> list[str]:
    from weight_edit.utils.names import nearest

    # The dashes that all have in common make none alike.
    names = {each.lstrip("-"): each for each in known}
    return [names[each] for each in nearest(option.lstrip("-"), names, 3)]
