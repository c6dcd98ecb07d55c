"""What a reader of rates should know of undecided answers."""

from collections import Counter
from collections.abc import Sequence

from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.language import NO_PHRASES
from weight_edit.evaluation.results import SetResult
from weight_edit.evaluation.verdicts import Verdict


def notes_on(
    name: str, result: SetResult, answers: Sequence[Answer], *, max_new_tokens: int, can_stop_thinking: bool
) -> list[str]:
    """The notes on one set's answers.

    Args:
        can_stop_thinking: the chat template has a switch that turns thoughts off.
    """
    deciding = next(iter(result.judges))
    unread = Counter(
        judgement.reason
        for answer in answers
        if (judgement := answer.judgements[deciding]).verdict is Verdict.UNDECIDED and judgement.language is not None
        if judgement.reason is not None and judgement.reason.startswith(NO_PHRASES)
    )
    notes = [
        f"{count} of {result.count} answers to the {name} set are undecided: {reason}; name another judge (`judges`)"
        for reason, count in unread.items()
    ]
    if result.verdicts[Verdict.UNDECIDED.value] < result.count or unread:
        return notes
    within = all(answer.thought is not None for answer in answers)
    cut = sum(not answer.finished for answer in answers)
    why = f"{cut} were cut at {max_new_tokens} tokens" if cut else "the model ended its turn"
    more = "allow longer answers (`max_new_tokens`)"
    if within and can_stop_thinking:
        more += ", or turn thinking off (`thinking='off'`)"
    where = " within a thought" if within else ""
    return [*notes, f"all {result.count} answers to the {name} set are undecided: {why}{where}; {more}"]
