"""The recipe of the edit that a chat tries: `run` makes a checkpoint of it."""

from pathlib import Path
from typing import Any

import yaml

from weight_edit.chat.session import ChatSession
from weight_edit.checkpoint.whole_file import begins_with, check_free, save_whole
from weight_edit.directions.file import is_directions
from weight_edit.directions.recipe_entry import beside, fits_inline, recipe_entry
from weight_edit.edits.changes import BasisChange, RuntimeOnly
from weight_edit.errors import UnsupportedError, UsageError
from weight_edit.organism.embedded import EMBEDDED
from weight_edit.plan.plan import not_bakeable, plan_edit
from weight_edit.plan.step import EditStep
from weight_edit.recipe.recipe import MAIN, parse_recipe
from weight_edit.runtime.loading import Model

_FIRST = "# An edit tried in a chat: "
"""How such a recipe begins: what begins otherwise is not ours to replace."""


def save_edit(session: ChatSession, path: Path, *, overwrite: bool = False) -> list[Path]:
    """Write the recipe of the session's edit; gives the files that were written.

    The recipe holds the directions itself; where they are too many numbers, they are in a file beside it.

    Args:
        path: ends in .yaml or .yml.
        overwrite: replace files that are there.

    Raises:
        UsageError: there is no edit, the file has another ending, is there already, is none that a chat wrote or cannot
            be written, or the model is none that a recipe can name.
        UnsupportedError: no weights can make this edit.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise UsageError(f"{path}: a recipe's name ends in .yaml")
    edit = session.edit
    if edit is None:
        raise UsageError("there is no edit under trial that a recipe could make")
    recipe = _recipe(session)
    files = [path]
    check_free(path, overwrite, lambda file: begins_with(file, _FIRST))
    if not fits_inline(edit.directions):
        files.append(beside(path))
        check_free(beside(path), overwrite, is_directions)
    recipe["directions"] = {MAIN: recipe_entry(edit.directions, path)}
    parse_recipe(recipe, str(path), path.parent)
    text = yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
    save_whole(path, f"{_FIRST}{edit.described}.\n#\n#   weight-edit run {path.name}\n{text}")
    return files


def _recipe(session: ChatSession) -> dict[str, Any]:
    """The recipe without its directions: JSON values.

    Raises:
        UsageError, UnsupportedError: as `save_edit`.
    """
    edit, side = session.edit, session.sides[-1]
    step = None if edit is None else edit.step
    if edit is None or step is None:
        raise UsageError("the strength is 0, so there is no edit that a recipe could make")
    options = session.options
    said = {
        "system": options.system,
        "template": options.template,
        "template_args": dict(options.template_args),
        "thinking": options.thinking,
    }
    layers = None if step.layers is None else ",".join(map(str, sorted(step.layers)))
    kernel = None if step.kernel is None else step.kernel.model_dump()
    entry = {"layers": layers, "at": list(step.at), "kernel": kernel, "options": dict(step.options)}
    return {
        "title": f"{side.model.source.public_name}: {step.kind}, strength {step.strength:g}",
        **_named(side.model),
        "dtype": str(side.model.dtype).removeprefix("torch."),
        **{key: value for key, value in said.items() if value},
        "edit": {
            "kind": step.kind,
            "strength": step.strength,
            **{key: value for key, value in entry.items() if value},
            "embeddings": _embeddings(side.model, step),
        },
    }


def _named(model: Model) -> dict[str, Any]:
    """The keys of a recipe that name a model, from any folder."""
    source = model.source
    if source.in_memory:
        raise UsageError(f"{source.public_name} is in memory alone, so that no recipe can name it")
    if source.on_hub:
        return {"model": source.name, "revision": source.revision}
    return {"model": source.name if source.name in EMBEDDED else str(Path(source.name).expanduser().resolve())}


def _embeddings(model: Model, step: EditStep) -> str:
    """How a bake has to treat the embedding so that its weights do what the hooks did.

    Raises:
        UnsupportedError, UsageError: as `plan_edit`.
    """
    change = step.change
    if isinstance(change, RuntimeOnly):
        raise not_bakeable(step.kind, change)
    if isinstance(change, BasisChange):
        return "untie" if model.anatomy.tied else "both"
    try:
        plan_edit(model.anatomy, [step], model.parameter)
    except UnsupportedError as error:
        raise UnsupportedError(f"this edit can be tried, but not baked: {error}", option=error.options) from error
    return "both"
