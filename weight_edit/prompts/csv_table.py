"""CSV files as tables; the header decides the field separator."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from weight_edit.errors import UsageError
from weight_edit.prompts.columns import Table, prompt_column

SEPARATORS = (",", ";", "\t", "|")
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What spreadsheets write before the header, to say it outright.
_SAID = re.compile(r'"?sep=(?P<separator>[^\r\n"])"?\r?\n', re.IGNORECASE)


@dataclass(frozen=True)
class _Parsed:
    """A file parsed with one separator.

    Attributes:
        separator: the character.
        header: the fields of the first line.
        rows: those of the others, without empty lines.
        fault: what is wrong with it so read; empty where nothing is.
    """

    separator: str
    header: list[str]
    rows: list[list[str]]
    fault: str


def csv_table(path: Path, text: str) -> Table:
    """The columns of a CSV file, quoted as in RFC 4180; short rows are padded with None.

    The rule: of commas, semicolons, tabs and bars the separator is the one that divides the header and by which no line
    has more fields than the header. Where that holds for several, it is the one by which all lines have equally many
    fields, then the one whose header has a column that is known to hold prompts. Where nothing divides the header there
    is one column. (`csv.Sniffer` guesses from letters that recur, and takes some in words for separators.)

    Raises:
        UsageError: malformed, several separators fit equally well, or a column's name occurs twice.
    """
    said = _SAID.match(text)
    if said is not None:
        return _columns(path, _parse(text[said.end() :], said["separator"], first_line=2))
    tried = [_parse(text, separator) for separator in SEPARATORS]
    divided = [parsed for parsed in tried if len(parsed.header) > 1]
    if not divided:
        return _columns(path, tried[0])
    for fitting in (
        [parsed for parsed in divided if not parsed.fault],
        [parsed for parsed in divided if not parsed.fault and _even(parsed)],
        [parsed for parsed in divided if not parsed.fault and prompt_column(parsed.header)],
    ):
        if len(fitting) == 1:
            return _columns(path, fitting[0])
    fitting = [parsed for parsed in divided if not parsed.fault]
    if fitting:
        names = " or ".join(_NAMES[parsed.separator] for parsed in fitting)
        raise UsageError(
            f"{path}: its fields may be separated by {names}; put a line such as `sep=;` first, which says by what"
        )
    # No separator fits: the fault is told of the likeliest.
    return _columns(path, next((parsed for parsed in divided if prompt_column(parsed.header)), divided[0]))


def _parse(text: str, separator: str, first_line: int = 1) -> _Parsed:
    # A space after the separator belongs to no field where the quotes would not be quotes otherwise.
    plain, spaced = (_read(text, separator, spaces, first_line) for spaces in (False, True))
    return spaced if plain.fault and not spaced.fault else plain


def _read(text: str, separator: str, spaces: bool, first_line: int) -> _Parsed:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=spaces, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    try:
        header = next(reader, [])
        for row in reader:
            if len(row) > len(header):
                fault = (
                    f"line {reader.line_num + first_line - 1} has {len(row)} fields, the header {len(header)}; "
                    f"put texts that contain {_NAMES.get(separator, repr(separator))} in double quotes"
                )
                return _Parsed(separator, header, rows, fault)
            if row:
                rows.append(row)
    except csv.Error as error:
        fault = f"line {reader.line_num + first_line - 1} is not valid CSV: {error}"
        return _Parsed(separator, header, rows, fault)
    return _Parsed(separator, header, rows, "")


def _even(parsed: _Parsed) -> bool:
    return all(len(row) == len(parsed.header) for row in parsed.rows)


def _columns(path: Path, parsed: _Parsed) -> Table:
    if len(set(parsed.header)) != len(parsed.header):
        raise UsageError(f"{path}: the header names a column twice ({', '.join(parsed.header)})")
    if parsed.fault:
        raise UsageError(f"{path}: {parsed.fault}")
    width = len(parsed.header)
    padded = [[*row, *[None] * (width - len(row))] for row in parsed.rows]
    return {name: [row[index] for row in padded] for index, name in enumerate(parsed.header)}
