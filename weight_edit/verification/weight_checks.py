"""Completeness in the weights: a summary of the edited tensors found by the file pass."""

import math
from dataclasses import dataclass

from weight_edit.checkpoint.integrity.integrity import IntegrityReport


@dataclass(frozen=True, kw_only=True)
class WeightCheck:
    """A summary of the re-read edited tensors; `IntegrityReport.edits` has each tensor.

    Attributes:
        compared: number of edited tensors that were compared with the formula applied again to the base's.
        different: names of those that are further from it somewhere than rounding explains.
        exact: number of tensors that are the formula's bit for bit, which all are on one machine.
        inexact: number of entries, over all tensors, in the middle between two numbers and rounded to the other one.
        unchanged: whether the edit makes no other bytes of any of them than the base's.
        left: largest |V^T W'| / |V^T W|, of the numbers in the file; V is the direction that a tensor is projected by
            (behind a norm: the gain-weighted one). A tensor that has less along V than along a random direction is
            measured against the latter. None where it was measured of no tensor.
        left_exact: the same of the exact result of the edit; the rest of `left` is what rounding to the storage dtype
            puts back. None likewise.
        left_where: that tensor.
        rounding: largest |stored - exact| / |exact| over tensors in a quantised format; None where there are none.
        rounding_where: that tensor.
    """

    compared: int
    different: tuple[str, ...]
    exact: int
    inexact: int
    unchanged: bool
    left: float | None
    left_where: str
    left_exact: float | None
    rounding: float | None = None
    rounding_where: str = ""


def weight_check(report: IntegrityReport) -> WeightCheck:
    """The summary of a file pass."""
    # NaN counts as the largest.
    lefts = [(math.isnan(edit.left), edit.left, edit.tensor) for edit in report.edits if edit.left is not None]
    _, left, where = max(lefts, default=(False, None, ""))
    exact = [edit.left_exact for edit in report.edits if edit.left_exact is not None]
    roundings = [(edit.rounding, edit.tensor) for edit in report.edits if edit.rounding is not None]
    rounding, rounding_where = max(roundings, default=(None, ""))
    return WeightCheck(
        compared=len(report.edits),
        different=tuple(edit.tensor for edit in report.edits if not edit.ok),
        exact=sum(edit.exact for edit in report.edits),
        inexact=sum(edit.inexact for edit in report.edits),
        unchanged=bool(report.edits) and not any(edit.changed for edit in report.edits),
        left=left,
        left_where=where,
        left_exact=max(exact, key=lambda value: (math.isnan(value), value), default=None),
        rounding=rounding,
        rounding_where=rounding_where,
    )
