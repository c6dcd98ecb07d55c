"""The edited model of a project: what it was made of, and whether that is what is chosen now."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from weight_edit.errors import WeightEditError
from weight_edit.recipe.file import content_of
from weight_edit.ui.commands import argument_of, option_of, shown_path
from weight_edit.ui.jobs import Job
from weight_edit.ui.markup import facts, paragraph
from weight_edit.ui.opened_run import is_searched, read_recipe, settings_of
from weight_edit.ui.project import Project


@dataclass(frozen=True, kw_only=True)
class Baked:
    """An edited model.

    Attributes:
        path: its folder.
        by: the job that wrote it, or that it is of the run that was opened.
        made_of: what decides its weights, by names as they are shown; what is not known is left out.
    """

    path: Path
    by: str
    made_of: Mapping[str, str]


def baked_model(project: Project) -> Baked | None:
    """The edited model that is verified, talked to and pushed; None where there is none."""
    path, job = project.edited, project.baked_by
    if path is None:
        return None
    if job is not None:
        return Baked(path=path, by=job.name, made_of=_of_job(project, job))
    recipe = {} if project.opened is None else read_recipe(project.opened) or {}
    made_of = {"base": settings_of(recipe).model}
    found, entry = project.found, recipe.get("edit")
    if is_searched(recipe):
        made_of["file"] = "a point that its search picked"
    elif found is not None and found.of_run:
        made_of |= {"file": shown_path(found.out), **_edit(entry if isinstance(entry, dict) else {})}
    return Baked(path=path, by="the run that was opened", made_of=made_of)


def chosen_edit(project: Project) -> Mapping[str, str]:
    """What would be baked now, named as in `Baked.made_of`; empty where nothing can be."""
    settings = project.settings
    if settings.way == "search":
        if project.point is None:
            return {"base": settings.model}
        strength = f"{settings.strength:g}"
        return {"base": settings.model, "file": shown_path(project.point), "strength": strength}
    if project.directions is None:
        return {"base": settings.model}
    edit = _edit({"kind": settings.kind, "strength": settings.strength, "layers": settings.layers})
    return {"base": settings.model, "file": shown_path(project.directions), **edit}


def which_model(project: Project, purpose: str) -> str:
    """HTML of which edited model a step takes, and whether another edit is chosen now; empty where there is none.

    Args:
        purpose: what the step does with it, such as "pushed".
    """
    baked = baked_model(project)
    if baked is None:
        return ""
    shown = facts({f"what is {purpose}": shown_path(baked.path), "made by": baked.by, **baked.made_of})
    now = chosen_edit(project)
    others = [name for name in now if baked.made_of.get(name, now[name]) != now[name]]
    if not others:
        return shown
    told = "; ".join(f"{name} is {now[name]} now, and {baked.made_of[name]} in this model" for name in others)
    said = (
        f"This is not what is chosen now: {told}. Bake what is chosen (step 7), or this model is what is {purpose} all "
        "the same."
    )
    return shown + paragraph(said, "bad")


def _of_job(project: Project, job: Job) -> Mapping[str, str]:
    """What the words of a job, or the recipe that was written for it, say of its edit."""
    if job.verb == "bake":
        given = {name: option_of(job.words, name) for name in ("kind", "strength", "layers")}
        named = {"base": argument_of(job.words), "file": option_of(job.words, "directions")}
        return {**{name: value for name, value in named.items() if value}, **_edit(given)}
    name = argument_of(job.words)
    try:
        recipe = content_of(Path(name))
    except (WeightEditError, OSError):
        return {"file": name} if option_of(job.words, "with") else {}
    base = {"base": str(recipe.get("model"))}
    if option_of(job.words, "with"):
        return {**base, "file": name, "strength": _strength_of(Path(option_of(job.words, "with")))}
    entry, directions = recipe.get("edit"), recipe.get("directions")
    file = directions.get("main") if isinstance(directions, dict) else None
    named = {"file": shown_path(project.folder / file)} if isinstance(file, str) else {}
    return {**base, **named, **_edit(entry if isinstance(entry, dict) else {})}


def _strength_of(overlay: Path) -> str:
    """The strength that an overlay gives a point."""
    try:
        entry = content_of(overlay).get("edit")
    except (WeightEditError, OSError):
        return "1"
    return _edit(entry if isinstance(entry, dict) else {})["strength"]


def _edit(entry: Mapping[str, object]) -> dict[str, str]:
    """Kind, strength and layers, in words; what is not said is the usual."""
    strength = entry.get("strength") or 1.0
    shown = f"{strength:g}" if isinstance(strength, float) else str(strength)
    return {
        "kind": str(entry.get("kind") or "ablate"),
        "strength": shown,
        "layers": str(entry.get("layers") or "all"),
    }
