"""`pytest --fast`: one case of each quick test, and a collection that asks transformers for no list of families."""

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.helpers.fast_selection import fast, slow_tests

TESTS = Path(__file__).parents[1]
ALL_FAMILIES = ("entries", "chosen_entries", "published_config", "sample_config")
"""What builds a list of all families, or one family's config each."""


def item(name: str, *marks: str) -> Any:
    return SimpleNamespace(nodeid=f"tests/{name}", get_closest_marker=lambda mark: mark if mark in marks else None)


def test_the_first_case_that_is_not_slow_stands_for_the_others() -> None:
    (listed, *_) = sorted(slow_tests())
    items = [item("a.py::one[x]", "slow"), item("a.py::one[y]"), item("a.py::one[z]"), item("b.py::one")]
    kept, left = fast([*items, item(listed), item(f"{listed}[a case]"), item("b.py::two", "slow")])
    assert [each.nodeid for each in kept] == ["tests/a.py::one[y]", "tests/b.py::one"]
    assert len(left) == 5


def test_one_case_of_a_file_stands_for_all_its_families() -> None:
    names = ("a.py::one[llama]", "a.py::one[gpt2]", "a.py::two[llama]", "b.py::one[llama]")
    slow = item("a.py::one[mamba]", "families", "slow")
    kept, _ = fast([slow, *(item(name, "families") for name in names), item("a.py::three[x]")])
    assert [each.nodeid for each in kept] == [
        "tests/a.py::one[llama]",
        "tests/b.py::one[llama]",
        "tests/a.py::three[x]",
    ]


def test_every_slow_test_that_is_listed_exists() -> None:
    listed = slow_tests()
    assert listed
    for line in listed:
        file, _, name = line.partition("::")
        assert f"\ndef {name}(" in (TESTS / file).read_text(encoding="utf-8"), line


def while_imported(module: ast.Module) -> set[str]:
    """The names that a module uses while it is imported: outside of its functions, their decorators included."""
    names: set[str] = set()
    waiting: list[ast.AST] = [module]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(node.decorator_list)
            continue
        if isinstance(node, ast.Name):
            names.add(node.id)
        waiting.extend(ast.iter_child_nodes(node))
    return names


def test_no_module_asks_for_all_families_while_it_is_imported() -> None:
    paths = sorted(TESTS.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        used = while_imported(ast.parse(path.read_text(encoding="utf-8")))
        asked = {name for name in used if name in ALL_FAMILIES or name.endswith("_MAPPING_NAMES")}
        assert not asked, path
