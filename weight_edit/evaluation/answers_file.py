"""Recognition of answer files without importing their writer."""

import json
from pathlib import Path

from weight_edit.checkpoint.files import open_regular

_MAX_LINE = 10_000_000


def are_answers(path: Path) -> bool:
    """Whether a file was written by `evaluation.evaluate.write_answers`, and may be replaced.

    Raises:
        UsageError: it cannot be read at all.
    """
    with open_regular(path) as file:
        first = file.readline(_MAX_LINE)
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        # A run without sets to measure on leaves an empty file.
        return not first
    return isinstance(row, dict) and {"set", "prompt", "answer", "finished"} <= row.keys()
