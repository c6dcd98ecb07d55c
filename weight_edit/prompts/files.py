"""Prompt files: text, JSON lines, JSON, CSV and Parquet, each read into a table."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.extras import need
from weight_edit.prompts.columns import Table, table_of_rows


def read_table(path: Path) -> Table:
    """The columns of a prompt file; a file of bare texts has the one column "prompt".

    Raises:
        UsageError: missing, a folder, of another type, unreadable, or, with the line's number, malformed or
            not UTF-8.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a prompt file in it ({', '.join(READERS)})")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: prompt files end in {', '.join(READERS)}; convert or rename this one")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file; check the path") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    return reader(path, content)


def _decode(path: Path, content: bytes) -> str:
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front, which would become part of the first prompt.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None


def _lines(text: str) -> list[str]:
    # Not splitlines(): it also breaks at characters such as U+2028, which occur inside prompts.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read_txt(path: Path, content: bytes) -> Table:
    lines = _lines(_decode(path, content))
    # What follows the last line break is no line, so it is no empty prompt either.
    return {"prompt": lines[:-1] if lines[-1] == "" else lines}


def _read_jsonl(path: Path, content: bytes) -> Table:
    rows = []
    for number, line in enumerate(_lines(_decode(path, content)), start=1):
        if line.strip():
            rows.append(_parse(path, line, number))
    return table_of_rows(str(path), rows)


def _read_json(path: Path, content: bytes) -> Table:
    value = _parse(path, _decode(path, content), 1)
    if isinstance(value, dict):
        lists = {key: cells for key, cells in value.items() if isinstance(cells, list)}
        if len(lists) == 1:  # {"prompts": [...]} or {"data": [{...}]}: what is beside the list is about it
            [(key, rows)] = lists.items()
            objects = any(isinstance(row, dict) for row in rows)
            return table_of_rows(str(path), rows) if objects else {key: rows}
        lengths = {key: len(cells) for key, cells in lists.items()}
        if not lists or len(set(lengths.values())) > 1:
            sizes = ", ".join(f"{key}: {length}" for key, length in lengths.items()) or "no list"
            raise UsageError(f"{path}: the columns of a JSON object must be lists of one length (found {sizes})")
        return lists
    if not isinstance(value, list):
        raise UsageError(f"{path}: expected a JSON list of texts or objects, or an object of lists")
    return table_of_rows(str(path), value)


def _parse(path: Path, text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise UsageError(f"{path}: line {line}, column {error.colno} is not valid JSON: {error.msg}") from None
    except RecursionError:
        raise UsageError(f"{path}: line {first_line}: the JSON is nested too deeply for prompts") from None


def _read_csv(path: Path, content: bytes) -> Table:
    reader = csv.reader(io.StringIO(_decode(path, content), newline=""), strict=True)
    try:
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise UsageError(f"{path}: the header names a column twice ({', '.join(header)})")
        columns: dict[str, list[str | None]] = {key: [] for key in header}
        for row in reader:
            if not row:
                continue
            if len(row) > len(header):
                raise UsageError(
                    f"{path}: line {reader.line_num} has {len(row)} fields, the header {len(header)}; "
                    "put texts that contain commas in double quotes"
                )
            padded: list[str | None] = [*row, *[None] * (len(header) - len(row))]
            for key, cell in zip(header, padded, strict=True):
                columns[key].append(cell)
    except csv.Error as error:
        raise UsageError(f"{path}: line {reader.line_num} is not valid CSV: {error}") from None
    return columns


def _read_parquet(path: Path, content: bytes) -> Table:
    need("pyarrow", f"reading {path}")
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        columns: dict[str, list[Any]] = table.to_pydict()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not a readable Parquet file: {reason}") from None
    return columns


READERS: dict[str, Callable[[Path, bytes], Table]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
