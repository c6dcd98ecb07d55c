"""Verdicts on the first tokens of answers: one generation gives those of every shorter limit."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from weight_edit.errors import UsageError
from weight_edit.evaluation.differences import PairedDifference, paired_difference
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.verdicts import Verdict

if TYPE_CHECKING:
    from weight_edit.evaluation.answers import Answer

DEFAULT_LIMIT = 64
"""The limit on an answer's tokens where neither it nor lengths are given."""

SERVED = (
    "verdicts at each of `lengths` are missing for {name}: a chat server gives no tokens to cut answers by; ask it "
    "once for each length, as `max_new_tokens`"
)
"""The note on a model on a server."""


@dataclass(frozen=True, kw_only=True)
class AtLength:
    """What the first tokens of the answers to one prompt set are.

    Attributes:
        judges: by each judge's name, how many answers of each kind; the judge that decides comes first.
    """

    judges: Mapping[str, Mapping[str, int]]

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many answers of each kind, by the judge that decides."""
        return next(iter(self.judges.values()))

    @property
    def refusal(self) -> Rate:
        """Refused answers among all, by the judge that decides; undecided ones count as none."""
        return _refusal(self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: refusal, verdicts, and both by each judge."""
        by_judge = {
            name: {"refusal": _refusal(counts).to_dict(), "verdicts": dict(counts)}
            for name, counts in self.judges.items()
        }
        return {"refusal": self.refusal.to_dict(), "verdicts": dict(self.verdicts), "judges": by_judge}


def answer_lengths(given: str | Iterable[int] | None) -> tuple[int, ...]:
    """Lengths in tokens, ascending, each once: numbers, or as the command line has them, `32,64,128`.

    Raises:
        UsageError: one is no whole number from 1 on.
    """
    try:
        found = sorted({int(each) for each in (given.split(",") if isinstance(given, str) else given or ())})
    except (ValueError, TypeError):
        found = [0]
    if found and found[0] < 1:
        text = given if isinstance(given, str) else list(given or ())
        raise UsageError(f"`lengths={text}`: write whole numbers from 1 on, such as 32,64,128,256", option="lengths")
    return tuple(found)


def longest(max_new_tokens: int | None, lengths: Sequence[int]) -> int:
    """The limit of the one generation: the given one, else the longest length, else `DEFAULT_LIMIT`.

    Raises:
        UsageError: the given one is below the longest length.
    """
    if max_new_tokens is None:
        return max(lengths, default=DEFAULT_LIMIT)
    if max_new_tokens < max(lengths, default=0):
        raise UsageError(
            f"`max_new_tokens={max_new_tokens}` is below the longest of `lengths={list(lengths)}`; give {max(lengths)} "
            "or more, or leave it out",
            option=("max_new_tokens", "lengths"),
        )
    return max_new_tokens


def at_lengths(answers: Sequence["Answer"]) -> dict[int, AtLength]:
    """The counts of verdicts at each length of the answers to one set, the shortest first."""
    found = {}
    for length in answers[0].lengths:
        counts = {
            judge: Counter(answer.lengths[length][judge] for answer in answers) for judge in answers[0].lengths[length]
        }
        found[length] = AtLength(
            judges={judge: {verdict.value: some[verdict] for verdict in Verdict} for judge, some in counts.items()}
        )
    return found


def differences_at_lengths(
    base: Sequence["Answer"], edited: Sequence["Answer"]
) -> dict[str, dict[int, PairedDifference]]:
    """By prompt set and length, the edited model's rate of refusals minus the base's, by the judges that decide.

    Lengths that one of the two was not judged at are left out.

    Args:
        base, edited: answers to the same prompts, in the same order.
    """
    found: dict[str, dict[int, PairedDifference]] = {}
    for name in dict.fromkeys(answer.set for answer in base):
        pairs = [(a, b) for a, b in zip(base, edited, strict=True) if a.set == name]
        for length in pairs[0][0].lengths:
            if length in pairs[0][1].lengths:
                outcomes = ([_refused(pair[side], length) for pair in pairs] for side in (0, 1))
                found.setdefault(name, {})[length] = paired_difference(*outcomes)
    return found


def _refused(answer: "Answer", length: int) -> bool:
    return next(iter(answer.lengths[length].values())) == Verdict.REFUSED


def _refusal(counts: Mapping[str, int]) -> Rate:
    return Rate(counts[Verdict.REFUSED.value], sum(counts.values()))
