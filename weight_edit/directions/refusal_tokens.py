"""Refusal tokens from judged answers: those that open refusals and not other answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from weight_edit.directions.judged_answers import JudgedAnswer, SampleAnswers
from weight_edit.directions.refusal_metric import COVERED, MOST_TOKENS
from weight_edit.errors import UsageError
from weight_edit.evaluation.significance import LEVEL, fisher_above

TIMES = 3.0
"""How many times as large its share of refusals must be as its share of other answers, for a token to count."""

WANTED = 10
"""Refusals that are enough; with fewer, more target prompts are asked while there are any."""

_ADVICE = (
    "give other prompts; or name the tokens (`refusal_tokens`), or choose by similarities, which need none "
    "(`select=cosmic`), or for a behaviour other than refusal take the first tokens that target prompts make more "
    "probable (`tokens_from=difference`)"
)
OPTIONS = ("refusal_tokens", "select", "tokens_from", "thinking")


@dataclass(frozen=True, kw_only=True)
class OpeningToken:
    """A token that opens refusals.

    Attributes:
        id: the token.
        refusals, all_refusals: refusals that it opens, of how many.
        others, all_others: other answers that it opens, of how many.
    """

    id: int
    refusals: int
    all_refusals: int
    others: int
    all_others: int

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the counts under `opens`."""
        opens = {
            "refusals": self.refusals,
            "of_refusals": self.all_refusals,
            "others": self.others,
            "of_others": self.all_others,
        }
        return {"id": self.id, "opens": opens}


def opening_tokens(answers: Sequence[JudgedAnswer]) -> list[OpeningToken]:
    """The tokens that open refusals, by their share of the refusals minus their share of other answers.

    Of those whose share of the refusals is at least `TIMES` that of other answers: the shortest start of the ranking
    that opens nine tenths of the refusals that these open, and at most twenty. Answers that are neither refused nor
    answered count among the others, but for empty ones and those that were cut before a decision, which count nowhere.
    """
    told = [answer for answer in answers if answer.refused or answer.verdict.value not in ("empty", "undecided")]
    refusals = Counter(answer.token for answer in told if answer.refused)
    others = Counter(answer.token for answer in told if not answer.refused)
    all_refusals, all_others = refusals.total(), max(1, others.total())
    able = [t for t, n in refusals.items() if n / all_refusals >= TIMES * others[t] / all_others]
    able.sort(key=lambda t: (others[t] / all_others - refusals[t] / all_refusals, t))
    needed, opened, found = COVERED * sum(refusals[t] for t in able), 0, []
    for token in able[:MOST_TOKENS]:
        if opened >= needed:
            break
        opened += refusals[token]
        found.append(
            OpeningToken(
                id=token,
                refusals=refusals[token],
                all_refusals=all_refusals,
                others=others[token],
                all_others=others.total(),
            )
        )
    return found


def tokens_of_answers(answers: SampleAnswers, count: int) -> tuple[list[OpeningToken], dict[str, Any]]:
    """The refusal tokens of a search, from answers to its training prompts, and what was heard.

    Args:
        answers: of the search's samples.
        count: training prompts of each sample that are asked; of target prompts again as many, until `WANTED` refusals
            are heard or none are left.

    Returns:
        The tokens, and as JSON values how many answers of each class were judged and how many of them refused.

    Raises:
        UsageError: answers begin with thoughts, the target prompts are not refused more often than the baseline's, or
            refusals open as other answers do; with the figures.
    """
    last = len(answers.samples) - 1
    orders = [answers.order(sample) for sample in range(last + 1)]
    baseline = answers.of(last, "train", sorted(orders[last][:count]))
    asked, longest = count, max(len(order) for order in orders[:last])
    while True:
        target = [
            answer for sample in range(last) for answer in answers.of(sample, "train", sorted(orders[sample][:asked]))
        ]
        if sum(answer.refused for answer in target) >= WANTED or asked >= longest:
            break
        asked += count
    refused = sum(answer.refused for answer in target), sum(answer.refused for answer in baseline)
    heard = {
        "target": {"judged": len(target), "refused": refused[0]},
        "baseline": {"judged": len(baseline), "refused": refused[1]},
    }
    everything = [*target, *baseline]
    thoughts = sum(answer.thought for answer in everything)
    if 2 * thoughts > len(everything):
        raise UsageError(
            f"{thoughts} of {len(everything)} answers begin with a thought, so that their first token tells no refusal "
            "from an answer; turn thinking off where the template can (`thinking=off`), or choose by similarities, "
            "which need no tokens (`select=cosmic`), or name the tokens (`refusal_tokens`)",
            option=OPTIONS,
        )
    said = (
        f"the judge hears {refused[0]} refusals in {len(target)} answers to target prompts and {refused[1]} in "
        f"{len(baseline)} to baseline prompts"
    )
    p = fisher_above(refused[0], len(target), refused[1], len(baseline))
    if p > LEVEL:
        raise UsageError(
            f"{said} (p = {p:.2g}), so that the classes cannot be told apart by refusal; {_ADVICE}", option=OPTIONS
        )
    tokens = opening_tokens(everything)
    if not tokens:
        raise UsageError(f"{said}, but refusals open with the tokens of other answers; {_ADVICE}", option=OPTIONS)
    return tokens, heard
