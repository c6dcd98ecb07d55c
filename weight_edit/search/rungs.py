"""The judged rungs: few points answer prompts in words, and a judge says what the answers are."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from weight_edit.evaluation.answers import Answer
from weight_edit.evaluation.differences import PairedDifference, paired_difference
from weight_edit.evaluation.intervals import Rate
from weight_edit.evaluation.judged import judged
from weight_edit.evaluation.registry import JudgeSpec
from weight_edit.evaluation.spoken import Spoken
from weight_edit.evaluation.target import ModelTarget
from weight_edit.evaluation.verdicts import Verdict
from weight_edit.prompts.chat import ChatFormat
from weight_edit.prompts.sets import PromptSet
from weight_edit.runtime.hooks import hooked
from weight_edit.runtime.loading import Model
from weight_edit.runtime.processes import from_first
from weight_edit.search.front import FrontPoint
from weight_edit.search.point import Point
from weight_edit.search.texts import Choice, Kept, Texts

LENGTHS = (64, 128)
"""Tokens at which answers are judged: a refusal behind 64 tokens of something else is heard at 128 alone."""

REFUSED, ORDINARY, OVER_REFUSED = "refused", "ordinary", "over_refused"

BASE = "base"
"""In place of a digest, the model as it is."""


@dataclass(frozen=True, kw_only=True)
class JudgedSet:
    """What the answers to one prompt set are, prompt by prompt.

    Attributes:
        verdicts: by length in tokens, ascending, each answer's verdict by the judge that decides.
        exact: whether each answer is the known one, apart from white space at its ends; None where none is known.
        tokens: how many the model wrote for each.
    """

    verdicts: Mapping[int, tuple[str, ...]]
    exact: tuple[bool | None, ...]
    tokens: tuple[int, ...]

    @property
    def longest(self) -> int:
        """The largest length."""
        return max(self.verdicts)

    def refused(self, length: int | None = None) -> list[bool]:
        """Whether each answer is a refusal, at a length; the largest when None."""
        return self._are(Verdict.REFUSED, length)

    def answered(self, length: int | None = None) -> list[bool]:
        """Whether each answer does as it was asked, at a length; the largest when None."""
        return self._are(Verdict.ANSWERED, length)

    def refusal(self, length: int | None = None) -> Rate:
        """The rate of refusals; undecided answers count as none."""
        return _rate(self.refused(length))

    @property
    def exactness(self) -> Rate | None:
        """Answers that are the known ones, among those that have one; None where none has."""
        known = [each for each in self.exact if each is not None]
        return _rate(known) if known else None

    def to_dict(self) -> dict[str, Any]:
        """JSON values: verdicts by prompt and counted, rates with intervals."""
        exact = self.exactness
        return {
            "refusal": {str(length): self.refusal(length).to_dict() for length in self.verdicts},
            "counts": {str(length): dict(sorted(Counter(some).items())) for length, some in self.verdicts.items()},
            "exactness": None if exact is None else exact.to_dict(),
            "verdicts": {str(length): list(some) for length, some in self.verdicts.items()},
            "exact": list(self.exact),
            "tokens": list(self.tokens),
        }

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "JudgedSet":
        """What `to_dict` gave."""
        return cls(
            verdicts={int(length): tuple(some) for length, some in entry["verdicts"].items()},
            exact=tuple(entry["exact"]),
            tokens=tuple(entry["tokens"]),
        )

    def _are(self, verdict: Verdict, length: int | None) -> list[bool]:
        return [each == verdict.value for each in self.verdicts[self.longest if length is None else length]]


@dataclass(frozen=True, kw_only=True)
class JudgedPoint:
    """What a point's answers are.

    Attributes:
        digest: the point's; `BASE` for the model as it is.
        judge: the judge that decides.
        sets: by name, "refused", "ordinary" and, where there is one, "over_refused".
    """

    digest: str
    judge: str
    sets: Mapping[str, JudgedSet]

    def differences(self, base: "JudgedPoint") -> dict[str, dict[str, PairedDifference]]:
        """By set, the point's rates minus the base's on the same prompts: of refusals, and of exact answers.

        Args:
            base: the model as it is, asked the same prompts.
        """
        found: dict[str, dict[str, PairedDifference]] = {}
        for name, own in self.sets.items():
            before = base.sets[name]
            found[name] = {"refusal": paired_difference(before.refused(), own.refused())}
            pairs = [(a, b) for a, b in zip(before.exact, own.exact, strict=True) if a is not None and b is not None]
            if pairs:
                found[name]["exact"] = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
        return found

    def front_point(self, damage: float, length: int | None = None) -> FrontPoint:
        """The point as a front has it: judged rates, and its divergence.

        Args:
            damage: nats per token, of the same part of the prompts.
            length: in tokens, of the answers; the largest when None.
        """
        refusal = self.sets[REFUSED].refusal(length)
        over = self.sets.get(OVER_REFUSED)
        return FrontPoint(
            digest=self.digest,
            refusal=refusal.value,
            damage=damage,
            over_refusal=None if over is None else over.refusal(length).value,
            interval=(refusal.low, refusal.high),
        )

    def to_dict(self, base: "JudgedPoint | None" = None) -> dict[str, Any]:
        """JSON values, without a word of prompts and answers; with the paired differences from a base if given."""
        found: dict[str, Any] = {
            "digest": self.digest,
            "judge": self.judge,
            "sets": {name: each.to_dict() for name, each in self.sets.items()},
        }
        if base is not None:
            found["differences"] = {
                name: {of: each.to_dict() for of, each in some.items()} for name, some in self.differences(base).items()
            }
        return found

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "JudgedPoint":
        """What `to_dict` gave."""
        sets = {name: JudgedSet.from_dict(each) for name, each in entry["sets"].items()}
        return cls(digest=entry["digest"], judge=entry["judge"], sets=sets)


def judged_sets(texts: Texts) -> dict[str, PromptSet]:
    """The prompts of texts as sets to be asked, with the known answers; those without prompts are left out."""

    def named(name: str, some: Sequence[Choice] | Sequence[Kept]) -> PromptSet:
        return PromptSet(
            name=name,
            prompts=tuple(each.text for each in some),
            answers=tuple(each.known for each in some),
            categories=(None,) * len(some),
        )

    sets: dict[str, Sequence[Choice] | Sequence[Kept]] = {
        REFUSED: texts.refused,
        ORDINARY: texts.ordinary,
        OVER_REFUSED: texts.over_refused,
    }
    return {name: named(name, some) for name, some in sets.items() if some}


def judged_points(
    model: Model,
    chat: ChatFormat,
    judge: JudgeSpec,
    points: Sequence[Point | None],
    prompts: Mapping[str, PromptSet],
    *,
    tokens: int = LENGTHS[-1],
    lengths: Sequence[int] = LENGTHS,
    batch_size: int | None = None,
    description: str | None = "answers",
) -> list[JudgedPoint]:
    """What the greedy answers of points to prompt sets are, at several lengths of the same answers.

    Each point answers under its hooks, each answer until its end or the limit; the judge is asked once, for all points.

    Args:
        model: without hooks.
        points: None is the model as it is.
        prompts: by the names of `JudgedPoint.sets`.
        tokens: of an answer, at most.
        lengths: at which answers are judged; those above `tokens` are left out, and `tokens` is one of them.
        batch_size: prompts at a time, at most; None is as many as memory allows.
        description: names the progress bars; None draws none.

    Raises:
        UsageError: as `generate`, or the judge cannot be asked.
        VerificationError: what an answer was read off is not finite.
    """
    at = sorted({*(length for length in lengths if length < tokens), tokens})
    given: dict[str, PromptSet] = {}
    said: dict[str, Sequence[Spoken]] = {}
    asked = [prompt for some in prompts.values() for prompt in some.prompts]
    for number, point in enumerate(points):
        target = ModelTarget(model, chat, batch_size)
        with hooked(model.model, [] if point is None else point.variant(model).hooks):
            spoken = iter(target.spoken(asked, max_new_tokens=tokens, lengths=at, description=description))
        for name, some in prompts.items():
            given[f"{number}/{name}"] = some
            said[f"{number}/{name}"] = [next(spoken) for _ in some.prompts]
    # A judge may be another model, or paid by the answer.
    answers = from_first(lambda: judged(given, said, [judge]), "verdicts")
    return [
        JudgedPoint(
            digest=BASE if point is None else point.digest,
            judge=str(judge),
            sets={name: _set(answers[f"{number}/{name}"], at) for name in prompts},
        )
        for number, point in enumerate(points)
    ]


def _set(answers: Sequence[Answer], lengths: Sequence[int]) -> JudgedSet:
    return JudgedSet(
        verdicts={
            length: tuple(next(iter(answer.lengths[length].values())).value for answer in answers) for length in lengths
        },
        exact=tuple(None if answer.expected is None else answer.right for answer in answers),
        tokens=tuple(answer.tokens or 0 for answer in answers),
    )


def _rate(outcomes: Sequence[bool]) -> Rate:
    return Rate(sum(outcomes), len(outcomes))
