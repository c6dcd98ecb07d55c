"""Overlays: what is laid over a recipe, public prompt sets for a model that is not embedded among them."""

from collections.abc import Iterator, Mapping
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.recipe.bundled import PUBLIC, recipe_file
from weight_edit.recipe.file import content_of
from weight_edit.utils.progress import announce


def on_model(content: dict[str, Any], model: str) -> dict[str, Any]:
    """A recipe's content with public prompt sets in place of the embedded model's, for a model that is not embedded."""
    given = content.get("prompts")
    sets = given if isinstance(given, dict) else {}
    theirs = [name for name, spec in sets.items() if _is_embedded(spec)]
    if model in EMBEDDED or not theirs:
        return content
    overlay = content_of(recipe_file(PUBLIC, "overlay"))
    public = {name: spec for name, spec in overlay["prompts"].items() if name in theirs or name not in sets}
    replaced = ", ".join(name for name in theirs if name in public)
    announce(
        f"for {model} the overlay {PUBLIC} is laid over the recipe: public prompt sets in place of those of the "
        f"embedded model ({replaced}), no bounds on rates, and the nearest candidate where none keeps a search's bounds"
    )
    return _best_effort(laid_over(content, {**overlay, "prompts": public}, PUBLIC))


def _best_effort(content: dict[str, Any]) -> dict[str, Any]:
    """The content whose searches end with a direction, whatever bounds it misses: hours of measuring came before."""
    found = dict(content)
    if isinstance(content.get("find"), dict):
        found["find"] = {"best_effort": True, **content["find"]}
    if isinstance(content.get("finds"), dict):
        found["finds"] = {
            name: {"best_effort": True, **section} if isinstance(section, dict) else section
            for name, section in content["finds"].items()
        }
    return found


def check_model(content: Mapping[str, Any], model: str, recipe: str) -> None:
    """Refuse another model beside `model`, and prompts of the embedded model for another one.

    Raises:
        UsageError: naming the first.
    """
    if content.get("model") != model:
        raise UsageError(
            f"the model is given twice, as {model} and as {content.get('model')}; leave `overrides: model=` out",
            option="overrides",
        )
    left = [] if model in EMBEDDED else [where for where, spec in _entries(content) if _is_embedded(spec)]
    if left:
        more = f" (and {len(left) - 1} more entries)" if len(left) > 1 else ""
        raise UsageError(
            f"{recipe}: {left[0]}{more} is a prompt set of the embedded model, which says nothing of {model}; name "
            f"another (`overrides: {left[0]}=...`), or give the model as `overrides: model={model}`, which leaves "
            "prompts as they are",
            option="overrides",
        )


def _entries(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every single value with the key by which `overrides` reach it."""
    if isinstance(value, dict | list):
        below = value.items() if isinstance(value, dict) else enumerate(value)
        for key, entry in below:
            yield from _entries(entry, f"{where}.{key}" if where else str(key))
    else:
        yield where, value


def _is_embedded(spec: Any) -> bool:
    return isinstance(spec, str) and spec.startswith("organism:")


def laid_over(content: Mapping[str, Any], overlay: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Deep-merge the overlay of that name into `content`, and record it; the overlay wins."""
    merged = _merged(content, {key: value for key, value in overlay.items() if key != "overlays"})
    earlier = merged.get("overlays")
    merged["overlays"] = list(dict.fromkeys([*(earlier if isinstance(earlier, list) else ()), name]))
    return merged


def _merged(content: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(content)
    for key, value in overlay.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
