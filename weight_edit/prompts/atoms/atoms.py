"""Prompts that each show one ordinary ability or style, and everyday ones for comparison.

A concept atom is the difference of means between the prompts of one of these sets and those of `everyday`: eighteen
requests that ask for none of the abilities. Sets of a style (`format`, `politeness`) ask for the same things as
`everyday` does, so that their difference is the style alone. Adding an atom is adding a text file, one prompt a line.
"""

from functools import cache
from pathlib import Path

from weight_edit.utils.names import check_known

NEUTRAL = "everyday"
"""The neutral set to compare atoms with."""

_FOLDER = Path(__file__).parent


@cache
def atom_names() -> tuple[str, ...]:
    """The abilities and styles, in alphabetical order, without the neutral set."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.txt") if path.stem != NEUTRAL))


def atom_file(name: str) -> Path:
    """The file of a set's prompts, one per line.

    Raises:
        UsageError: there is none of that name.
    """
    check_known("set of atoms", name, (*atom_names(), NEUTRAL))
    return _FOLDER / f"{name}.txt"
