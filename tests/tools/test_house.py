"""The facts of the layout are those counted by hand on small packages, each import of them chosen for a rule."""

import subprocess
from pathlib import Path

import house
import pytest
from house import House, back_up, circles, floors, in_folder, in_revision, reach, table

FILES = {
    # A table of names that are handed on when they are first used, and the table of another room.
    "__init__.py": 'from weight_edit.lazy import lazy\n_WHERE = {"bake": "baking.bake", "run": "runs"}\n',
    "lazy.py": "import importlib\n",
    "errors.py": "",
    "runs/__init__.py": 'from weight_edit.lazy import lazy\n__getattr__ = lazy(__name__, {"run": "running"})\n',
    "runs/running.py": "from weight_edit import bake\n" + "\n" * 60,
    "baking/__init__.py": '"""Baking."""\n',
    "baking/bake.py": (
        "from typing import TYPE_CHECKING\nimport numpy\nfrom weight_edit.anatomy import parts\n"
        "if TYPE_CHECKING:\n    from weight_edit.runs import run\n"
        "def bake():\n    from weight_edit.plan.plan import plan\n"
    ),
    "plan/__init__.py": "",
    "plan/plan.py": "import weight_edit.anatomy.derive\nfrom weight_edit.errors import UsageError\n",
    "anatomy/__init__.py": "",
    "anatomy/parts.py": "",
    "anatomy/derive.py": "from weight_edit.anatomy.parts import Anatomy\nfrom weight_edit.anatomy.graph import step\n",
    # A circle of files inside a room, and one of rooms.
    "anatomy/graph/__init__.py": "",
    "anatomy/graph/step.py": "def f():\n    from weight_edit.anatomy import derive\n    from weight_edit import plan\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that the package above is in."""
    for name, text in FILES.items():
        path = tmp_path / "weight_edit" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_facts_of_a_small_package(root: Path) -> None:
    lines = sum(len(text.splitlines()) for text in FILES.values())
    assert House(in_folder(root)).facts() == {
        "files, lines": f"14, {lines}",
        "loose modules, lines, share": f"2, 1, {1 / lines:.0%}",
        "packages": "4",
        "rooms": "7",
        # errors; anatomy and plan; baking; runs. Cut where plan is the lower one, anatomy is a floor of its own.
        "floors (a circle is one node)": "4",
        "floors without the imports that run back up": "5",
        # __init__ -> lazy, runs -> lazy, baking; baking -> anatomy, plan; plan -> anatomy, errors; anatomy -> plan.
        "import arrows between rooms": "8",
        "imports that run back up": "1",
        "circles between files": "1 (2)",
        "circles between rooms": "1 (2)",
        # bake, plan, parts, derive, step, errors, and the `__init__` of plan, which `from weight_edit import plan` is.
        "bake reaches rooms (files, lines)": "4 (7, 14)",
        "bake loads rooms (files, lines)": "2 (2, 7)",
        "run reaches rooms (files, lines)": "5 (8, 75)",
        "run loads rooms (files, lines)": "3 (3, 68)",
        "checkpoint/ first level: rooms, floors, arrows": "0, 0, 0",
        "anatomy/ first level: rooms, floors, arrows": "3, 2, 3",
        "files under 50 lines": "13",
        "file names in -ing": "1",
        # bake, plan, its `__init__`, step and errors; lazy, parts and derive have two.
        "files imported by exactly one other": "5",
    }


def test_a_name_that_is_handed_on_is_followed_to_the_file_that_defines_it(root: Path) -> None:
    package = House(in_folder(root))
    assert package.file_of("weight_edit.run") == "weight_edit.runs.running"
    assert package.file_of("weight_edit.anatomy.parts.Anatomy") == "weight_edit.anatomy.parts"
    assert package.file_of("numpy.linalg") is None


def test_a_circle_is_one_floor_however_many_are_in_it() -> None:
    graph = {"top": {"a"}, "a": {"b"}, "b": {"c"}, "c": {"a", "ground"}, "ground": set(), "alone": set()}
    assert circles(graph) == [["a", "b", "c"]]
    assert floors(graph) == 3
    assert reach(graph, ["c"]) == {"a", "b", "c", "ground"}


def test_the_imports_that_run_back_up_are_those_of_least_weight() -> None:
    weights = {("a", "b"): 5, ("b", "c"): 5, ("c", "a"): 2, ("b", "a"): 1, ("a", "outside"): 1}
    assert back_up(["a", "b", "c"], weights) == {("c", "a"), ("b", "a")}
    assert back_up(["a", "b", "c"], weights | {("c", "a"): 9}) == {("a", "b")}


def test_a_revision_is_counted_as_the_work_tree_was(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    git = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "x")):
        subprocess.run([*git, *command], cwd=root, check=True)
    monkeypatch.setattr(house, "ROOT", root)
    assert in_revision("HEAD") == in_folder(root)
    (root / "weight_edit/errors.py").unlink()
    house.main(["HEAD"])
    head = capsys.readouterr().out.splitlines()
    assert head[0].split() == ["|", "|", "HEAD", "|"]
    assert "| rooms | 7 |" in {" ".join(line.split()) for line in head}
    house.main([])
    here = capsys.readouterr().out.splitlines()
    assert "work tree" in here[0]
    assert "| rooms | 6 |" in {" ".join(line.split()) for line in here}


def test_a_fact_that_a_column_lacks_is_left_empty() -> None:
    assert table({"a": {"x": "1"}, "b": {"y": "22"}}).splitlines() == [
        "|   | a | b  |",
        "|---|---|----|",
        "| x | 1 |    |",
        "| y |   | 22 |",
    ]
