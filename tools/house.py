"""Facts of the package's layout, counted from its imports: rooms, floors, circles, and what each verb reaches.

    python tools/house.py [REVISION ...]

A table with a column for each git revision, or with one for the work tree. A room is a package or a loose file on the
first level of `weight_edit/`. An import inside a function counts, one under `if TYPE_CHECKING` does not. A name that an
`__init__` hands on when it is first used counts as an import of the file that defines the name; what a registry loads
by listing its folder does not count.

A verb *reaches* the files on all paths of imports from its own; it *loads* those on paths without an import inside a
function. The package's own `__init__`, which is loaded before anything, is left out of both.
"""

import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "weight_edit"
VERBS = ("bake", "verify", "find_directions", "run", "inspect", "evaluate")
INSIDE = ("checkpoint", "anatomy")
"""Rooms whose own first level is counted too."""
SHORT = 50
"""Files with fewer lines are counted as short."""

Graph = dict[str, set[str]]
"""Node -> the nodes that it imports."""


def names_imported(tree: ast.AST, functions: bool = True) -> Iterator[str]:
    """Dotted names that a file imports when it runs: `a.b` for `import a.b`, `a.b.c` for `from a.b import c`.

    Args:
        functions: count imports inside functions.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not functions:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from names_imported(other, functions)
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from names_imported(node, functions)


def handed_on(tree: ast.AST) -> dict[str, str]:
    """Names that an `__init__` hands on lazily -> the module below it, from its tables of strings."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant):
                    found[str(key.value)] = str(value.value)
    return found


def reach(graph: Graph, start: Iterable[str]) -> set[str]:
    """Nodes on the paths that begin in `start`, the beginnings included."""
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting.extend(graph[node])
    return seen


def circles(graph: Graph) -> list[list[str]]:
    """Strongly connected components of more than one node, the largest first."""
    reached = {node: reach(graph, [node]) for node in graph}
    found = {frozenset(other for other in reached[node] if node in reached[other]) for node in graph}
    return sorted((sorted(circle) for circle in found if len(circle) > 1), key=lambda circle: (-len(circle), circle))


def floors(graph: Graph) -> int:
    """Nodes on the longest path; a circle counts as one node, however many are in it."""
    name = {node: node for node in graph} | {node: circle[0] for circle in circles(graph) for node in circle}
    condensed: Graph = {name[node]: set() for node in graph}
    for node, others in graph.items():
        condensed[name[node]] |= {name[other] for other in others} - {name[node]}
    heights: dict[str, int] = {}

    def height(node: str) -> int:
        if node not in heights:
            heights[node] = 1 + max(map(height, condensed[node]), default=0)
        return heights[node]

    return max(map(height, condensed), default=0)


def back_up(circle: list[str], weights: Mapping[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Arrows of least total weight without which a circle is none: those that run up in its best order from the ground.

    The best order of each subset is that of the subset without its topmost node, for the best topmost node; time and
    memory double with each node.
    """
    count = len(circle)
    into = [[weights.get((below, node), 0) for below in circle] for node in circle]
    cost, topmost = [0] * (1 << count), [0] * (1 << count)
    for subset in range(1, 1 << count):
        members = [i for i in range(count) if subset >> i & 1]
        cost[subset], topmost[subset] = min(
            (cost[subset ^ 1 << top] + sum(into[top][i] for i in members if i != top), top) for top in members
        )
    order: list[str] = []
    subset = (1 << count) - 1
    while subset:
        order.insert(0, circle[topmost[subset]])
        subset ^= 1 << topmost[subset]
    place = {node: i for i, node in enumerate(order)}
    return {(a, b) for a, b in weights if a in place and b in place and place[a] < place[b]}


class House:
    """A package's files and their imports.

    Attributes:
        lines: module -> the lines of its file.
        paths: module -> its path below the package's parent.
        graph: module -> the modules that it imports.
        loaded: the same without imports inside functions.
    """

    def __init__(self, sources: Mapping[PurePosixPath, str], package: str = PACKAGE) -> None:
        """Read a package.

        Args:
            sources: path below the package's parent, such as `weight_edit/errors.py` -> text.
        """
        self.package = package
        self.paths = {_module(path): path for path in sorted(sources)}
        self.lines = {module: len(sources[path].splitlines()) for module, path in self.paths.items()}
        trees = {module: ast.parse(sources[path]) for module, path in self.paths.items()}
        self._handed_on = {
            f"{module}.{name}": f"{module}.{below}.{name}"
            for module, tree in trees.items()
            if self.paths[module].name == "__init__.py"
            for name, below in handed_on(tree).items()
            if f"{module}.{below}" in self.paths
        }
        self.graph = {module: self._imported(module, names_imported(tree)) for module, tree in trees.items()}
        self.loaded = {module: self._imported(module, names_imported(tree, False)) for module, tree in trees.items()}

    def _imported(self, module: str, names: Iterable[str]) -> set[str]:
        return {other for name in names if (other := self.file_of(name)) is not None} - {module}

    def file_of(self, name: str) -> str | None:
        """The module that a dotted name is, or is defined in; None for one of another package."""
        while name not in self.paths:
            if name in self._handed_on:
                name = self._handed_on[name]
            elif "." not in name:
                return None
            else:
                name = name.rpartition(".")[0]
        return name

    def room(self, module: str, level: int = 1) -> str:
        """The room of a module: the part of its name on one level of the tree."""
        parts = module.split(".")
        return parts[level] if len(parts) > level else "__init__"

    def arrows(self, inside: str | None = None) -> Counter[tuple[str, str]]:
        """Pairs of rooms -> how many pairs of files import across them; of the whole house or inside one room."""
        level = 1 if inside is None else 2
        found: Counter[tuple[str, str]] = Counter()
        for module, others in self.graph.items():
            for other in others:
                if inside is None or {self.room(module), self.room(other)} == {inside}:
                    found[self.room(module, level), self.room(other, level)] += 1
        return Counter({(a, b): number for (a, b), number in found.items() if a != b})

    def rooms(self, inside: str | None = None) -> Graph:
        """The rooms and what they import; inside one room its `__init__` is left out."""
        if inside is None:
            graph: Graph = {self.room(module): set() for module in self.paths}
        else:
            graph = {self.room(module, 2): set() for module in self.paths if self.room(module) == inside}
            graph.pop("__init__", None)
        for a, b in self.arrows(inside):
            if a in graph and b in graph:
                graph[a].add(b)
        return graph

    def back_up(self) -> set[tuple[str, str]]:
        """The fewest imports across rooms without which no rooms would import one another in a circle."""
        arrows = self.arrows()
        return {arrow for circle in circles(self.rooms()) for arrow in back_up(circle, arrows)}

    def facts(self) -> dict[str, str]:
        """What is counted -> the figures, as they are shown."""
        loose = [m for m, path in self.paths.items() if len(path.parts) == 2 and path.name != "__init__.py"]
        packages = {path.parts[1] for path in self.paths.values() if len(path.parts) > 2}
        total, loose_lines = sum(self.lines.values()), sum(self.lines[module] for module in loose)
        rooms, up, arrows = self.rooms(), self.back_up(), self.arrows()
        cut: Graph = {room: {other for other in others if (room, other) not in up} for room, others in rooms.items()}
        importers = Counter(other for others in self.graph.values() for other in others)
        found = {
            "files, lines": f"{len(self.paths)}, {total:,}",
            "loose modules, lines, share": f"{len(loose)}, {loose_lines:,}, {loose_lines / max(1, total):.0%}",
            "packages": str(len(packages)),
            "rooms": str(len(rooms)),
            "floors (a circle is one node)": str(floors(rooms)),
            "floors without the imports that run back up": str(floors(cut)),
            "import arrows between rooms": str(sum(map(len, rooms.values()))),
            "imports that run back up": str(sum(arrows[arrow] for arrow in up)),
            "circles between files": _sizes(circles(self.graph)),
            "circles between rooms": _sizes(circles(rooms)),
        }
        for verb in VERBS:
            start = self._handed_on.get(f"{self.package}.{verb}")
            if start is not None:
                for way, graph in (("reaches", self.graph), ("loads", self.loaded)):
                    reached = reach(graph, [self.file_of(start) or start]) - {self.package}
                    lines = sum(self.lines[module] for module in reached)
                    count = len({self.room(module) for module in reached})
                    found[f"{verb} {way} rooms (files, lines)"] = f"{count} ({len(reached)}, {lines:,})"
        for room in INSIDE:
            inner = self.rooms(room)
            figures = (len(inner), floors(inner), sum(map(len, inner.values())))
            found[f"{room}/ first level: rooms, floors, arrows"] = ", ".join(map(str, figures))
        found |= {
            f"files under {SHORT} lines": str(sum(number < SHORT for number in self.lines.values())),
            "file names in -ing": str(sum(path.stem.endswith("ing") for path in self.paths.values())),
            "files imported by exactly one other": str(sum(number == 1 for number in importers.values())),
        }
        return found


def _module(path: PurePosixPath) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _sizes(found: list[list[str]]) -> str:
    return f"{len(found)} ({', '.join(str(len(circle)) for circle in found)})" if found else "0"


def in_folder(root: Path, package: str = PACKAGE) -> dict[PurePosixPath, str]:
    """The sources of a package in a folder."""
    files = sorted((root / package).rglob("*.py"))
    return {PurePosixPath(file.relative_to(root).as_posix()): file.read_text(encoding="utf-8") for file in files}


def in_revision(revision: str, package: str = PACKAGE) -> dict[PurePosixPath, str]:
    """The sources of a package in a git revision of this repository."""
    command = ["git", "archive", "--format=tar", revision, f":(glob){package}/**/*.py"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    found: dict[PurePosixPath, str] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None:
                found[PurePosixPath(member.name)] = file.read().decode()
    return found


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Facts side by side, as a table in Markdown; a fact that a column lacks is left empty there."""
    facts = list(dict.fromkeys(fact for column in columns.values() for fact in column))
    rows = [["", *columns], *([fact, *(column.get(fact, "") for column in columns.values())] for fact in facts)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def main(revisions: list[str]) -> None:
    """Print the table."""
    sources = {revision: in_revision(revision) for revision in revisions} or {"work tree": in_folder(ROOT)}
    print(table({name: House(files).facts() for name, files in sources.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
