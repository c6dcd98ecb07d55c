"""Signatures of the command line say what they take and give: none says Any."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import weight_edit

ROOM = Path(weight_edit.__file__).parent / "cli"


def untyped(source: str) -> Iterator[str]:
    """Functions of a file, nested ones too, in whose annotations `Any` stands; an annotation may be a string."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        given = node.args
        arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        for annotation in [node.returns, *(each.annotation for each in arguments if each is not None)]:
            if annotation is not None and _says_any(annotation):
                yield f"{node.name}: {ast.unparse(annotation)}"


def _says_any(annotation: ast.AST) -> bool:
    for node in ast.walk(annotation):
        if (isinstance(node, ast.Name) and node.id == "Any") or (
            isinstance(node, ast.Attribute) and node.attr == "Any"
        ):
            return True
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isprintable():
            try:
                inner = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                # Help texts of options are strings, too.
                continue
            if not isinstance(inner, ast.Constant) and _says_any(inner):
                return True
    return False


def test_no_signature_of_the_command_line_says_any() -> None:
    files = sorted(ROOM.rglob("*.py"))
    assert len(files) > 20
    found = [f"{file.relative_to(ROOM)}: {each}" for file in files for each in untyped(file.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: Any): ...",
        "def f() -> dict[str, Any]: ...",
        "def f(*x: typing.Any): ...",
        "def f(*, x: 'Mapping[str, Any]'): ...",
        "def f():\n    def g(**x: Callable[[Any], None]): ...",
    ],
)
def test_any_is_found(source: str) -> None:
    assert list(untyped(source))
