"""The search for the best edit that a recipe asks for, and what a run keeps of it."""

from pathlib import Path
from typing import Any

from weight_edit.directions.directions import load_directions
from weight_edit.directions.find_folder import FILES
from weight_edit.directions.find_request import FindRequest
from weight_edit.directions.registry import finder_named
from weight_edit.plan.step import EditStep
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.load import load_prompts
from weight_edit.recipe.recipe import MAIN, EditSection, Recipe, load_recipe
from weight_edit.runs.given_directions import given_directions
from weight_edit.runtime.loading import Model
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.folder import FINDS, JOURNAL, JOURNAL_FILE, JOURNAL_LOCK, RESULT
from weight_edit.search.pick import PickRule
from weight_edit.search.point_recipe import save_point
from weight_edit.search.progress_shown import shown
from weight_edit.search.request import SearchRequest
from weight_edit.search.search import search_edits
from weight_edit.search.summary import SearchSummary, search_summary
from weight_edit.studies.lab import edit_step
from weight_edit.utils.settings import validated

FOLDER = "search"
"""Where a run keeps its search: journal, points and all that was measured."""

PICKED = "picked"
"""The folder of the edit that was picked, as a recipe."""

_POINT = "point.yaml"

_SECTIONS = (
    *("model", "revision", "dtype", "device", "offload", "system", "template", "template_args", "thinking", "seed"),
    *("verify", "evaluate", "bounds", "edit"),
)
"""The sections of a recipe that the recipes of its points repeat."""


def search_request(recipe: Recipe, find: FindRequest) -> SearchRequest:
    """The search of a recipe's section, with its prompts read.

    Args:
        recipe: with a section `search`.
        find: its search for directions.

    Raises:
        UsageError: prompts that cannot be read, or a setting that there is not.
    """
    section = recipe.search
    assert section is not None
    PickRule.parse(section.pick, over_refusal=section.over_refused is not None)
    validated(DescentOptions, section.descent, "search.descent")
    for name, options in section.finders.items():
        finder = finder_named(name)
        finder.settings(options)
        finder.check_offload(recipe.offload)
    settings = section.model_dump(exclude={"over_refused", "batch_size"})
    request = SearchRequest(
        find=find,
        over_refused=None if section.over_refused is None else load_prompts(section.over_refused),
        embeddings="both" if recipe.edit is None else recipe.edit.embeddings,
        seed=recipe.seed,
        **settings,
    )
    request.check_offload(recipe.offload)
    return request


def recipe_sections(recipe: Recipe) -> dict[str, Any]:
    """What the recipes of points say beside the edit: the model, how it is asked, what is measured, and bounds."""
    return recipe.model_dump(mode="json", exclude_defaults=True, include=set(_SECTIONS))


def files_while_searching(request: SearchRequest, found: Path) -> list[str]:
    """The files that a run's search writes as it goes on, relative to the run's folder.

    Its points are apart: it records them itself.

    Args:
        found: where the run's `find` kept its scores, relative likewise.
    """
    place = Path(FOLDER)
    finds = [found, *(place / FINDS / name for name in request.finders)]
    written = [place / RESULT, place / JOURNAL / JOURNAL_FILE, place / JOURNAL / JOURNAL_LOCK]
    return [str(each) for each in (*written, *(find / name for find in finds for name in FILES))]


def run_search(
    recipe: Recipe,
    request: SearchRequest,
    model: Model,
    chat_format: ChatFormat,
    *,
    folder: Path,
    directions: Path,
    found: Path,
) -> SearchSummary:
    """Search, and keep the edit that is picked; returns the entry for the run's record.

    Args:
        folder: of the run; what an interrupted search left there is gone on with.
        directions: the file of what `find` found.
        found: the folder that it kept its scores in.
    """
    section = recipe.search
    assert section is not None
    sections = recipe_sections(recipe)
    with shown() as told:
        result = search_edits(
            model,
            request,
            out=folder / FOLDER,
            chat_format=chat_format,
            found=found,
            recipe=sections,
            batch_size=section.batch_size,
            resume=True,
            overwrite=True,
            told=told,
        )
    metadata = load_directions(directions).metadata
    place = folder / PICKED
    place.mkdir(exist_ok=True)
    point = result.chosen.point
    title = f"{recipe.title or 'search'}: point {point.digest}"
    save_point(point, place / _POINT, sections, title=title, facts=metadata)
    return search_summary(result)


def picked_edit(folder: Path) -> tuple[list[EditStep], EditSection]:
    """The edit that a run's search picked: its steps, and what is said of it as a whole."""
    recipe = load_recipe(folder / PICKED / _POINT)
    assert recipe.edit is not None
    return [edit_step(recipe.edit, given_directions(recipe)[MAIN])], recipe.edit
