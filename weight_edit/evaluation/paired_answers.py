"""All differences of two models' answers to the same prompts, ready for JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from weight_edit.evaluation.differences import differences, differences_document
from weight_edit.evaluation.lengths import differences_at_lengths
from weight_edit.evaluation.loss import loss_difference
from weight_edit.evaluation.style import differences_of_style

if TYPE_CHECKING:
    from weight_edit.evaluation.answers import Answer


def paired_document(base: Sequence["Answer"], edited: Sequence["Answer"]) -> dict[str, dict[str, Any]]:
    """By prompt set: `refusal`, `exact` and `loss` of known answers, `lengths` where there are any, and `style`.

    Raises:
        UsageError: the prompts are not the same.
    """
    found = differences_document(differences(base, edited))
    for name, of_set in found.items():
        pairs = [(a.nats, b.nats) for a, b in zip(base, edited, strict=True) if a.set == name]
        both = [(before, after) for before, after in pairs if before is not None and after is not None]
        apart = loss_difference([before for before, _ in both], [after for _, after in both])
        if apart is not None:
            of_set["loss"] = apart.to_dict()
    for name, by_length in differences_at_lengths(base, edited).items():
        found[name]["lengths"] = {str(length): apart.to_dict() for length, apart in by_length.items()}
    for name, by_measure in differences_of_style(base, edited).items():
        found[name]["style"] = {measure: apart.to_dict() for measure, apart in by_measure.items()}
    return found
