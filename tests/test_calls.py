"""Records with many fields are made by keyword, and no call passes six positional arguments.

Two neighbours of one type can be swapped in a call by position, and nothing would say so.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "weight_edit"
MOST_FIELDS = 5
MOST_POSITIONAL = 5

OF_OTHERS = ("add_row", "join", "joinpath", "max", "min", "print", "reshape", "submit", "zip")
OWN = ("noise", "suggest")
VARIADIC = frozenset({*OF_OTHERS, *OWN})
"""Functions and methods whose positional arguments are a list of equals: words of a command, lengths of a shape."""


def violations(source: str) -> list[str]:
    """A line for each record that can be made by position, and each call with too many positional arguments.

    The arguments of a call are counted without starred ones, whose number is not known.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and _by_position(node):
            found.append(f"{node.lineno}: {node.name} is made by position")
        elif isinstance(node, ast.Call):
            count = sum(not isinstance(argument, ast.Starred) for argument in node.args)
            if count > MOST_POSITIONAL and _name(node.func) not in VARIADIC:
                found.append(f"{node.lineno}: {ast.unparse(node.func)} is called with {count} positional arguments")
    return found


def _by_position(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass of many fields that does not insist on keywords."""
    decorator = next((each for each in node.decorator_list if _name(each) == "dataclass"), None)
    fields = [
        entry
        for entry in node.body
        if isinstance(entry, ast.AnnAssign) and not ast.unparse(entry.annotation).startswith("ClassVar")
    ]
    if decorator is None or len(fields) <= MOST_FIELDS:
        return False
    keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
    return not any(each.arg == "kw_only" and ast.unparse(each.value) == "True" for each in keywords)


def _name(node: ast.expr) -> str:
    """The last part of a function's name, called or not."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def test_records_are_made_by_keyword_and_calls_are_short() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in violations(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


SIX = "".join(f"    {name}: int\n" for name in "abcdef")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f"@dataclass\nclass Record:\n{SIX}", "2: Record is made by position"),
        (f"@dataclasses.dataclass(frozen=True)\nclass Record:\n{SIX}", "2: Record is made by position"),
        (f"@dataclass(kw_only=False)\nclass Record:\n{SIX}", "2: Record is made by position"),
        ("made = record(1, 2, 3, 4, 5, 6)", "1: record is called with 6 positional arguments"),
        ("made = room.record(1, 2, *rest, 3, 4, 5, 6, last=7)", "1: room.record is called with 6 positional arguments"),
        ("made = cls(1, 2, 3, 4, 5, 6)", "1: cls is called with 6 positional arguments"),
    ],
)
def test_bad_sources_are_found(source: str, said: str) -> None:
    assert violations(source) == [said]


@pytest.mark.parametrize(
    "source",
    [
        f"@dataclass(frozen=True, kw_only=True)\nclass Record:\n{SIX}",
        f"@dataclass\nclass Record:\n{SIX.replace('f: int', 'f: ClassVar[int] = 0')}",
        f"class Record(TypedDict):\n{SIX}",
        "made = record(1, 2, 3, 4, 5, f=6)",
        "made = record(1, 2, 3, 4, 5, *rest)",
        "largest = max(1, 2, 3, 4, 5, 6)",
    ],
)
def test_good_sources_pass(source: str) -> None:
    assert violations(source) == []
