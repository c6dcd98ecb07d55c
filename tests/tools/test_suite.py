"""Test modules say what they hold in a docstring, and share code by way of `tests/helpers` alone."""

import ast
from pathlib import Path

from house import names_imported

TESTS = Path(__file__).parents[1]
MODULES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(TESTS.rglob("*.py"))}


def test_every_module_has_a_docstring() -> None:
    assert len(MODULES) > 100
    assert [path for path, tree in MODULES.items() if not ast.get_docstring(tree)] == []


def test_no_module_imports_a_test_module() -> None:
    imported = [(path, name) for path, tree in MODULES.items() for name in names_imported(tree)]
    assert any(name.startswith("tests.helpers.") for _, name in imported)
    assert [each for each in imported if ".test_" in each[1] and each[1].startswith("tests.")] == []
