"""A search in a model by its name: what `search` of the command line does."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weight_edit.directions.find_request import check_batch_size
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.search.descent_options import DescentOptions
from weight_edit.search.pick import PickRule
from weight_edit.search.progress_shown import shown
from weight_edit.search.request import SearchRequest
from weight_edit.utils.extras import need
from weight_edit.utils.progress import starting
from weight_edit.utils.settings import validated

if TYPE_CHECKING:
    from weight_edit.search.result import SearchResult


def search_by_name(
    request: SearchRequest,
    model: str,
    out: Path,
    *,
    load_options: LoadOptions,
    format_options: FormatOptions,
    storage: str | None = None,
    batch_size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> "SearchResult":
    """The search of a model that is loaded for it, with its progress shown.

    Args:
        request: prompts and settings.
        model: as in `load`.
        out, storage, batch_size, resume, overwrite: as in `search_edits`.
        load_options: how it is loaded.
        format_options: how prompts become a chat.

    Raises:
        UsageError, UnsupportedError: as `search_edits`; what is wrong with an option comes before the model is loaded.
    """
    check_dtype(load_options.dtype)
    check_batch_size(batch_size)
    PickRule.parse(request.pick, over_refusal=request.over_refused is not None)
    request.check_offload(load_options.offload)
    validated(DescentOptions, dict(request.descent), "descent")
    need("optuna", "a search")
    # The imports take seconds, so that all that is told without them comes first.
    with starting():
        from weight_edit.directions.registry import finder_named
        from weight_edit.search.search import search_edits

    for method, options in {request.find.method: request.find.options, **request.finders}.items():
        finder = finder_named(method)
        finder.settings(options)
        finder.check_offload(load_options.offload)
    chat_format = load_options.chat_format(model, format_options)
    with shown() as told:
        return search_edits(
            load_options.load(model),
            request,
            out=out,
            chat_format=chat_format,
            storage=storage,
            recipe=_sections(request, model, load_options, format_options),
            batch_size=batch_size,
            resume=resume,
            overwrite=overwrite,
            told=told,
        )


def _sections(
    request: SearchRequest, model: str, load_options: LoadOptions, format_options: FormatOptions
) -> dict[str, Any]:
    """What the recipes of points say beside the edit; what is as a recipe has it by default is left out."""
    said = {
        "model": model,
        "revision": load_options.revision,
        "dtype": None if load_options.dtype == "auto" else load_options.dtype,
        "device": load_options.device,
        "offload": load_options.offload,
        "system": format_options.system,
        "template": format_options.template,
        "template_args": dict(format_options.template_args),
        "thinking": format_options.thinking,
        "verify": {"prompts": request.find.baseline.name},
    }
    return {key: value for key, value in said.items() if value not in (None, False, {})}
