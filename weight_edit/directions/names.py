"""Checks of method and position names that need no torch, so that a typo is told at once."""

import sys

from weight_edit.utils.names import check_known, unknown
from weight_edit.utils.registry_listing import canonical, registered

POSITIONS = ("template", "last", "all")
FILTERS = ("auto", "answers", "first-token", "none")
SOURCES = ("answers", "difference")
"""Where refusal tokens come from where none are given.

"answers": those that open the model's refusals, as a judge hears them; "difference": those that are more probable on
target prompts than on baseline prompts, whatever they open.
"""
DEEDS = ("ablate", "add")
"""The edits under which a choice is confirmed."""


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


def check_answering(filter_prompts: str, tokens_from: str, confirm_by: str) -> None:
    """Refuse unknown words for what the model's answers are asked for.

    Raises:
        UsageError: with the words there are.
    """
    check_known("way to filter prompts", filter_prompts, FILTERS)
    check_known("source of refusal tokens", tokens_from, SOURCES)
    check_known("edit to confirm by", confirm_by, DEEDS)


def present_filter(given: str | bool) -> str:
    """A way to filter prompts by its present word: earlier versions took True, by the first token, and False."""
    if isinstance(given, bool):
        return "first-token" if given else "none"
    return given
