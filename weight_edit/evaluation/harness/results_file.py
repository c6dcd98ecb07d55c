"""Recognition of files in the shape of lm-eval's results."""

import json
from pathlib import Path

from weight_edit.checkpoint.files import read_whole
from weight_edit.checkpoint.whole_file import check_free

_LARGEST = 1 << 28  # bytes


def check_harness_document(path: Path, *, against: bool, overwrite: bool = False) -> None:
    """Refuse a place for results that cannot be written, and that of the base's beside it.

    Args:
        against: whether there is a base.
        overwrite: replace earlier results.

    Raises:
        UsageError: as `check_free`.
    """
    for each in (path, base_path(path)) if against else (path,):
        check_free(each, overwrite, are_harness_results)


def base_path(path: Path) -> Path:
    """The base's file beside that of a model: of `results.json` it is `results-base.json`."""
    return path.with_name(f"{path.stem}-base{path.suffix}")


def are_harness_results(path: Path) -> bool:
    """Whether a file holds results in lm-eval's shape, and may be replaced by such.

    Raises:
        UsageError: it cannot be read at all.
    """
    try:
        found = json.loads(read_whole(path, _LARGEST))
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"results", "configs", "versions", "config"} <= found.keys()


def are_harness_samples(path: Path) -> bool:
    """Whether a file holds samples of a task as lm-eval writes them, and may be replaced by such.

    Raises:
        UsageError: it cannot be read at all.
    """
    lines = read_whole(path, _LARGEST).splitlines()
    try:
        first = json.loads(lines[0]) if lines else {"doc_id": None}
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "doc_id" in first
