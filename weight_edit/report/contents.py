"""What the page of one run, or of several, holds."""

from collections.abc import Callable, Sequence

from weight_edit.report.figure import Section
from weight_edit.report.page import Page
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.answers import answers
from weight_edit.report.sections.limits import limits
from weight_edit.report.sections.top import certificates, deed, finding, headline, overview, problems

SECTIONS: tuple[Callable[[RunRecord], Section | None], ...] = ()
"""Each makes a section of a record, or None where the run has nothing of it; in the order of the page."""


def page_of(records: Sequence[RunRecord]) -> Page:
    """The page of one run."""
    record = records[0]
    sections: list[Section] = [found for make in SECTIONS if (found := make(record)) is not None]
    return Page(
        title=headline(record),
        deed=deed(record),
        finding=finding(record),
        overview=overview(record),
        certificates=certificates(record),
        problems=problems(record),
        limits=limits(record),
        sections=sections,
        answers=answers(record),
        missing=record.missing,
    )
