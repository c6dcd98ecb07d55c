"""Tables to prompt sets: the columns of prompts, answers and categories."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from weight_edit.errors import UsageError
from weight_edit.prompts.sets import PromptSet
from weight_edit.utils.json import parse_json

# In order of preference; names compare without case.
PROMPT_COLUMNS = (
    "prompt",
    "prompts",
    "instruction",
    "question",
    "goal",
    "request",
    "query",
    "behavior",
    "behaviour",
    "text",
    "input",
    "messages",
    "conversation",
    "conversations",
)
ANSWER_COLUMNS = (
    "answer",
    "answers",
    "target",
    "helpful",
    "response",
    "completion",
    "output",
    "reference",
)
CATEGORY_COLUMNS = ("category", "categories", "semantic_category", "type", "topic")

_AIMED_AT = frozenset({"goal", "behavior", "behaviour"})
"""Columns of requests whose `target` is what an attack makes the model begin with."""

_CONVERSATIONS = frozenset({"messages", "conversation", "conversations"})

Table = Mapping[str, Sequence[Any]]


def prompt_set_of_table(name: str, table: Table, column: str | None = None) -> PromptSet:
    """The prompt set of a table: one column's prompts, with answers and categories if given.

    A cell is a text, or a conversation: a list of {"role", "content"} (or {"from", "value"}) whose first user
    turn is the prompt and whose first assistant turn, unless a column has answers, is the answer.

    Args:
        name: names the source in errors.
        table: column name -> cells, all of one length.
        column: the prompts' column; None picks the first of `PROMPT_COLUMNS`.

    Raises:
        UsageError: no such or no usable column, or a cell that is neither text nor a conversation.
    """
    chosen = _column(name, table, column)
    cells = [_cell(value, name, chosen, row) for row, value in enumerate(table[chosen])]
    wanted = [each for each in ANSWER_COLUMNS if each != "target" or not _has_openings(table)]
    answers = _optional(table, wanted, chosen)
    categories = _optional(table, CATEGORY_COLUMNS, chosen)
    found = PromptSet.of(
        name,
        [prompt for prompt, _ in cells],
        [answer for _, answer in cells] if answers is None else _texts(table[answers]),
        None if categories is None else _texts(table[categories]),
    )
    taken = {"prompts": chosen, "answers": answers, "categories": categories}
    return replace(found, columns={what: str(column) for what, column in taken.items() if column is not None})


def prompt_column(names: Iterable[str]) -> str | None:
    """The name of the column that holds prompts; None if no known name is there."""
    return _first(names, PROMPT_COLUMNS)


def table_of_rows(name: str, rows: Iterable[Any]) -> Table:
    """The table of rows that are all texts (one column "prompt") or all objects.

    Absent keys become None.

    Raises:
        UsageError: a row is neither, or the two kinds are mixed.
    """
    listed = list(rows)
    if all(isinstance(row, str) for row in listed):
        return {"prompt": listed}
    for number, row in enumerate(listed, start=1):
        if not isinstance(row, dict):
            raise UsageError(
                f"{name}: entry {number} is {_kind(row)}; make every entry a text, or every entry an object"
            )
    names = dict.fromkeys(key for row in listed for key in row)
    return {key: [row.get(key) for row in listed] for key in names}


def _column(name: str, table: Table, column: str | None) -> str:
    there = ", ".join(table) or "none"
    if column is not None:
        if column not in table:
            raise UsageError(f"{name} has no column {column!r}; its columns are: {there}")
        return column
    found = prompt_column(table)
    if found is None and len(table) == 1:
        # Labels are no prompts, and of a file without a header the first prompt would be the name.
        raise UsageError(
            f"{name}: its only column is called {_shown(there)!r}, which is not known to hold prompts; where it does, "
            f"add `:COLUMN` with that name; a file without a header needs one, such as {PROMPT_COLUMNS[0]}, or is a "
            ".txt with one prompt a line"
        )
    if found is None:
        raise UsageError(
            f"{name} has no column that is known to hold prompts; its columns are: {_shown(there)}; "
            f"name one by adding `:COLUMN`, or put a header with {PROMPT_COLUMNS[0]} first where there is none"
        )
    return found


def _first(names: Iterable[str], wanted: Sequence[str]) -> str | None:
    lowered = {str(key).strip().lower(): key for key in reversed(list(names))}
    return next((lowered[key] for key in wanted if key in lowered), None)


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def _optional(table: Table, wanted: Sequence[str], taken: str) -> str | None:
    return _first([key for key in table if key != taken], wanted)


def _has_openings(table: Table) -> bool:
    """Whether the column `target` has the openings that an attack aims at, "Sure, here is ...", and no right answers.

    So it has in AdvBench, JailbreakBench and what was made of them, where it stands beside a goal or a behaviour.
    """
    names = {key.strip().lower(): key for key in table}
    if "target" not in names:
        return False
    cells = [cell.lstrip().lower() for cell in table[names["target"]] if isinstance(cell, str) and cell.strip()]
    agreeing = sum(cell.startswith(("sure,", "sure!", "sure ", "certainly,", "of course,")) for cell in cells)
    return bool(_AIMED_AT & names.keys()) or 2 * agreeing > len(cells)


def _texts(cells: Sequence[Any]) -> list[str | None]:
    # A number is a fine label or answer ("7"); a list or an object is not, and counts as unknown.
    return [str(cell) if isinstance(cell, str | int | float) else None for cell in cells]


def _cell(value: Any, name: str, column: str, row: int) -> tuple[str, str | None]:
    if isinstance(value, str) and column.strip().lower() in _CONVERSATIONS and value.lstrip().startswith("["):
        value = _conversation(value, f"{name}: entry {row + 1} of column {column!r}")
    if isinstance(value, dict):
        value = _turns(value)
    if value is None:
        return "", None
    if isinstance(value, str):
        return value, None
    if isinstance(value, list | tuple) and all(isinstance(turn, dict) for turn in value):
        return _turn(value, ("user", "human")) or "", _turn(value, ("assistant", "gpt", "model"))
    raise UsageError(
        f"{name}: entry {row + 1} of column {column!r} is {_kind(value)}, neither a text nor a list of "
        "messages; name another column by adding `:COLUMN`"
    )


def _conversation(text: str, where: str) -> Any:
    """The messages in a CSV cell, which holds them as JSON."""
    try:
        return parse_json(text, unique_keys=False, constants=True)
    except ValueError as error:
        raise UsageError(f"{where} looks like a list of messages, but is no JSON; write it as JSON") from error


def _turns(value: Mapping[str, Any]) -> Any:
    """A list of messages, from a single message or from a mapping of lists."""
    if isinstance(value.get("role", value.get("from")), str):
        return [value]
    lists = {key: cells for key, cells in value.items() if isinstance(cells, list)}
    if len(lists) != len(value) or len({len(cells) for cells in lists.values()}) != 1:
        return value
    return [dict(zip(lists, turn, strict=True)) for turn in zip(*lists.values(), strict=True)]


def _turn(messages: Iterable[Mapping[str, Any]], roles: Sequence[str]) -> str | None:
    for message in messages:
        if message.get("role", message.get("from")) in roles:
            return _text(message.get("content", message.get("value")))
    return None


def _text(content: Any) -> str | None:
    if isinstance(content, list | tuple):  # content in parts: {"type": "text", "text": ...} among images and sounds
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "empty" if value is None else names.get(type(value), f"a {type(value).__name__}")
