"""Recognition of answer files without importing their writer."""

import json
from collections.abc import Set
from pathlib import Path

from weight_edit.checkpoint.files import open_regular

_LONGEST_ANSWER = 10_000_000
_LONGEST_ENTRY = 100_000_000
"""The bytes of a first line that are looked at: of an answer of ours, and of an entry that another tool wrote."""


def are_answers(path: Path) -> bool:
    """Whether a file was written by `evaluation.answers.write_answers`, and may be replaced.

    Raises:
        UsageError: it cannot be read at all.
    """
    return _begins_with(path, {"set", "prompt", "answer", "finished"}, _LONGEST_ANSWER)


def are_judged(path: Path) -> bool:
    """Whether a file has lines with verdicts of the verb `judge`, and may be replaced.

    Raises:
        UsageError: it cannot be read at all.
    """
    return _begins_with(path, {"verdict", "judgements"}, _LONGEST_ENTRY)


def _begins_with(path: Path, keys: Set[str], longest: int) -> bool:
    """Whether the first of a file's JSON lines has these keys; so has a file without lines."""
    with open_regular(path) as file:
        first = file.readline(longest)
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
        # A run without sets to measure on leaves an empty file.
        return not first
    return isinstance(row, dict) and keys <= row.keys()
