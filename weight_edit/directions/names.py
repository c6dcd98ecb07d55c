"""Checks of method and position names that need no torch, so that a typo is told at once."""

import sys

from weight_edit.utils.names import check_known, unknown
from weight_edit.utils.registry_listing import canonical, registered

POSITIONS = ("template", "last", "all")


def check_method(name: str) -> None:
    """Refuse an unknown method.

    Raises:
        UsageError: with the names there are.
    """
    # Who registers a finder elsewhere has imported the registry, which then is the one to ask.
    known = registered("directions/finders", "finder")
    if canonical(name, known) not in known and "weight_edit.directions.registry" not in sys.modules:
        raise unknown("method", name, known)


def check_positions(positions: str) -> None:
    """Refuse an unknown word for positions.

    Raises:
        UsageError: with the words there are.
    """
    check_known("choice of positions", positions, POSITIONS)
