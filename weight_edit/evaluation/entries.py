"""Entries of a recorded file: JSON Lines, a JSON list, a CSV, or a text with one entry a line."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import printable, read_whole
from weight_edit.errors import UsageError
from weight_edit.prompts.csv_table import csv_table
from weight_edit.prompts.files import decoded, lines_of
from weight_edit.utils.json import JsonError, parse_json

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Entry:
    """One entry of a file.

    Attributes:
        where: the file and its line or number, for messages.
        text: JSON as it stands in the file, on one line; of a list's entry or a table's row as it would.
        value: a text or an object for answers, any JSON value for labels.
    """

    where: str
    text: str
    value: Any

    @property
    def kind(self) -> str:
        """What the value is, for messages."""
        names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
        return "null" if self.value is None else names.get(type(self.value), "a text")


def read_entries(path: Path, keys: Collection[str] = ()) -> list[Entry]:
    """The entries of a file, in order.

    A `.txt` has one text a line, a `.csv` one entry a row, an object of texts. Any other file is JSON Lines, a JSON
    list, or an object with one list in it, whatever its name ends in; empty lines of JSON Lines are left out.

    Args:
        keys: in lower case; an object with one of them is an entry and holds none, even if it is alone.

    Raises:
        UsageError: missing, no regular file, too large, not UTF-8, without entries, or, with the line's number,
            malformed.
    """
    name = printable(str(path))
    text = decoded(path, bytes(read_whole(path, _MAX_BYTES)))
    lines = lines_of(text)
    if path.suffix.lower() == ".txt":
        written = lines[:-1] if lines[-1] == "" else lines
        found = [Entry(f"{name}: line {number}", json.dumps(line), line) for number, line in enumerate(written, 1)]
    elif path.suffix.lower() == ".csv":
        table = csv_table(path, text)
        rows = (dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True))
        found = _of_list(name, rows, "row")
    elif text.lstrip().startswith("["):
        found = _of_list(name, _parsed(name, text, 1))
    else:
        found = _of_lines(name, lines, keys)
    if not found:
        raise UsageError(f"{name} has no entries; give a file with at least one")
    return found


def _of_lines(name: str, lines: list[str], keys: Collection[str]) -> list[Entry]:
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    try:
        found = [Entry(f"{name}: line {number}", line, _parsed(name, line, number)) for number, line in numbered]
    except UsageError:
        # An object over several lines, perhaps; of anything else the line is what is to be mended.
        whole = _object("\n".join(lines))
        if whole is None:
            raise
        found = [Entry(f"{name}: line 1", json.dumps(whole, ensure_ascii=False), whole)]
    alone = found[0].value if len(found) == 1 else None
    if isinstance(alone, dict) and _lists(alone) and not {str(key).strip().lower() for key in alone} & set(keys):
        return _in_object(name, alone)
    return found


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = parse_json(text, unique_keys=False, constants=True)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _in_object(name: str, value: dict[str, Any]) -> list[Entry]:
    """The entries of the one list in an object, such as {"completions": [{...}, ...]}."""
    lists = _lists(value)
    if len(lists) != 1:
        raise UsageError(
            f"{name} is one JSON object with {len(lists)} lists of entries in it; write the entries as JSON Lines, one "
            "a line"
        )
    return _of_list(name, next(iter(lists.values())))


def _lists(value: dict[str, Any]) -> dict[str, list[Any]]:
    return {
        key: each
        for key, each in value.items()
        if isinstance(each, list) and each and all(isinstance(entry, str | dict) for entry in each)
    }


def _of_list(name: str, values: Iterable[Any], what: str = "entry") -> list[Entry]:
    return [
        Entry(f"{name}: {what} {number}", json.dumps(value, ensure_ascii=False), value)
        for number, value in enumerate(values, 1)
    ]


def _parsed(name: str, text: str, first_line: int) -> Any:
    try:
        return parse_json(text, unique_keys=False, constants=True)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UsageError(f"{name}: line {line}, column {error.colno} is not valid JSON: {error.msg}") from None
    except JsonError as error:
        raise UsageError(f"{name}: line {first_line} is not valid JSON: {error}") from None
