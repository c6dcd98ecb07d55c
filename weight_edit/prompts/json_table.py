"""JSON and JSON Lines as tables, whatever the file's ending says."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.prompts.columns import Table, prompt_column, table_of_rows
from weight_edit.utils.json import JsonError, parse_json

_SPLITS = frozenset({"train", "training", "validation", "valid", "val", "dev", "test", "eval", "evaluation", "holdout"})


@dataclass(frozen=True)
class NamedSets:
    """Several prompt sets in one file, such as {"train": [...], "test": [...]}."""

    sets: Mapping[str, Sequence[Any]]

    def table(self, path: Path, name: str | None) -> Table:
        """The columns of one set.

        Raises:
            UsageError: none is named, or there is none of that name.
        """
        if name is None or name not in self.sets:
            there = ", ".join(f"{key} ({len(rows)})" for key, rows in self.sets.items())
            what = "has no set " + repr(name) if name else "holds several sets of prompts"
            raise UsageError(
                f"{path} {what}: {there}; name one by adding its name, as in {path}:{next(iter(self.sets))}"
            )
        return table_of_rows(f"{path}:{name}", self.sets[name])


def json_table(path: Path, text: str) -> Table | NamedSets:
    """The columns of a JSON file: a list of texts or objects, or an object of lists.

    JSON Lines are read as well.

    Raises:
        UsageError: malformed, with the line's number, or of another form.
    """
    try:
        value = _parse(path, text, 1)
    except _Malformed as error:
        if not error.more:
            raise
        return table_of_rows(str(path), _lines(path, text))  # several documents, each on a line of its own
    return _table_of(path, value)


def json_lines_table(path: Path, text: str) -> Table | NamedSets:
    """The columns of a JSON Lines file; a single JSON document is read as well.

    Raises:
        UsageError: malformed, with the line's number, or of another form.
    """
    try:
        rows = _lines(path, text)
    except _Malformed as error:
        try:
            return _table_of(path, _parse(path, text, 1))
        except _Malformed:
            raise error from None
    if len(rows) == 1 and isinstance(rows[0], list):
        return _table_of(path, rows[0])
    return table_of_rows(str(path), rows)


def _table_of(path: Path, value: Any) -> Table | NamedSets:
    if isinstance(value, list):
        return table_of_rows(str(path), value)
    if not isinstance(value, dict):
        raise UsageError(f"{path}: expected a JSON list of texts or objects, or an object of lists")
    lists = {key: cells for key, cells in value.items() if isinstance(cells, list)}
    if len(lists) == 1:  # {"prompts": [...]} or {"data": [{...}]}: what is beside the list is about it
        [(key, rows)] = lists.items()
        objects = any(isinstance(row, dict) for row in rows)
        return table_of_rows(str(path), rows) if objects else {key: rows}
    lengths = {key: len(cells) for key, cells in lists.items()}
    if len(lists) > 1 and prompt_column(lists) is None and _are_sets(lists):
        return NamedSets(lists)
    if not lists or len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{key}: {length}" for key, length in lengths.items()) or "no list"
        raise UsageError(f"{path}: the columns of a JSON object must be lists of one length (found {sizes})")
    return lists


def _are_sets(lists: Mapping[str, Sequence[Any]]) -> bool:
    """Whether lists are prompt sets and not columns, by their names, entries or lengths."""
    return (
        all(key.lower() in _SPLITS for key in lists)
        or all(isinstance(row, dict) for rows in lists.values() for row in rows)
        or len({len(rows) for rows in lists.values()}) > 1
    )


class _Malformed(UsageError):
    """Raised for a text that is not JSON.

    Attributes:
        more: one document is well-formed, and more follows it.
    """

    def __init__(self, message: str, more: bool) -> None:
        super().__init__(message)
        self.more = more


def _lines(path: Path, text: str) -> list[Any]:
    # Not splitlines(): it also breaks at characters such as U+2028, which occur inside prompts.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [_parse(path, line, number) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(path: Path, text: str, first_line: int) -> Any:
    try:
        return parse_json(text, unique_keys=False, constants=True)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        message = f"{path}: line {line}, column {error.colno} is not valid JSON: {error.msg}"
        raise _Malformed(message, error.msg == "Extra data") from None
    except JsonError as error:
        raise UsageError(f"{path}: line {first_line} is not valid JSON: {error}") from None
