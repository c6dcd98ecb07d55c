"""What benchmarks, tools and documents import from this repository is there, though no test runs them."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from house import ROOT, handed_on

SCRIPTS = (*sorted((ROOT / "benchmarks").glob("*.py")), *sorted((ROOT / "tools").glob("*.py")))
DOCUMENTS = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
FOLDERS = (ROOT, ROOT / "benchmarks", ROOT / "tools")
"""Where modules of this repository are looked for; a name found in none of them is another package's."""
IN_TEXT = re.compile(r"^\s*from ((?:weight_edit|tests)[\w.]*) import (?:\(([^)]*)\)|([\w ,]+))", re.MULTILINE)
"""Imports in code blocks of documents, and in strings that scripts hand to a process of its own."""


def file_of(module: str) -> Path | None:
    """The file of a dotted module of this repository."""
    for folder in FOLDERS:
        path = folder / module.replace(".", "/")
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.exists():
                return file
    return None


@cache
def defined(file: Path) -> frozenset[str]:
    """Names that a module has once it is imported: what it binds outside of functions, and what it hands on lazily."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    names = set(handed_on(tree)) if file.name == "__init__.py" else set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        waiting.extend(ast.iter_child_nodes(node))
    return frozenset(names)


def problem(module: str, name: str | None = None) -> str | None:
    """Why `from module import name`, or `import module`, would fail; None where it would not."""
    if all(
        not (folder / module.partition(".")[0]).with_suffix(end).exists() for folder in FOLDERS for end in ("", ".py")
    ):
        return None
    file = file_of(module)
    if file is None:
        return f"there is no module {module}"
    if name is None or name in defined(file) or file_of(f"{module}.{name}"):
        return None
    return f"{module} has no {name}"


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Modules, and the names taken from them, that a script imports anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)


def imports_in_text(text: str) -> Iterator[tuple[str, str]]:
    """The same of a text that has code in it."""
    for module, several, line in IN_TEXT.findall(text):
        for name in (several or line).replace("\n", " ").split(","):
            if name.strip():
                yield module, name.split()[0]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_every_import_of_a_script_resolves(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = [*imports(ast.parse(text)), *imports_in_text(text)]
    assert found
    assert [told for module, name in found if (told := problem(module, name))] == []


def test_every_import_in_a_document_resolves() -> None:
    found = [(path, *each) for path in DOCUMENTS for each in imports_in_text(path.read_text(encoding="utf-8"))]
    assert len(found) > 5
    assert [(path.name, told) for path, module, name in found if (told := problem(module, name))] == []


@pytest.mark.parametrize(
    ("module", "name", "told"),
    [
        ("weight_edit", "bake", None),
        ("weight_edit.edits.kernel", "Kernel", None),
        ("weight_edit.edits", "kernel", None),
        ("weight_edit.edits.kernel", "Colonel", "weight_edit.edits.kernel has no Colonel"),
        ("weight_edit.nothing", "x", "there is no module weight_edit.nothing"),
        ("weight_edit.nothing.x", None, "there is no module weight_edit.nothing.x"),
        ("bench_bake", "make_checkpoint", None),
        ("bench_bake", "make_nothing", "bench_bake has no make_nothing"),
        ("torch", "nothing", None),
    ],
)
def test_what_is_there_and_what_is_not(module: str, name: str | None, told: str | None) -> None:
    assert problem(module, name) == told


def test_imports_in_text_are_found_over_several_lines() -> None:
    text = "```py\nfrom weight_edit import bake, verify as check\nfrom weight_edit.a import (\n    b,\n    c,\n)\n```\n"
    assert list(imports_in_text(text)) == [
        ("weight_edit", "bake"),
        ("weight_edit", "verify"),
        ("weight_edit.a", "b"),
        ("weight_edit.a", "c"),
    ]
