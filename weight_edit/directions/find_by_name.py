"""A search in a model by its name, whose directions are saved in a file: what `find` of the command line does."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from weight_edit.checkpoint.source.fingerprint import fingerprint
from weight_edit.checkpoint.whole_file import check_free
from weight_edit.directions.file import folder_of, is_directions
from weight_edit.directions.find_request import FindRequest, check_batch_size
from weight_edit.errors import UsageError
from weight_edit.runtime.dtypes import check_dtype
from weight_edit.runtime.options import FormatOptions, LoadOptions
from weight_edit.runtime.processes import from_first, writes
from weight_edit.utils.progress import starting

if TYPE_CHECKING:
    from weight_edit.directions.directions import Directions


def find_by_name(
    request: FindRequest,
    model: str,
    out: Path,
    *,
    load_options: LoadOptions,
    format_options: FormatOptions,
    batch_size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> "Directions":
    """The directions in a model that is loaded when it is needed, saved in a file.

    What is found is kept in `folder_of(out)` as it comes. Where an earlier search of the same inputs is complete
    there, the choice is made of it and no model is loaded.

    Args:
        model: as in `load`.
        out: the file to write, see `check_directions_file`.
        batch_size: prompts at a time, at most; None is as many as memory allows.
        resume: go on with an earlier search, and replace the file that was chosen of it.
        overwrite: replace a file that is there, and begin anew.

    Raises:
        UsageError: as `find_directions`; before torch is imported where the dtype is wrong.
        UnsupportedError: as `find_directions`.
    """
    check_dtype(load_options.dtype)
    check_batch_size(batch_size)
    # The imports take seconds, so that all that is told without them comes first.
    with starting():
        from weight_edit.directions.choice import chosen, is_made, rule_for
        from weight_edit.directions.find import find_requested, search_inputs
        from weight_edit.directions.find_folder import found_earlier
        from weight_edit.directions.registry import finder_named
        from weight_edit.directions.shared_search import open_search

    from_first(lambda: found_earlier(folder_of(out), resume=resume, overwrite=overwrite), "an earlier search")
    finder = finder_named(request.method)
    rule = rule_for(finder, request.rule)
    # A misspelt option is said before a large model is fetched and loaded.
    finder.settings(request.options)
    finder.check_offload(load_options.offload)
    chat_format = load_options.chat_format(model, format_options)
    asked = search_inputs(
        request,
        model=fingerprint(load_options.source(model).path),
        dtype=load_options.dtype,
        chat_format=asdict(format_options),
    )
    kept = open_search(folder_of(out), asked, resume=resume, overwrite=overwrite)
    if is_made(kept, rule, request):
        found = chosen(kept, rule, request)
    else:
        found = find_requested(request, load_options.load(model), chat_format, batch_size=batch_size, scores=kept)
    if writes():
        found.save(out)
    return found


def check_directions_file(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a file that directions cannot be written to, before anything is looked for.

    Args:
        resume: an earlier search beside the file is gone on with, so that the file may be there.
        overwrite: a file of directions may be there.

    Raises:
        UsageError: its folder is not there, or a file is that may not be replaced.
    """
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent} for {out.name}; make it first")
    check_free(out, overwrite or (resume and folder_of(out).is_dir()), is_directions)
