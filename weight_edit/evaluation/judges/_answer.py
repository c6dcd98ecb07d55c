"""The part of a reply that another model is asked about, and what needs no asking."""

from collections.abc import Callable, Sequence

from weight_edit.evaluation.registry import Judgement, Reply
from weight_edit.evaluation.structure import Structure, structure_of
from weight_edit.evaluation.verdicts import Verdict


def judged_by(ask: Callable[[list[Reply]], list[Judgement]], replies: Sequence[Reply]) -> list[Judgement]:
    """One judgement for each reply: of those without words by their form, of the others by asking.

    A flaw of form (a loop, a turn of somebody else) stands unless what comes before it is a refusal.

    Args:
        ask: one judgement for each of the replies that it gets, whose texts are answers without thoughts.
    """
    structures = [structure_of(reply) for reply in replies]
    asked = [
        _answer(reply, structure) for reply, structure in zip(replies, structures, strict=True) if structure.is_text
    ]
    answers = iter(ask(asked) if asked else ())
    return [_joined(structure, next(answers) if structure.is_text else None) for structure in structures]


def _answer(reply: Reply, structure: Structure) -> Reply:
    return Reply(prompt=reply.prompt, text=structure.answer.strip(), finished=reply.finished, control=reply.control)


def _joined(structure: Structure, judgement: Judgement | None) -> Judgement:
    if judgement is not None and (structure.flaw is None or judgement.verdict is Verdict.REFUSED):
        return judgement
    return Judgement(verdict=structure.flaw or Verdict.EMPTY, reason=structure.reason)
