"""Rooms import only rooms below them and files no circle, in functions too; imports for types alone are free."""

import ast
from pathlib import Path, PurePosixPath

import pytest
from house import House, circles, in_folder, names_imported

import weight_edit
from tests.helpers.floors import FLOORS

PACKAGE = Path(weight_edit.__file__).parent

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}


def room_of(name: str) -> str:
    """The room of a dotted name; a name that the package itself hands on is at the top."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR else "__init__"


def climbs(file: Path, source: str) -> list[str]:
    """The imports of one file that do not go down."""
    module = ".".join(("weight_edit", *file.relative_to(PACKAGE).with_suffix("").parts))
    room = room_of(module)
    return [
        f"{module} ({room}, floor {FLOOR[room]}) imports {other} (floor {FLOOR[room_of(other)]})"
        for other in names_imported(ast.parse(source))
        if other.split(".")[0] == PACKAGE.name and room_of(other) != room and FLOOR[room_of(other)] >= FLOOR[room]
    ]


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(FLOOR)


def test_every_import_goes_down() -> None:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 200
    found = [climb for file in files for climb in climbs(file, file.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


def test_no_files_import_one_another_in_a_circle() -> None:
    graph = House(in_folder(PACKAGE.parent)).graph
    assert len(graph) > 200
    assert circles(graph) == []


def test_a_circle_of_files_is_found() -> None:
    sources = {
        "weight_edit/plan/step.py": "from weight_edit.plan.plan import plan_edit",
        "weight_edit/plan/plan.py": "def plan_edit():\n    from weight_edit.plan.hooks import hook",
        "weight_edit/plan/hooks.py": "import weight_edit.plan.step",
        "weight_edit/plan/mtp.py": "from weight_edit.plan import plan",
    }
    graph = House({PurePosixPath(path): source for path, source in sources.items()}).graph
    assert circles(graph) == [["weight_edit.plan.hooks", "weight_edit.plan.plan", "weight_edit.plan.step"]]


def test_rooms_hand_nothing_on() -> None:
    """A file is imported by its own name: a function in an `__init__` would lie over the file that is called as it."""
    files = [file for file in sorted(PACKAGE.rglob("__init__.py")) if file.parent not in (PACKAGE, PACKAGE / "cli")]
    assert len(files) > 20
    for file in files:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        assert len(body) == 1, file
        assert ast.get_docstring(ast.Module(body, [])), file


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("checkpoint/files.py", "from weight_edit.anatomy.parts import Anatomy"),
        ("edits/low_rank.py", "def f():\n    from weight_edit.directions import file"),
        ("plan/plan.py", "import weight_edit.baking.bake"),
        ("hub/source.py", "from weight_edit import load"),
        ("hub/source.py", "from weight_edit import anatomy"),
    ],
)
def test_an_import_that_goes_up_is_found(file: str, source: str) -> None:
    assert climbs(PACKAGE / file, source)


def test_imports_for_types_are_free() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from weight_edit.baking.bake import bake"
    assert climbs(PACKAGE / "plan/plan.py", source) == []
