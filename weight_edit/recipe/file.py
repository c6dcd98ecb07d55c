"""The content of a recipe's or an overlay's file."""

import os
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import read_whole
from weight_edit.errors import UsageError
from weight_edit.utils.bounded_yaml import MAX_TEXT, parse_yaml


def content_of(file: Path) -> dict[str, Any]:
    """The sections of a YAML file, as they stand there.

    Raises:
        UsageError: there is no such file, or it holds no keys and values.
    """
    # Not `exists`: of a path that none can be, too, the reading says what is wrong.
    if "\0" not in str(file) and not os.path.lexists(file):
        raise UsageError(f"there is no recipe {file}")
    try:
        content = parse_yaml(read_whole(file, 4 * MAX_TEXT).decode("utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{file} must hold keys and values, such as 'model: organism'")
    return content
