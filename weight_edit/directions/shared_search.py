"""The folder of a search that several processes make: the first one reads and writes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weight_edit.directions.find_folder import SearchFolder
from weight_edit.runtime.processes import from_first, writes


def open_search(
    path: str | Path, inputs: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False
) -> SearchFolder:
    """`SearchFolder.open` by the first process; the others get what is kept there, and keep it in memory alone.

    No other machine needs the folder.

    Raises:
        UsageError: as `SearchFolder.open`.
    """
    kept = from_first(
        lambda: SearchFolder.open(path, inputs, resume=resume, overwrite=overwrite), "what an earlier search found"
    )
    if not writes():
        kept.path = None
    return kept
