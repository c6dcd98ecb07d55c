"""What `make test-fast` (`pytest --fast`) runs: the first case of every test, without those that take long.

Tests marked `families` have a case for each model type of a long list: of those in one file a single case is run.

Whoever changes something sees in two minutes whether it still stands; `make test` and CI run everything.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

SLOW = Path(__file__).parents[1] / "slow_tests.txt"
"""Tests, one a line as `file::name`, that are slow though they are not marked so."""


def fast(items: Iterable[pytest.Item]) -> tuple[list[pytest.Item], list[pytest.Item]]:
    """The items that are run, and those that are left out, both in their order."""
    slow = slow_tests()
    seen: set[str] = set()
    kept, left = [], []
    for item in items:
        name = test_of(item)
        group = name.partition("::")[0] if item.get_closest_marker("families") is not None else name
        quick = group not in seen and name not in slow and item.get_closest_marker("slow") is None
        # The first case that is not marked slow stands for the others.
        seen.update((group,) if quick else ())
        (kept if quick else left).append(item)
    return kept, left


def slow_tests() -> set[str]:
    """The tests that `SLOW` lists."""
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_of(item: pytest.Item) -> str:
    """A test without its case, as `SLOW` lists it: `anatomy/test_towers.py::test_a_tower`."""
    return item.nodeid.partition("[")[0].removeprefix("tests/")
