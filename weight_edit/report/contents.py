"""What the page of one run, or of several, holds."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from weight_edit.report import comparison
from weight_edit.report.figure import Section
from weight_edit.report.page import Page
from weight_edit.report.run_record import RunRecord
from weight_edit.report.sections.answers import answers
from weight_edit.report.sections.categories import categories, comparisons
from weight_edit.report.sections.certificates import certificates
from weight_edit.report.sections.geometry import geometry
from weight_edit.report.sections.judges import judges
from weight_edit.report.sections.limits import limits
from weight_edit.report.sections.refusal import refusal
from weight_edit.report.sections.reproduction import reproduction
from weight_edit.report.sections.search_front import search_front
from weight_edit.report.sections.selection import selection
from weight_edit.report.sections.side_effects import side_effects
from weight_edit.report.sections.strength import strength
from weight_edit.report.sections.tensors import tensors
from weight_edit.report.sections.top import costs, deed, finding, headline, overview, problems

SECTIONS: tuple[Callable[[RunRecord], Section | None], ...] = (
    refusal,
    strength,
    comparisons,
    search_front,
    selection,
    geometry,
    categories,
    side_effects,
    judges,
    tensors,
)
"""Each makes a section of a record, or None where the run has nothing of it; in the order of the page."""


def page_of(records: Sequence[RunRecord]) -> Page:
    """The page of one run, or of several that are compared."""
    return _of_one(records[0]) if len(records) == 1 else _of_several(records)


def _of_one(record: RunRecord) -> Page:
    sections: list[Section] = [found for make in SECTIONS if (found := make(record)) is not None]
    first = overview(record)
    if first is None and not record.state:
        # Of a search alone, the front is what is looked at first.
        first = next((figure for section in sections for figure in section.figures), None)
        sections = [replace(each, parts=tuple(part for part in each.parts if part is not first)) for each in sections]
    return Page(
        title=headline(record),
        deed=deed(record),
        listed=False,
        finding=finding(record),
        overview=first,
        costs=costs(record),
        certificates=certificates(record),
        problems=problems(record),
        limits=limits(record),
        sections=sections,
        answers=answers(record),
        last=[reproduction(record)],
        missing=record.missing,
    )


def _of_several(records: Sequence[RunRecord]) -> Page:
    runs = comparison.named_runs(records)
    return Page(
        title=f"{len(runs)} runs compared",
        deed=comparison.introduction(runs),
        listed=True,
        finding="",
        overview=comparison.overview(runs),
        costs="",
        certificates=comparison.checks(runs),
        problems=[f"{name}: {said}" for name, record in runs.items() for said in problems(record)],
        limits=comparison.caveats(runs),
        sections=comparison.sections(runs),
        answers=comparison.answers(runs),
        last=[comparison.again(runs)],
        missing=[f"{name}: {said}" for name, record in runs.items() for said in record.missing],
    )
