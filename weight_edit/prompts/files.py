"""Prompt files: text, JSON lines, JSON, CSV and Parquet, read into tables."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from weight_edit.checkpoint.files import read_whole
from weight_edit.errors import UsageError
from weight_edit.prompts.columns import Table
from weight_edit.prompts.csv_table import csv_table
from weight_edit.prompts.json_table import NamedSets, json_lines_table, json_table
from weight_edit.utils.extras import need
from weight_edit.utils.json import JsonError, parse_json

_MAX_BYTES = 1 << 30
_MAX_ROWS = 10_000_000


def read_table(path: Path) -> Table | NamedSets:
    """The columns of a prompt file; a file of bare texts has the one column "prompt".

    A JSON file may hold several sets.

    Raises:
        UsageError: missing, a folder, of another type, unreadable, or, with the line's number, malformed or
            not UTF-8.
    """
    reader = check_file(path)
    return reader(path, bytes(read_whole(path, _MAX_BYTES)))


def check_file(path: Path) -> Callable[[Path, bytes], Table | NamedSets]:
    """The reader of a prompt file, by the file's name.

    Raises:
        UsageError: missing, a folder, or of another type.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a prompt file in it ({', '.join(READERS)})")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path}: prompt files end in {', '.join(READERS)}; convert or rename this one")
    if not path.exists():
        raise UsageError(f"{path}: there is no such file; check the path")
    return reader


def decoded(path: Path, content: bytes) -> str:
    """The text of a UTF-8 file, without a byte order mark.

    Raises:
        UsageError: it is not UTF-8, with the line's number.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front, which would become part of the first prompt.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from None
    # Letters of UTF-16 without its mark are valid UTF-8, each with a NUL beside it.
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UsageError(f"{path}: line {line} has NUL characters, as UTF-16 has; save the file as UTF-8")
    return text


def lines_of(text: str) -> list[str]:
    """The lines of a text, whatever system wrote its line breaks."""
    # Not splitlines(): it also breaks at characters such as U+2028, which occur inside prompts.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read_txt(path: Path, content: bytes) -> Table:
    lines = lines_of(decoded(path, content))
    written = [line for line in lines if line.strip()]
    if written and all(_is_object(line) for line in written):
        raise UsageError(f"{path}: every line is a JSON object, not a prompt; call the file .jsonl")
    # What follows the last line break is no line, so it is no empty prompt either.
    return {"prompt": lines[:-1] if lines[-1] == "" else lines}


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(parse_json(line, unique_keys=False, constants=True), dict)
    except (json.JSONDecodeError, JsonError):
        return False


def _read_jsonl(path: Path, content: bytes) -> Table | NamedSets:
    return json_lines_table(path, decoded(path, content))


def _read_json(path: Path, content: bytes) -> Table | NamedSets:
    return json_table(path, decoded(path, content))


def _read_csv(path: Path, content: bytes) -> Table:
    return csv_table(path, decoded(path, content))


def _read_parquet(path: Path, content: bytes) -> Table:
    need("pyarrow", f"reading {path}")
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        # A column of one value takes no room in the file, and all of it in memory.
        if file.metadata.num_rows > _MAX_ROWS:
            raise UsageError(f"{path}: {file.metadata.num_rows} rows are too many; at most {_MAX_ROWS} are read")
        columns: dict[str, list[Any]] = file.read().to_pydict()
    # Beside Arrow's own: dates before the year 1 and after 9999, text that is no UTF-8, sizes that nothing holds.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"{path} is not a readable Parquet file: {reason}") from None
    return columns


READERS: dict[str, Callable[[Path, bytes], Table | NamedSets]] = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
