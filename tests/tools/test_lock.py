"""What set-up installs: a whole, exact lock of what pyproject.toml declares, which is all that the package imports."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import distribution, distributions, packages_distributions
from pathlib import Path

import pytest
from lock import changes, locked, normal, text_of
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ALL_EXTRAS = {name: [*map(Requirement, some)] for name, some in PROJECT["project"]["optional-dependencies"].items()}
# What builds the site and what drives a browser: `make docs` and `make browser` install it, pinned there.
APART_EXTRAS = ("docs", "browser")
EXTRAS = {name: some for name, some in ALL_EXTRAS.items() if name not in APART_EXTRAS}
DECLARED = [
    *map(Requirement, PROJECT["project"]["dependencies"]),
    *(each for some in EXTRAS.values() for each in some),
]
LOCKED = locked()


APART = {"weight-edit", "lm-eval", "vllm"}
"""The package itself, and the libraries of extras that tests do not install."""


def needed(name: str) -> list[Requirement]:
    """What an installed distribution asks for here, without its extras."""
    given = map(Requirement, distribution(name).requires or ())
    return [each for each in given if each.marker is None or each.marker.evaluate({"extra": ""})]


def test_each_line_is_a_name_and_an_exact_version_in_order() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 50
    assert list(LOCKED) == sorted(LOCKED)
    assert len(LOCKED) == len(lines)
    for line in lines:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==[0-9][0-9A-Za-z.]*", line), line
    assert (ROOT / "requirements.lock").read_text() == text_of(LOCKED)


def test_torch_is_the_release_that_the_makefile_names() -> None:
    pinned = re.search(r"^TORCH := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert LOCKED["torch"] == pinned[1]


@pytest.mark.parametrize("requirement", [one for one in DECLARED if normal(one.name) not in APART], ids=str)
def test_what_is_declared_is_locked_within_its_range(requirement: Requirement) -> None:
    assert requirement.specifier.contains(LOCKED[normal(requirement.name)])


@pytest.mark.parametrize("extra", APART_EXTRAS)
def test_what_builds_the_site_and_drives_a_browser_is_pinned(extra: str) -> None:
    assert len(ALL_EXTRAS[extra]) >= 2
    for each in ALL_EXTRAS[extra]:
        assert [one.operator for one in each.specifier] == ["=="], each
        assert normal(each.name) not in LOCKED


def test_what_builds_the_package_is_locked() -> None:
    """Set-up installs it in place without asking an index for what builds it."""
    for each in map(Requirement, PROJECT["build-system"]["requires"]):
        assert each.specifier.contains(LOCKED[normal(each.name)])
    assert "editables" in LOCKED


@pytest.mark.parametrize("name", LOCKED)
def test_whatever_a_locked_distribution_needs_is_locked_too(name: str) -> None:
    """Of those that are installed here in the locked version; set-up asks the same of `pip check`."""
    if name not in installed():
        pytest.skip("not installed here")
    for each in needed(name):
        assert normal(each.name) in LOCKED, each
        if distribution(name).version.partition("+")[0] == LOCKED[name]:
            assert each.specifier.contains(LOCKED[normal(each.name)]), each


@cache
def installed() -> set[str]:
    """Distributions that are installed here."""
    return {normal(each.name) for each in distributions()}


def imported() -> dict[str, str]:
    """Distribution -> a file of the package that imports it, inside functions too."""
    known = packages_distributions()
    found = {}
    for path in (ROOT / "weight_edit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            tops = {each.partition(".")[0] for each in named} - sys.stdlib_module_names - {"weight_edit", ""}
            # An extra that is not installed here is known by the library's own name.
            found.update((normal(known[top][0] if top in known else top), str(path)) for top in tops)
    return found


def test_all_that_the_package_imports_is_declared() -> None:
    """What another library happens to bring along may be gone with its next release."""
    used = [each for name, some in EXTRAS.items() if name != "test" for each in some]
    declared = {normal(each.name) for each in [*map(Requirement, PROJECT["project"]["dependencies"]), *used]}
    found = imported()
    assert {"httpx2", "tokenizers", "torch"} <= found.keys()
    # A notebook brings its own: it is asked for in one alone.
    declared.add("ipython")
    assert {name: path for name, path in found.items() if name not in declared} == {}


def test_what_a_new_lock_changes_is_said() -> None:
    before, after = {"a": "1", "b": "2", "c": "3"}, {"b": "2", "c": "4", "d": "5"}
    assert changes(before, after) == ["a: 1 -> none", "c: 3 -> 4", "d: none -> 5"]
