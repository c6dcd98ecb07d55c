"""The names that a search for directions is given, checked without torch: importing it takes seconds, a typo none."""

import sys

from weight_edit.utils.names import check_known, unknown
from weight_edit.utils.registry_listing import canonical, registered

POSITIONS = ("template", "last", "all")


def check_method(name: str) -> None:
    """Refuse a way of finding directions that there is not.

    Raises:
        UsageError: with the names there are.
    """
    # Who registers a finder elsewhere has imported the registry, which then is the one to ask.
    known = registered("directions/finders", "finder")
    if canonical(name, known) not in known and "weight_edit.directions.registry" not in sys.modules:
        raise unknown("method", name, known)


def check_positions(positions: str) -> None:
    """Refuse a word for positions that there is not.

    Raises:
        UsageError: with the words there are.
    """
    check_known("choice of positions", positions, POSITIONS)
