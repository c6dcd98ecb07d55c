"""All differences of two models' answers to the same prompts, ready for JSON."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from weight_edit.evaluation.differences import differences, differences_document
from weight_edit.evaluation.divergence import mean_interval
from weight_edit.evaluation.lengths import differences_at_lengths
from weight_edit.evaluation.loss import loss_difference
from weight_edit.evaluation.style import differences_of_style
from weight_edit.evaluation.verdicts import Verdict

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


def continuation_document(base: Sequence["Answer"], per_prompt: Sequence[float]) -> dict[str, dict[str, Any]]:
    """The divergence over the base's own answers, by what these are: `answered` and `refused`, each with a mean.

    Along an answer it is a side effect. Along a refusal it is the edit at work, and far larger: an edited model does
    not say what it no longer says. Among ordinary prompts there are often a few that the base refuses.

    Args:
        base: the base's answers.
        per_prompt: the divergence on each prompt of the answered set, in their order, nats.

    Returns:
        Empty where the base refuses none of these prompts, or all.
    """
    refused = [answer.verdict == Verdict.REFUSED for answer in base if answer.set == "answered"]
    found = {}
    for name, kind in (("answered", False), ("refused", True)):
        some = torch.tensor(
            [value for value, each in zip(per_prompt, refused, strict=True) if each is kind], dtype=torch.float64
        )
        if not len(some):
            return {}
        low, high = mean_interval(some) or (None, None)
        found[name] = {"count": len(some), "mean": float(some.mean()), "low": low, "high": high}
    return {"continuation_by_base": found}
